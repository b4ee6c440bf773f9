"""One source: its connections, its streams, the loop that takes, enriches, looks, encodes and hands over."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq, checkpoint, discovery, sequencer
from streams.bridge.bullmq import Keys
from streams.bridge.encode import Encoder
from streams.bridge.enrich import Enrichment
from streams.bridge.health import Health
from streams.bridge.link import Away, Link
from streams.bridge.looks import Head, asks, read_head
from streams.bridge.publish import Chunk
from streams.bridge.reader import Reader
from streams.bridge.stream import START, Entry, Stream, parse_id
from streams.bridge.walk import pause_walk, snapshot_walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.bridge.checkpoint import Checkpoint
    from streams.bridge.looks import Ask
    from streams.bridge.metrics import Metrics
    from streams.bridge.outage import Outage
    from streams.bridge.publish import Publisher
    from streams.bridge.reader import Buffer
    from streams.bridge.sequencer import Taken
    from streams.settings import Settings

log = logging.getLogger(__name__)

ENTRIES_PER_TURN = 3000
_HEARTBEAT_S = 10.0


def wall_ms() -> int:
    """Wall clock, ms since the epoch."""
    return int(time.time() * 1000)


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
        self._publisher = publisher
        self._buffer = buffer
        self._outage = outage
        self._metrics = metrics
        self._work = asyncio.Event()
        url = self._config.url.get_secret_value()
        self._reading, self._asking, self._finding = Link(url), Link(url), Link(url)
        self._reader = Reader(self._reading, buffer, self._work)
        self.streams: dict[str, Stream] = {}
        self._encoders: dict[str, Encoder] = {}
        self._health = Health(name, metrics)
        self._known: dict[bytes, Checkpoint] = {}
        self._run_id = ""

    async def run(self, known: dict[bytes, Checkpoint], stop: asyncio.Event) -> None:
        """Until `stop`; what has been handed over by then is complete up to each stream's position."""
        self._known = known
        helpers = [asyncio.create_task(self._discover()), asyncio.create_task(self._read())]
        try:
            while not stop.is_set():
                await self._turn(stop)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            for link in (self._reading, self._asking, self._finding):
                await link.close()

    def ask(self, queue: str, job_id: str, reason: str) -> None:
        """Look at a job soon; asked twice before the look, it is looked at once."""
        stream = self.streams.get(queue)
        if stream is not None and stream.wanted.get(job_id) != "probe":
            stream.wanted[job_id] = reason
            self._work.set()

    # -- finding and opening streams ------------------------------------------------------------------------

    async def _discover(self) -> None:
        config = self._config
        while True:
            await self._retrying(self._find)
            await asyncio.sleep(config.discover_interval_s)

    async def _find(self) -> None:
        config = self._config
        if not self._run_id:
            self._run_id = await _run_id(self._finding)
        found = await discovery.find(self._finding, config.prefix, config.queues, config.exclude)
        for queue in sorted(found - self.streams.keys()):
            await self._open(queue)

    async def _open(self, queue: str) -> None:
        stream = Stream(self.name, queue, Keys(self._config.prefix, queue), run_id=self._run_id)
        (replies,) = await self._finding.multi([stream.keys.head])
        known = self._known.get(checkpoint.key_of(self._settings.bridge.id, self.name, queue))
        head = read_head(replies)
        if known is None:
            await self._first_sight(stream, head)
        else:
            resume(stream, known)
        if stream.snapshot == "pending":
            stream.walks.append(snapshot_walk())
        self._encoders[queue] = Encoder(stream, self._settings.kafka.partitions, wall_ms)
        self.streams[queue] = stream
        self._reader.add(stream)
        self._work.set()
        log.info("reading queue %s of source %s from %s", queue, self.name, stream.position)

    async def _first_sight(self, stream: Stream, head: Head) -> None:
        stream.paused = head.paused
        stream.dirty = True
        stream.snapshot = "pending" if self._settings.bridge.snapshot else "done"
        if self._settings.bridge.start == "end":
            stream.position = stream.read_to = head.at
            stream.ordinal = head.added or 0
            return
        stream.ordinal = (head.added or 0) - head.length
        first = await self._finding.call(b"XRANGE", stream.keys.events, b"-", b"+", b"COUNT", b"1000")
        stream.paused = sequencer.initial_pause((tuple(entry) for entry in first), now_paused=head.paused)

    # -- reading --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            await self._retrying(self._reader.step)

    async def _retrying(self, step: Callable[[], Any]) -> None:
        try:
            await step()
        except Away as error:
            self._run_id = ""
            await self._outage.wait(self._away, error)
        else:
            self._outage.over(self._away)

    @property
    def _away(self) -> str:
        return f"redis ({self.name})" if len(self._settings.sources) > 1 else "redis"

    # -- the turn -------------------------------------------------------------------------------------------

    async def _turn(self, stop: asyncio.Event) -> None:
        await self._wait_for_work()
        taken = {}
        busy = [stream for stream in self.streams.values() if stream.busy]
        for stream in busy:
            taken[stream.queue] = sequencer.take(stream, max(ENTRIES_PER_TURN // len(busy), 100))
        if busy:
            await self._ask_all(busy, taken, stop)
        chunk = self._chunk(busy, taken)
        self._health.beat(self.streams.values(), chunk)
        if chunk.records or chunk.checkpoints:
            await self._publisher.put(chunk)

    async def _wait_for_work(self) -> None:
        if any(stream.busy for stream in self.streams.values()) and any(
            stream.buffer or stream.wanted or stream.walks for stream in self.streams.values()
        ):
            await asyncio.sleep(0)
            return
        self._work.clear()
        try:
            async with asyncio.timeout(0.25):
                await self._work.wait()
        except TimeoutError:
            pass

    async def _ask_all(self, busy: list[Stream], taken: dict[str, Taken], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._ask(busy, taken)
            except Away as error:
                await self._outage.wait(self._away, error)
            else:
                return

    async def _ask(self, busy: list[Stream], taken: dict[str, Taken]) -> None:
        """Enrich what was taken and make the looks that are due: one round trip for all streams."""
        groups: list[list[bytes]] = []
        plan: list[tuple[Stream, Enrichment | Ask]] = []
        for stream in busy:
            items = taken[stream.queue].items if self._settings.bridge.enrich else ()
            enrichment = Enrichment(stream, items)
            groups.append(enrichment.commands())
            plan.append((stream, enrichment))
            for ask in asks(stream):
                groups.append(ask.commands)
                plan.append((stream, ask))
        for (stream, asked), replies in zip(plan, await self._asking.multi(groups), strict=True):
            if isinstance(asked, Enrichment):
                self._mark(stream, asked.apply(replies), taken[stream.queue])
            else:
                sequencer.add_looks(stream, asked.read(replies))
        for stream in busy:
            sequencer.place(stream, taken[stream.queue])

    def _mark(self, stream: Stream, head: Head, turn: Taken) -> None:
        if head.added is not None or head.at != START:
            gap = sequencer.mark(stream, head.at, head.added, paused=head.paused)
            if gap is not None:
                turn.gaps.append(gap)

    def _chunk(self, busy: list[Stream], taken: dict[str, Taken]) -> Chunk:
        chunk = Chunk()
        for stream in busy:
            self._encode(stream, taken[stream.queue], chunk)
            self._health.gaps(stream, taken[stream.queue].gaps, chunk)
            self._walk_on(stream, taken[stream.queue], chunk)
            if stream.dirty:
                key = checkpoint.key_of(self._settings.bridge.id, self.name, stream.queue)
                chunk.checkpoints[key] = checkpoint.of_stream(stream, wall_ms())
                stream.dirty = False
        return chunk

    def _encode(self, stream: Stream, turn: Taken, chunk: Chunk) -> None:
        encoder = self._encoders[stream.queue]
        encoder.begin()
        records = chunk.records
        for item in turn.items:
            records.extend(encoder.entry(item) if isinstance(item, Entry) else encoder.look(item))
        records.extend(encoder.malformed(raw) for raw in turn.malformed)
        size, stream.taken_bytes = stream.taken_bytes, 0
        chunk.on_committed.append(lambda: self._done(stream, size, len(turn.items)))
        self._meter(stream, turn)

    def _meter(self, stream: Stream, turn: Taken) -> None:
        labels = {"source": stream.source, "queue": stream.queue}
        entries = [item for item in turn.items if isinstance(item, Entry)]
        self._metrics.inc("bridge_entries_read_total", len(entries) + len(turn.malformed), labels)
        bare = sum(1 for entry in entries if entry.job is None and entry.event in bullmq.CARRIES_JOB)
        self._metrics.inc("bridge_unenriched_total", bare, labels)
        self._metrics.set("bridge_buffered_entries", len(stream.buffer), labels)
        behind_s = (wall_ms() - stream.position[0]) / 1000 if stream.buffer else 0.0
        self._metrics.set("bridge_source_lag_seconds", max(behind_s, 0.0), labels)

    def _done(self, stream: Stream, size_bytes: int, events: int) -> None:
        self._buffer.remove(size_bytes)
        labels = {"source": stream.source, "queue": stream.queue}
        self._metrics.inc("bridge_events_published_total", events, labels)

    def _walk_on(self, stream: Stream, turn: Taken, chunk: Chunk) -> None:
        """Tell how far snapshots have come, end finished walks, begin those that a pause asks for."""
        for walk in list(stream.walks):
            if walk.looks:
                self._health.snapshot(stream, walk, chunk)
            if walk.over and not stream.looks:
                stream.walks.remove(walk)
                if walk.looks:
                    stream.snapshot = "done"
                    stream.dirty = True
        if turn.pause_changes:
            stream.walks = [walk for walk in stream.walks if walk.looks]
            stream.walks.append(pause_walk(paused=turn.pause_changes[-1]))


def resume(stream: Stream, known: Checkpoint) -> None:
    """Go on where the checkpoint says."""
    stream.position = stream.read_to = parse_id(known.position)
    stream.ordinal = known.entries_added
    stream.paused = known.paused
    stream.snapshot = known.snapshot


async def _run_id(link: Link) -> str:
    info: str = await link.call(b"INFO", b"server")
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return fields.get("run_id", "")
