"""One source: its connections, its queues as they are found, and what runs beside the pump."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from streams.bridge import bullmq, checkpoint, discovery, sequencer
from streams.bridge.bullmq import Keys
from streams.bridge.early import TICK_S, Early
from streams.bridge.health import HEARTBEAT_S, Health
from streams.bridge.link import Away, Link
from streams.bridge.looks import read_head
from streams.bridge.pump import Pump
from streams.bridge.reader import Reader
from streams.bridge.stream import Stream
from streams.bridge.tasks import run_beside
from streams.bridge.walk import FIRST_SIGHT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from streams.bridge.buffer import Buffer
    from streams.bridge.checkpoint import Checkpoint
    from streams.bridge.looks import Head
    from streams.bridge.metrics import Metrics
    from streams.bridge.outage import Outage
    from streams.bridge.publish import Publisher
    from streams.settings import Settings

log = logging.getLogger(__name__)


class Source:
    """All queues of one configured Redis and prefix."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        publisher: Publisher,
        buffer: Buffer,
        outage: Outage,
        metrics: Metrics,
    ) -> None:
        """`publisher`, `buffer`, `outage` and `metrics` are shared by all sources."""
        self.name = name
        self._settings = settings
        self._config = settings.sources[name]
        self._outage = outage
        outage.expect(self._what)
        url = self._config.url.get_secret_value()
        self._links = [Link(url) for _ in range(4)]
        reading, pumping, self._finding, self._prefetching = self._links
        self._health = Health(metrics)
        self._pump = Pump(settings, pumping, publisher, buffer, self._health, metrics)
        self._early = Early(buffer)
        self._reader = Reader(reading, buffer, self._pump.work, self._early)
        self._streams: dict[str, Stream] = {}
        self._known: dict[bytes, Checkpoint] = {}
        self._run_id = ""

    @property
    def _what(self) -> str:
        return f"redis ({self.name})" if len(self._settings.sources) > 1 else "redis"

    async def run(self, known: dict[bytes, Checkpoint], stop: asyncio.Event) -> None:
        """Until `stop`; by then all that was handed over is complete up to each stream's position."""
        self._known = known
        helpers = [
            self._repeat(self._find, self._config.discover_interval_s),
            self._repeat(self._reader.step, 0),
            self._repeat(self._count, HEARTBEAT_S),
        ]
        if self._settings.bridge.enrich:
            helpers.append(self._repeat(lambda: self._early.step(self._prefetching), TICK_S))
        try:
            await run_beside(self._pump.run(stop, self._outage, self._what), helpers)
        finally:
            for link in self._links:
                await link.close()

    def ask(self, queue: str, job_id: str, reason: str) -> None:
        """Look at a job soon; asked twice before the look, it is looked at once."""
        stream = self._streams.get(queue)
        if stream is not None and stream.wanted.get(job_id) != "probe":
            stream.wanted[job_id] = reason
            self._pump.work.set()

    async def _repeat(self, step: Callable[[], Awaitable[bool]], pause_s: float) -> None:
        """`step` tells whether Redis has answered."""
        while True:
            try:
                answered = await step()
            except Away as error:
                self._run_id = ""
                await self._outage.wait(self._what, error)
            else:
                if answered:
                    self._outage.over(self._what)
                await asyncio.sleep(pause_s)

    async def _find(self) -> bool:
        config = self._config
        if not self._run_id:
            self._run_id = bullmq.run_id(await self._finding.call(b"INFO", b"server"))
        found = await discovery.find(self._finding, config.prefix, config.queues, config.exclude)
        for queue in sorted(found - self._streams.keys()):
            await self._open(queue)
        return True

    async def _open(self, queue: str) -> None:
        stream = Stream(self.name, queue, Keys(self._config.prefix, queue))
        (replies,) = await self._finding.multi([stream.keys.head])
        known = self._known.get(checkpoint.key_of(self._settings.bridge.id, self.name, queue))
        if known is None:
            await self._first_sight(stream, read_head(replies))
        else:
            checkpoint.resume(stream, known)
        self._streams[queue] = stream
        self._pump.add(stream)
        self._reader.add(stream)
        log.info("reading queue %s of source %s from %s-%s", queue, self.name, *stream.position)

    async def _first_sight(self, stream: Stream, head: Head) -> None:
        stream.paused = head.paused
        stream.dirty = True
        if self._settings.bridge.snapshot:
            stream.comparisons.ask(FIRST_SIGHT)
        if self._settings.bridge.start == "end":
            stream.position = stream.read_to = stream.settled = head.at
            stream.ordinal = head.added or 0
            return
        stream.ordinal = (head.added or 0) - head.length
        first = await self._finding.call(b"XRANGE", stream.keys.events, b"-", b"+", b"COUNT", b"1000")
        stream.paused = sequencer.initial_pause((tuple(entry) for entry in first), now_paused=head.paused)

    async def _count(self) -> bool:
        """Jobs by place, for the heartbeats."""
        streams = list(self._streams.values())
        groups = [[stream.keys.size(place) for place in bullmq.PLACES] for stream in streams]
        for stream, sizes in zip(streams, await self._finding.multi(groups), strict=True):
            stream.counts = {
                place: size for place, size in zip(bullmq.PLACES, sizes, strict=True) if isinstance(size, int)
            }
        self._health.due = True
        return bool(streams)
