"""The bridge as a whole: start, run until stopped, end."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Final

from streams.bridge import probes
from streams.bridge.buffer import Buffer
from streams.bridge.gauges import Gauges
from streams.bridge.metrics import Asked, Metrics, NoMetrics, NoPulse, Pulse
from streams.bridge.outage import Outage
from streams.bridge.publish import FencedError, Publisher
from streams.bridge.source import Source
from streams.bridge.tasks import run_beside, unless

if TYPE_CHECKING:
    from streams.bridge.checkpoint import Checkpoint
    from streams.settings import Settings

log = logging.getLogger(__name__)

_DRAIN_S: Final = 15.0
_CANCEL_S: Final = 5.0


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    metrics: Metrics | None = None,
    outage: Outage | None = None,
    pulse: Pulse | None = None,
) -> int:
    """Read, enrich, publish until `stop` is set.

    Returns the exit code: 1 where another bridge with this id has taken over. `outage.missing` tells meanwhile what the
    bridge waits for, and `pulse` hears from each endless loop. To be called once per process: it sets the collector's
    thresholds.
    """
    bridge = Bridge(settings, metrics or NoMetrics(), outage or Outage(), pulse or NoPulse())
    working = asyncio.create_task(bridge.run(stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait([working], timeout=_DRAIN_S)
    if not working.done():
        log.warning("stopping without Kafka: what is not committed is read again at the next start")
        working.cancel()
        await asyncio.wait([working], timeout=_CANCEL_S)
        return 0
    try:
        working.result()
    except FencedError:
        log.error("another bridge with the id %s has taken over", settings.bridge.id)  # noqa: TRY400 - no fault
        return 1
    return 0


class Bridge:
    """Publisher, sources and the listener on probes."""

    def __init__(self, settings: Settings, metrics: Metrics, outage: Outage, pulse: Pulse) -> None:
        """To be made inside the running loop."""
        self._settings = settings
        self._outage = outage
        self._metrics = metrics
        self._publisher = Publisher(settings, outage)
        self._buffer = Buffer(settings.bridge.buffer_bytes)
        self._sources = {
            name: Source(name, settings, self._publisher, self._buffer, outage, metrics, pulse)
            for name in settings.sources
        }
        if isinstance(metrics, Asked):
            gauges = Gauges(metrics, self._buffer, self._sources.values())
            metrics.before(gauges.refresh)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then until all that was handed over is on Kafka. Raises FencedError."""
        try:
            known = await unless(stop, self._publisher.start())
            if known is None:
                return
            _calm_collector()
            listening = probes.listen(self._settings, self._outage, self._metrics, self._ask)
            await run_beside(self._serve(known, stop), [self._publisher.run(), listening])
        finally:
            await self._publisher.close()

    async def _serve(self, known: dict[bytes, Checkpoint], stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(source.run(known, stop))
        await self._publisher.drain()

    def _ask(self, question: probes.Question) -> str | None:
        """Why the question will not be asked, if it will not."""
        source = self._sources.get(question.source)
        return "unknown_source" if source is None else source.ask(*question[1:])


def _calm_collector() -> None:
    """Each turn makes tens of thousands of objects that die young: the default thresholds cost a third of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
