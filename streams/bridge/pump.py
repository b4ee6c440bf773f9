"""The loop of one source: take entries, enrich them, look at jobs, encode, hand over.

Looks are made between two takes: while one is under way nothing is handed on, so whatever a look knows of
is either on Kafka or still in the buffer, and its place is exact. Whatever goes wrong with one stream is that
stream's: `Pump.failed` is told, and the turn goes on with the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from streams import topology
from streams.bridge import bullmq, checkpoint, encode, sequencer
from streams.bridge.asking import Question
from streams.bridge.encode import Encoder
from streams.bridge.enrich import enrichments
from streams.bridge.judging import Judging, doubt
from streams.bridge.link import is_refusal
from streams.bridge.looks import asks, upcoming
from streams.bridge.pace import Pace
from streams.bridge.publish import MOST_BYTES, Chunk
from streams.bridge.refusal import printable
from streams.bridge.sequencer import Taken
from streams.bridge.shares import Shares, fitting
from streams.bridge.stream import Entry, Stream
from streams.bridge.walking import walk_on
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.bridge.asking import Asking
    from streams.bridge.buffer import Buffer
    from streams.bridge.encode import Record
    from streams.bridge.enrich import Enrichment
    from streams.bridge.health import Health
    from streams.bridge.history import Past, Verdict
    from streams.bridge.identity import Identity
    from streams.bridge.ids import Id
    from streams.bridge.looks import Ask, Head
    from streams.bridge.metrics import Metrics
    from streams.bridge.publish import Publisher
    from streams.bridge.refusal import Refusals
    from streams.settings import Settings

log = logging.getLogger(__name__)

TURN_BYTES: Final = 6_000_000
"""Of entries and of the hashes that go into their records: a transaction is about as large."""
_IDLE_S: Final = 0.25
_BEAT_S: Final = 5.0


@dataclass(slots=True)
class Part:
    """One stream's part of a turn."""

    stream: Stream
    count: int
    taken: Taken = field(default_factory=Taken)
    entry_bytes: int = 0
    hash_bytes: int = 0


