"""The loop of one source: take entries, enrich them, look at jobs, encode, hand over.

Looks are made between two takes: while one is under way nothing is handed on, so whatever a look knows of
is either on Kafka or still in the buffer, and its place is exact.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from streams.bridge import bullmq, checkpoint, sequencer
from streams.bridge.encode import Encoder
from streams.bridge.enrich import Enrichment
from streams.bridge.link import Away
from streams.bridge.looks import Ask, asks
from streams.bridge.publish import Chunk
from streams.bridge.stream import Entry, Stream
from streams.bridge.walk import FAILOVER, GAP, pause_walk
from streams.clock import wall_ms

if TYPE_CHECKING:
    from streams.bridge.buffer import Buffer
    from streams.bridge.health import Health
    from streams.bridge.link import Link
    from streams.bridge.looks import Head
    from streams.bridge.metrics import Metrics
    from streams.bridge.outage import Outage
    from streams.bridge.publish import Publisher
    from streams.bridge.sequencer import Taken
    from streams.settings import Settings

ENTRIES_PER_TURN = 3000
_LEAST_PER_STREAM = 100
_IDLE_S = 0.25


class Pump:
    """Entries and looks of one source's streams, on to the publisher."""

    def __init__(
        self,
        settings: Settings,
        link: Link,
        publisher: Publisher,
        buffer: Buffer,
        health: Health,
        metrics: Metrics,
    ) -> None:
        """`link` is used by nobody else."""
        self._settings = settings
        self._link = link
        self._publisher = publisher
        self._buffer = buffer
        self._health = health
        self._metrics = metrics
        self._streams: dict[str, Stream] = {}
        self._encoders: dict[str, Encoder] = {}
        self.work = asyncio.Event()

    def add(self, stream: Stream) -> None:
        """Serve this stream too."""
        self._encoders[stream.queue] = Encoder(stream, self._settings.kafka.partitions, wall_ms)
        self._streams[stream.queue] = stream
        self.work.set()

    async def run(self, stop: asyncio.Event, outage: Outage, what: str) -> None:
        """Until `stop`. `what` names this Redis where it is away."""
        while not stop.is_set():
            await self._wait_for_work()
            busy = [stream for stream in self._streams.values() if stream.busy]
            limit = max(ENTRIES_PER_TURN // max(len(busy), 1), _LEAST_PER_STREAM)
            turn = [(stream, sequencer.take(stream, limit)) for stream in busy]
            if await self._ask_until_answered(turn, stop, outage, what):
                await self._hand_over(turn)

    async def _wait_for_work(self) -> None:
        self.work.clear()
        if any(stream.ready for stream in self._streams.values()):
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(_IDLE_S):
                await self.work.wait()
        except TimeoutError:
            pass

    async def _ask_until_answered(
        self, turn: list[tuple[Stream, Taken]], stop: asyncio.Event, outage: Outage, what: str
    ) -> bool:
        """False where `stop` came while Redis was away: then the turn is left for the next start."""
        while turn:
            try:
                await self._ask(turn)
            except Away as error:
                if stop.is_set():
                    return False
                await outage.wait(what, error)
            else:
                return True
        return True

    async def _ask(self, turn: list[tuple[Stream, Taken]]) -> None:
        """Enrich what was taken and make the looks that are due: one round trip for all streams."""
        plan: list[tuple[Stream, Taken, Enrichment | Ask]] = []
        for stream, taken in turn:
            items = taken.items if self._settings.bridge.enrich else ()
            plan.append((stream, taken, Enrichment(stream, items)))
            plan.extend((stream, taken, ask) for ask in asks(stream, time.monotonic()))
        answers = await self._link.multi([asked.commands for _, _, asked in plan])
        for (stream, _, asked), replies in zip(plan, answers, strict=True):
            if isinstance(asked, Ask):
                sequencer.add_looks(stream, asked.read(replies))
            else:
                self._mark(stream, asked.apply(replies))
        for stream, taken in turn:
            sequencer.place(stream, taken)

    @staticmethod
    def _mark(stream: Stream, head: Head) -> None:
        if head.added is not None:
            sequencer.mark(stream, head.at, head.added, paused=head.paused)

    async def _hand_over(self, turn: list[tuple[Stream, Taken]]) -> None:
        chunk = Chunk()
        for stream, taken in turn:
            self._encode(stream, taken, chunk)
            self._health.gaps(stream, taken.gaps, chunk)
            self._walk_on(stream, taken, chunk)
            sequencer.hand_on(stream, taken)
            self._cover(stream, chunk)
        self._health.beat(self._streams.values(), chunk)
        if chunk.records or chunk.checkpoints:
            await self._publisher.put(chunk)

    def _encode(self, stream: Stream, taken: Taken, chunk: Chunk) -> None:
        encoder = self._encoders[stream.queue]
        encoder.begin()
        for item in taken.items:
            chunk.records.extend(encoder.entry(item) if isinstance(item, Entry) else encoder.look(item))
        chunk.records.extend(encoder.malformed(raw) for raw in taken.malformed)
        size, stream.taken_bytes = stream.taken_bytes, 0
        if stream.early_bytes and not stream.early:
            size, stream.early_bytes = size + stream.early_bytes, 0
        events = len(taken.items)
        chunk.on_committed.append(lambda: self._committed(stream, size, events))
        for reason in encoder.set_aside:
            self._metrics.inc("bridge_dead_letters_total", 1, {"reason": reason})
        self._meter(stream, taken)

    def _cover(self, stream: Stream, chunk: Chunk) -> None:
        if stream.dirty:
            key = checkpoint.key_of(self._settings.bridge.id, stream.source, stream.queue)
            chunk.checkpoints[key] = checkpoint.of_stream(stream, wall_ms())
            stream.dirty = False

    def _committed(self, stream: Stream, size_bytes: int, events: int) -> None:
        self._buffer.remove(size_bytes)
        labels = {"source": stream.source, "queue": stream.queue}
        self._metrics.inc("bridge_events_published_total", events, labels)

    def _meter(self, stream: Stream, taken: Taken) -> None:
        labels = {"source": stream.source, "queue": stream.queue}
        entries = [item for item in taken.items if isinstance(item, Entry)]
        self._metrics.inc("bridge_entries_read_total", len(entries) + len(taken.malformed), labels)
        bare = sum(1 for entry in entries if entry.job is None and entry.event in bullmq.CARRIES_JOB)
        self._metrics.inc("bridge_unenriched_total", bare, labels)
        self._metrics.set("bridge_buffered_entries", len(stream.buffer), labels)
        behind_s = (wall_ms() - stream.position[0]) / 1000 if stream.buffer else 0.0
        self._metrics.set("bridge_source_lag_seconds", max(behind_s, 0.0), labels)

    def _walk_on(self, stream: Stream, taken: Taken, chunk: Chunk) -> None:
        """End walks that are over, begin the one that a pause asks for, and the comparison that is due."""
        over = [walk for walk in stream.walks if not walk.looks and walk.over and not stream.looks]
        if over:
            stream.walks = [walk for walk in stream.walks if walk not in over]
            stream.dirty = True
        if taken.pause_changes:
            stream.walks = [walk for walk in stream.walks if walk.looks]
            stream.walks.append(pause_walk(paused=taken.pause_changes[-1]))
            stream.dirty = True
        self._compare(stream, taken, chunk)

    def _compare(self, stream: Stream, taken: Taken, chunk: Chunk) -> None:
        comparisons = stream.comparisons
        running = comparisons.running
        if running is not None:
            finished = running.is_settled(stream.position, stream.looks[-1].after if stream.looks else None)
            self._health.comparison(stream, running, chunk, finished=finished)
            if finished:
                stream.walks.remove(running)
                comparisons.end(time.monotonic())
                stream.dirty = True
        for gap in taken.gaps:
            comparisons.ask(GAP if gap.cause in ("trimmed", "reset") else FAILOVER)
            stream.dirty = True
        if comparisons.is_due(time.monotonic()):
            walk = comparisons.begin()
            stream.walks.append(walk)
            for reason in set(walk.requests.values()):
                self._metrics.inc("bridge_snapshots_total", 1, {"reason": reason})
