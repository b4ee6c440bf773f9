"""The bridge as a whole: start, run until stopped, end."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from streams.bridge import probes
from streams.bridge.metrics import Metrics, NoMetrics
from streams.bridge.outage import Outage
from streams.bridge.publish import FencedError, Publisher
from streams.bridge.reader import Buffer
from streams.bridge.source import Source

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from streams.settings import Settings

T = TypeVar("T")

log = logging.getLogger(__name__)

_DRAIN_S: Final = 15.0


async def run(
    settings: Settings, *, stop: asyncio.Event, metrics: Metrics | None = None, outage: Outage | None = None
) -> int:
    """Read, enrich, publish until `stop` is set. Returns the exit code: 1 where another bridge has taken over."""
    outage = outage or Outage()
    bridge = Bridge(settings, metrics or NoMetrics(), outage)
    working = asyncio.create_task(bridge.run(stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    done, _ = await asyncio.wait([working], timeout=_DRAIN_S)
    if not done:
        log.warning("stopping with Kafka or Redis away: what was not committed is read again at the next start")
        working.cancel()
        await asyncio.wait([working], timeout=5)
        return 0
    try:
        working.result()
    except FencedError:
        log.error("another bridge with the id %s has taken over", settings.bridge.id)  # noqa: TRY400 - no fault to trace
        return 1
    return 0


class Bridge:
    """Publisher, sources and the listener on probes."""

    def __init__(self, settings: Settings, metrics: Metrics, outage: Outage) -> None:
        """To be made inside the running loop."""
        self._settings = settings
        self._outage = outage
        self._publisher = Publisher(settings, outage)
        buffer = Buffer(settings.bridge.buffer_bytes)
        self._sources = {
            name: Source(name, settings, self._publisher, buffer, outage, metrics) for name in settings.sources
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then until all that was handed over is on Kafka. Raises FencedError."""
        known = await _unless(stop, self._publisher.start())
        if known is None:
            return
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        publishing = asyncio.create_task(self._publisher.run())
        listening = asyncio.create_task(probes.listen(self._settings, self._outage, self._ask))
        working = [asyncio.create_task(source.run(known, stop)) for source in self._sources.values()]
        try:
            await _first_failure([publishing, listening], working)
            draining = asyncio.create_task(self._publisher.drain())
            await _first_failure([publishing], [draining])
        finally:
            for task in (publishing, listening, *working):
                task.cancel()
            await asyncio.gather(publishing, listening, *working, return_exceptions=True)
            await self._publisher.close()

    def _ask(self, source: str, queue: str, job_id: str, reason: str) -> None:
        if source in self._sources:
            self._sources[source].ask(queue, job_id, reason)


async def _unless(stop: asyncio.Event, start: Coroutine[Any, Any, T]) -> T | None:
    """The result of `start`; None where `stop` came first."""
    starting = asyncio.create_task(start)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        return starting.result()
    starting.cancel()
    await asyncio.wait([starting])
    return None


async def _first_failure(endless: list[asyncio.Task[None]], ending: list[asyncio.Task[None]]) -> None:
    """Wait for all of `ending`; an exception of any task is raised at once."""
    waiting = {*endless, *ending}
    while not all(task.done() for task in ending):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