class Pump:
    """Entries and looks of one source's streams, on to the publisher."""

    def __init__(
        self,
        settings: Settings,
        asking: Asking,
        identity: Identity,
        publisher: Publisher,
        buffer: Buffer,
        health: Health,
        metrics: Metrics,
        refusals: Refusals,
    ) -> None:
        """`asking` is used by nobody else."""
        self._settings = settings
        self._asking = asking
        self._identity = identity
        self._judging = Judging(asking, identity)
        self._publisher = publisher
        self._buffer = buffer
        self._health = health
        self._metrics = metrics
        self._refusals = refusals
        self._shares = Shares()
        self._pace = Pace()
        self._encoders: dict[str, Encoder] = {}
        self._served: dict[str, Stream] = {}
        self.failed: Callable[[Stream, Exception], None] = lambda _stream, _error: None
        """Called where a stream cannot be read, or something else went wrong with it."""
        self.dropped: Callable[[Stream], None] = lambda _stream: None
        """Called where what was read of a stream was thrown away."""
        self.beat: Callable[[], None] = lambda: None
        """Called at each turn."""
        self.work = asyncio.Event()

    def add(self, stream: Stream) -> None:
        """Serve this stream too."""
        self._encoders[stream.queue] = Encoder(
            stream,
            self._settings.kafka.partitions,
            wall_ms,
            max_text_bytes=self._settings.bridge.max_text_bytes,
            limits=self._publisher.limits,
        )
        self._served[stream.queue] = stream
        self._shares.add(stream)
        self.work.set()

    def remove(self, stream: Stream) -> None:
        """Serve it no more; what it holds is thrown away."""
        self._shares.remove(stream)
        del self._encoders[stream.queue], self._served[stream.queue]
        self._buffer.drop(stream)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            self.beat()
            await self._wait_for_work()
            turn = await self._begin(stop)
            try:
                if await self._ask(turn, stop) and await self._judge(turn, stop):
                    await self._hand_over(turn)
            finally:
                for part in turn:
                    self._buffer.remove("entries", part.entry_bytes)
                    self._buffer.remove("hashes", part.hash_bytes)

    async def _wait_for_work(self) -> None:
        self.work.clear()
        idle_s = self._shares.idle_s(self._pace.wait_s(time.monotonic()), _IDLE_S)
        if not idle_s:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(idle_s):
                await self.work.wait()

    def _is_served(self, stream: Stream) -> bool:
        return self._served.get(stream.queue) is stream

    async def _begin(self, stop: asyncio.Event) -> list[Part]:
        """Who is served, and with how much; nobody where `stop` came while Redis was away."""
        served = [Part(stream, count) for stream, count in self._shares.turn(TURN_BYTES)]
        asked = [part for part in served if not part.stream.refused]
        jobs = [self._jobs(part) for part in asked]
        commands = [part.stream.sizes.commands(part.stream.keys, *each) for part, each in zip(asked, jobs, strict=True)]
        replies = await self._asking.lengths([command for each in commands for command in each], stop)
        if replies is None:
            return []
        most_bytes = self._publisher.limits.of(topology.EVENTS)
        at = 0
        for part, each, own in zip(asked, jobs, commands, strict=True):
            part.stream.sizes.learn(*each, replies[at : at + len(own)], most_bytes)
            at += len(own)
        for part in served:
            with self._within(part.stream):
                self._take(part)
        return served

    def _jobs(self, part: Part) -> tuple[list[str], set[str]]:
        """Jobs of which this turn will read the hashes, and those of them that were just added."""
        stream = part.stream
        stream.sizes.forget()
        new: set[str] = set()
        ids: dict[str, None] = dict.fromkeys(upcoming(stream, time.monotonic(), self._pace))
        new.update(ids)
        if self._settings.bridge.enrich:
            for _, (_, flat) in zip(range(part.count), stream.buffer, strict=False):
                if bullmq.carries_job(flat):
                    ids[flat[3]] = None
                    if flat[1] == bullmq.ADDED:
                        new.add(flat[3])
        return [job_id for job_id in ids if stream.sizes.is_readable(job_id)], new

    def _take(self, part: Part) -> None:
        stream = part.stream
        if stream.pause_unsure and stream.buffer:
            stream.paused = sequencer.initial_pause(stream.buffer, now_paused=stream.paused)
            stream.pause_unsure = False
        count = part.count if stream.sizes.calm else fitting(stream, part.count, TURN_BYTES)
        before = len(stream.buffer)
        part.taken = sequencer.take(stream, count)
        part.entry_bytes = sum(stream.held.popleft() for _ in range(before - len(stream.buffer)))

    # -- Redis ------------------------------------------------------------------------------------------------

    async def _ask(self, turn: list[Part], stop: asyncio.Event) -> bool:
        """Enrich what was taken and make the looks that are due. False where `stop` came while Redis was away."""
        questions = [
            question
            for part in turn
            if self._is_served(part.stream) and not part.stream.refused
            for question in self._questions(part)
        ]
        if not await self._asking.all(questions, stop, self._failed):
            return False
        for part in turn:
            if not self._is_served(part.stream):
                continue
            with self._within(part.stream):
                sequencer.place(part.stream, part.taken)
                part.hash_bytes, part.stream.sizes.read_bytes = part.stream.sizes.read_bytes, 0
                self._buffer.add("hashes", part.hash_bytes)
        return True

    def _questions(self, part: Part) -> Iterator[Question]:
        items = part.taken.items if self._settings.bridge.enrich else ()
        size_bytes, jobs = self._asking.flight_bytes, self._asking.jobs
        for enrichment in enrichments(part.stream, items, jobs=jobs, size_bytes=size_bytes):
            yield self._enriching(part, enrichment)
        for ask in asks(part.stream, time.monotonic(), self._pace, jobs):
            yield self._looking(part.stream, ask)

    def _enriching(self, part: Part, enrichment: Enrichment) -> Question:
        stream, read = part.stream, sequencer.read_so_far(part.stream)

        def answer(replies: list[Any]) -> None:
            self._mark(stream, read, enrichment.apply(replies))

        def halves() -> list[Question]:
            return [self._enriching(part, half) for half in enrichment.halves()]

        return Question(part.stream, enrichment.commands, enrichment.expected_bytes, answer, halves)

    def _looking(self, stream: Stream, ask: Ask) -> Question:
        def answer(replies: list[Any]) -> None:
            looks = ask.read(replies)
            for look in looks:
                look.replica = self._identity.server.is_replica
            sequencer.add_looks(stream, looks)

        return Question(stream, ask.commands, ask.expected_bytes, answer, list)

    @staticmethod
    def _mark(stream: Stream, read: Past, head: Head) -> None:
        stream.last = head.at
        if not doubt(stream, read, head) and head.added is not None:
            sequencer.mark(stream, head.at, head.added, paused=head.paused)

    # -- histories --------------------------------------------------------------------------------------------

    async def _judge(self, turn: list[Part], stop: asyncio.Event) -> bool:
        """Go on with each stream as its history tells. False where `stop` came while Redis was away."""
        parts = {part.stream: part for part in turn}
        for stream in self._shares:
            if stream.unsure and not stream.refused and stream not in parts:
                parts[stream] = Part(stream, 0)
                turn.append(parts[stream])
        while True:
            unsure = [part for part in turn if part.stream.unsure and self._is_served(part.stream)]
            unsure = [part for part in unsure if not part.stream.refused]
            if not unsure or stop.is_set():
                return not unsure
            turns = [(part.stream, part.taken) for part in unsure]
            answered = await self._judging.all(
                turns, stop, self._failed, lambda stream, verdict, head: self._follow(parts[stream], verdict, head)
            )
            if not answered:
                return False

    def _follow(self, part: Part, verdict: Verdict, head: Head) -> None:
        stream = part.stream
        epoch = stream.epoch
        part.taken = sequencer.follow(stream, verdict, self._identity.server, part.taken, self._drop)
        if stream.epoch != epoch:
            stream.paused, stream.pause_unsure = head.paused, True

    def _drop(self, stream: Stream) -> None:
        self._buffer.drop(stream)
        self.dropped(stream)

    # -- Kafka ------------------------------------------------------------------------------------------------

    async def _hand_over(self, turn: list[Part]) -> None:
        whole = Chunk()
        turn_bytes = 0
        for part in turn:
            if not self._is_served(part.stream):
                continue
            turn_bytes += part.entry_bytes + part.hash_bytes
            own = Chunk()
            with self._within(part.stream):
                self._make(part, own)
            if not self._is_served(part.stream):
                own.forget()
                continue
            if whole.size_bytes and whole.size_bytes + own.size_bytes > MOST_BYTES:
                await self._put(whole)
                whole = Chunk()
            whole.add(own)
        if turn_bytes:
            self._metrics.set("bridge_turn_bytes", turn_bytes, {"source": self._asking.source})
        self._health.beat(self._shares, whole)
        self._refusals.tell(whole)
        if whole.records or whole.checkpoints:
            await self._put(whole)

    async def _put(self, chunk: Chunk) -> None:
        """Hand over; to wait for Kafka is no standstill of this loop."""
        putting = asyncio.ensure_future(self._publisher.put(chunk))
        try:
            while not putting.done():
                await asyncio.wait([putting], timeout=_BEAT_S)
                self.beat()
        finally:
            putting.cancel()

    def _make(self, part: Part, chunk: Chunk) -> None:
        self._encode(part, chunk)
        self._health.gaps(part.stream, part.taken.gaps, chunk)
        walk_on(part.stream, part.taken, chunk, self._health, self._metrics)
        if not part.stream.unsure:
            part.stream.memory.server = self._identity.server
        sequencer.hand_on(part.stream, part.taken)
        self._cover(part.stream, chunk)

    def _encode(self, part: Part, chunk: Chunk) -> None:
        stream, taken = part.stream, part.taken
        encoder = self._encoders[stream.queue]
        encoder.begin()
        records: list[Record] = []
        for item in taken.items:
            try:
                records.extend(encoder.entry(item) if isinstance(item, Entry) else encoder.look(item))
            except Exception as error:  # noqa: BLE001 - one record's fault costs one record
                records.append(encoder.failed(item, error))
                log.warning("a record of %s could not be made: %s", stream.name, encode.where(error))
        records.extend(encoder.malformed(raw) for raw in taken.malformed)
        encoder.end()
        chunk.append(records)
        size_bytes = chunk.size_bytes
        self._buffer.add("records", size_bytes)
        chunk.held = [partial(self._buffer.remove, "records", size_bytes)]
        self._buffer.remove("hashes", _passed(stream))
        chunk.on_committed.append(partial(self._committed, stream, len(taken.items)))
        for reason in encoder.set_aside:
            self._metrics.inc("bridge_dead_letters_total", 1, {"reason": reason})
        self._meter(stream, taken)

    def _cover(self, stream: Stream, chunk: Chunk) -> None:
        if stream.dirty:
            key = checkpoint.key_of(self._settings.bridge.id, stream.source, stream.queue)
            chunk.checkpoints[key] = stream.covered = checkpoint.of_stream(stream, wall_ms())
            stream.dirty = False
            chunk.on_committed.append(partial(self._published, stream, stream.position))

    @staticmethod
    def _published(stream: Stream, at: Id) -> None:
        stream.committed = at

    def _committed(self, stream: Stream, events: int) -> None:
        labels = {"source": stream.source, "queue": stream.queue}
        self._metrics.inc("bridge_events_published_total", events, labels)

    def _meter(self, stream: Stream, taken: Taken) -> None:
        labels = {"source": stream.source, "queue": stream.queue}
        entries = [item for item in taken.items if isinstance(item, Entry)]
        self._metrics.inc("bridge_entries_read_total", len(entries) + len(taken.malformed), labels)
        bare = sum(1 for entry in entries if entry.job is None and entry.event in bullmq.CARRIES_JOB)
        self._metrics.inc("bridge_unenriched_total", bare, labels)

    # -- one stream's failure ---------------------------------------------------------------------------------

    @contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        """What goes wrong inside is this stream's."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a queue holds concerns that queue alone
            self._failed(stream, error)

    def _failed(self, stream: Stream, error: Exception) -> None:
        if not is_refusal(error):
            log.warning("queue %s of source %s: %s", printable(stream.queue), stream.source, encode.where(error))
        self.failed(stream, error)


def _passed(stream: Stream) -> int:
    """Forget the hashes read early whose job's own entry has been handed on; returns their bytes."""
    size_bytes = 0
    while stream.early:
        job_id, known = next(iter(stream.early.items()))
        if known.added_at > stream.position:
            break
        size_bytes += known.size_bytes
        del stream.early[job_id]
    return size_bytes
