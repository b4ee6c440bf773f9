"""One source: its connections, and what runs beside the pump."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from streams import topology
from streams.bridge import bullmq, encode, judging, refusal, sequencer
from streams.bridge.asking import Asking
from streams.bridge.early import TICK_S, Early
from streams.bridge.health import HEARTBEAT_S, Health
from streams.bridge.identity import Identity, Reach
from streams.bridge.link import Away, Link, Refused
from streams.bridge.looks import HEAD_WIDTH, read_head
from streams.bridge.pump import Pump
from streams.bridge.queues import Queues
from streams.bridge.reader import Reader
from streams.bridge.refusal import Refusals
from streams.bridge.tasks import run_beside
from streams.clock import wall_ms
from streams.telemetry.skew import Skew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from streams.bridge.buffer import Buffer
    from streams.bridge.checkpoint import Checkpoint
    from streams.bridge.history import Past, Server
    from streams.bridge.looks import Head
    from streams.bridge.metrics import Metrics, Pulse
    from streams.bridge.outage import Outage
    from streams.bridge.publish import Publisher
    from streams.bridge.stream import Stream
    from streams.settings import Settings

log = logging.getLogger(__name__)

_COUNTED_AT_ONCE = 200
_COUNT_S = 1.0
"""How soon a queue that was just opened has its first heartbeat."""
_COUNTS_AN_INTERVAL = 8
_QUICK_MS = 1_000
"""An answer that takes longer does not tell the time."""
_BEAT_S = 5.0
_LONGEST_PAUSE_S = 60.0


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
        pulse: Pulse,
    ) -> None:
        """All but `name` are shared by all sources."""
        self.name = name
        self._config = settings.sources[name]
        self._reach = Reach(outage, name if len(settings.sources) > 1 else "")
        self._pulse = pulse
        url = self._config.url.get_secret_value()
        self._skew = Skew(metrics, f"redis-bridge/{name}", f"Redis (source {name})", "events have its times")
        self._identity = Identity(
            allow_replica=self._config.allow_replica, changed=self._doubt_all, renamed=self._rename
        )
        reading = Link(url, partial(self._identity.connected, reads=True))
        others = [Link(url, partial(self._identity.connected, reads=False)) for _ in range(4)]
        self._links = self._identity.links = [reading, *others]
        pumping, finding, prefetching, self._counting = others
        self._health = Health(metrics)
        refusals = Refusals(name, metrics)
        asking = Asking(name, pumping, self._reach, metrics)
        self._pump = Pump(settings, asking, self._identity, publisher, buffer, self._health, metrics, refusals)
        self._early = None
        if settings.bridge.enrich:
            self._early = Early(prefetching, buffer, lambda: publisher.limits.of(topology.EVENTS))
        self._queues = Queues(name, settings, finding, refusals, metrics)
        heard, failed = self._identity.heard, self._queues.failed
        self._reader = Reader(reading, buffer, self._pump.work, self._early, failed, heard)
        self._queues.serve(self._pump, self._reader, self._early)

    @property
    def streams(self) -> Iterable[Stream]:
        """All queues that are open."""
        return self._queues.streams.values()

    def _doubt_all(self) -> None:
        """Another server, or another connection: whatever is read now may be another history."""
        for stream in self.streams:
            stream.unsure = True
        self._pump.work.set()

    def _rename(self, server: Server) -> None:
        for stream in self.streams:
            if not stream.unsure:
                stream.memory.server = server

    async def run(self, known: dict[bytes, Checkpoint], stop: asyncio.Event) -> None:
        """Until `stop`; by then all that was handed over is complete up to each stream's position."""
        self._queues.begin(known)
        helpers = [
            self._repeat("finder", self._queues.find, self._config.discover_interval_s),
            self._repeat("reader", self._reader.step, 0),
            self._repeat("counter", self._count, _COUNT_S),
        ]
        if self._early is not None:
            helpers.append(self._repeat("early", self._early.step, TICK_S))
        name = self._loop("pump")
        self._pump.beat = lambda: self._pulse.beat(name)
        try:
            await run_beside(self._pump.run(stop), helpers)
        finally:
            for link in self._links:
                await link.close()

    def ask(self, queue: str, job_id: str, reason: str, request: str = "") -> str | None:
        """Look at a job soon, or compare the whole queue (empty `job_id`): why that will not be done, if it will not.

        Asked twice before the look, it is looked at once.
        """
        stream = self._queues.streams.get(queue)
        if stream is None:
            return self._queues.ask(queue, job_id, reason, request)
        self._pump.work.set()
        return stream.ask(job_id, reason, request)

    def _loop(self, who: str) -> str:
        return f"{self.name} {who}"

    async def _repeat(self, who: str, step: Callable[[], Awaitable[bool]], pause_s: float) -> None:
        """`step` tells whether Redis has answered."""
        name, faults = self._loop(who), 0
        while True:
            self._pulse.beat(name)
            try:
                answered = await step()
            except Away as error:
                await self._reach.wait(error, who)
            except Exception as error:  # noqa: BLE001 - one helper's fault must not end the others
                faults += 1
                log.error("%s failed, going on: %s", name, encode.where(error))  # noqa: TRY400 - the text may hold data
                await self._pause(name, min(2.0**faults, _LONGEST_PAUSE_S))
            else:
                faults = 0
                if answered:
                    self._reach.over(who)
                await self._pause(name, pause_s)

    async def _pause(self, name: str, pause_s: float) -> None:
        """A loop that waits on purpose does not stand still."""
        while pause_s > _BEAT_S:
            await asyncio.sleep(_BEAT_S)
            self._pulse.beat(name)
            pause_s -= _BEAT_S
        await asyncio.sleep(pause_s)

    async def _count(self) -> bool:
        """For the heartbeats: jobs by place, without a place that cannot be counted, and the stream's last entry."""
        now_s = time.monotonic()
        known = [stream for stream in self.streams if not stream.refused]
        due = sorted(
            (stream for stream in known if stream.heartbeat_at_s <= now_s), key=lambda stream: stream.heartbeat_at_s
        )
        # Spread over the interval: thousands of heartbeats in one transaction, and one second of Redis, would be felt.
        streams = due[: max(len(known) // _COUNTS_AN_INTERVAL, _COUNTED_AT_ONCE)]
        for at in range(0, len(streams), _COUNTED_AT_ONCE):
            part = streams[at : at + _COUNTED_AT_ONCE]
            groups = [[*stream.keys.head, *(stream.keys.size(place) for place in bullmq.PLACES)] for stream in part]
            read = [sequencer.read_so_far(stream) for stream in part]
            asked_ms = wall_ms()
            answers = await self._counting.transactions(groups)
            took_ms = wall_ms() - asked_ms
            redis_ms = 0
            for stream, up_to, answer in zip(part, read, answers, strict=True):
                stream.heartbeat_at_s = now_s + HEARTBEAT_S
                try:
                    replies = refusal.replies(answer)
                    head = read_head(replies)
                except Refused as error:
                    self._queues.failed(stream, error)
                    continue
                redis_ms = redis_ms or head.observed_at
                self._learn(stream, up_to, head, replies[HEAD_WIDTH:])
                self._health.due.add(stream)
            if redis_ms and 0 <= took_ms <= _QUICK_MS:
                self._skew.tell(redis_ms - asked_ms - took_ms / 2)
        return bool(streams)

    def _learn(self, stream: Stream, read: Past, head: Head, sizes: list[Any]) -> None:
        stream.last = head.at
        counted = zip(bullmq.PLACES, sizes, strict=True)
        stream.counts = {place: size for place, size in counted if isinstance(size, int)}
        if not stream.unsure and (judging.doubt(stream, read, head) or sequencer.is_exhausted(stream, read, head)):
            self._pump.work.set()
