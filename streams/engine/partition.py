"""One partition of one assignment: its queue, its producer, its task."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faust.types.tuples import TP

    from streams.engine.api import ConsumerRecord, EngineOptions
    from streams.engine.messages import BatchMessage


HELD_BYTES: Final = 400
"""What a record takes in memory beside its key, value and headers."""


def size_of(records: Iterable[ConsumerRecord]) -> int:
    """Bytes that records take in memory, about."""
    size = 0
    for record in records:
        size += HELD_BYTES + len(record.value or b"") + len(record.key or b"")
        for name, text in record.headers:
            size += len(name) + len(text or b"")
    return size


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of a fetch to fold, and the stream and event to acknowledge the fetch by."""

    stream: Any
    event: Any
    records: Sequence[ConsumerRecord]
    """All of the fetch, or what is left of it."""
    size_bytes: int
    ends: bool = True
    """Its fetch is done with it."""

    @classmethod
    def of(cls, stream: Any, event: Any) -> Batch:
        """A whole fetch."""
        records = event.message.records
        return cls(stream, event, records, size_of(records))

    @property
    def message(self) -> BatchMessage:
        """The fetch."""
        message: BatchMessage = self.event.message
        return message

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first `count` records (at least one, and not all), and the others."""
        first, others = self.records[:count], self.records[count:]
        size = size_of(first)
        return (
            Batch(self.stream, self.event, first, size, ends=False),
            Batch(self.stream, self.event, others, self.size_bytes - size, ends=self.ends),
        )


@dataclass(frozen=True, slots=True)
class Tick:
    """A look at the clock, in order with the batches."""

    now_ms: int


@dataclass(slots=True)
class Work:
    """What goes into one transaction."""

    items: list[Batch | Tick] = field(default_factory=list)
    events: int = 0
    size_bytes: int = 0
    last_offset: int | None = None
    """Of the last record; None when there are only ticks."""

    def add(self, item: Batch | Tick) -> None:
        """Take one more."""
        self.items.append(item)
        if isinstance(item, Batch):
            self.events += len(item.records)
            self.size_bytes += item.size_bytes
            self.last_offset = item.records[-1].offset

    def split(self, items: int, records: int) -> tuple[Work, list[Batch | Tick]]:
        """The first items and so many records of the one after them; and what is left."""
        head, left = Work(), self.items[items:]
        for item in self.items[:items]:
            head.add(item)
        if records and left and isinstance(left[0], Batch):
            first, left[0] = left[0].split(records)
            head.add(first)
        return head, left

    @property
    def batches(self) -> list[Batch]:
        """The items without the ticks."""
        return [item for item in self.items if isinstance(item, Batch)]


class Part:
    """All that one assigned partition owns, for one assignment and never longer."""

    __slots__ = (
        "closing",
        "expired_to",
        "generation",
        "next_offset",
        "producer",
        "queue",
        "queued_bytes",
        "queued_events",
        "read_to",
        "ready",
        "started_at",
        "task",
        "tick_queued",
        "tp",
        "wake",
        "work",
    )

    def __init__(self, tp: TP, generation: int, producer: Any) -> None:
        self.tp = tp
        self.generation = generation
        self.producer = producer
        self.queue: deque[Batch | Tick] = deque()
        self.queued_events = 0
        self.queued_bytes = 0
        self.tick_queued = False
        self.wake = asyncio.Event()
        self.work = Work()
        self.task: asyncio.Task[None] | None = None
        self.closing = False
        self.ready = False
        self.next_offset = 0
        self.expired_to: int | None = None
        self.read_to: int | None = None
        self.started_at = 0.0

    @property
    def number(self) -> int:
        """The partition."""
        number: int = self.tp.partition
        return number

    def unseen(self, records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """The records not yet taken in this assignment, whoever seeked; they are taken now."""
        if records[0].offset < self.next_offset:
            records = [record for record in records if record.offset >= self.next_offset]
        if records:
            self.next_offset = records[-1].offset + 1
        return records

    def add(self, batch: Batch) -> None:
        """Queue a batch."""
        self.queue.append(batch)
        self.queued_events += len(batch.records)
        self.queued_bytes += batch.size_bytes
        self.wake.set()

    def tick(self, now_ms: int) -> None:
        """Queue a tick; one that waits already is enough."""
        if self.ready and not self.closing and not self.tick_queued:
            self.tick_queued = True
            self.queue.append(Tick(now_ms))
            self.wake.set()

    @property
    def folded_to(self) -> int | None:
        """Everything before this offset is folded and committed; None where nothing was fetched yet.

        Between two batches that is the consumer's position, which passes markers and aborted records.
        """
        waiting = next((message.records for message in self.leftovers() if message.records), None)
        return self.read_to if waiting is None else waiting[0].offset

    def close(self) -> None:
        """No new transaction from here on."""
        self.closing = True
        self.wake.set()

    async def take(self, options: EngineOptions) -> Work | None:
        """Wait for work and take a transaction's worth of it, a fetch being the unit. None when closing."""
        while not self.closing:
            pause = self.started_at + options.linger_s - time.monotonic()
            if not self.queue:
                self.wake.clear()
                await self.wake.wait()
            elif pause > 0:
                await asyncio.sleep(pause)
            else:
                return self._take(options.max_records, options.max_batch_bytes)
        return None

    def _take(self, max_records: int, max_bytes: int) -> Work:
        work = Work()
        while self.queue and work.events < max_records and work.size_bytes < max_bytes:
            item = self.queue.popleft()
            if isinstance(item, Tick):
                self.tick_queued = False
            work.add(item)
        if self.expired_to is not None and work.items:
            if work.last_offset is None:
                work.last_offset = self.expired_to - 1
            self.expired_to = None
        self.started_at = time.monotonic()
        self.work = work
        return work

    def done(self, work: Work, left: Sequence[Batch | Tick] = ()) -> None:
        """So much of the work taken last is done and acknowledged; what is left goes first the next time."""
        self.queued_events -= work.events
        self.queued_bytes -= work.size_bytes
        self.work = Work()
        if left:
            self._put_back(left)

    def _put_back(self, left: Sequence[Batch | Tick]) -> None:
        ticks = [item for item in left if isinstance(item, Tick)]
        if ticks:  # one that waits is enough, and this one has waited longest
            self.tick_queued = True
            left = [item for item in left if isinstance(item, Batch) or item is ticks[0]]
            self.queue = deque(item for item in self.queue if isinstance(item, Batch))
        self.queue.extendleft(reversed(left))

    def leftovers(self) -> list[BatchMessage]:
        """Batches that were taken or queued and never done."""
        return [item.message for item in (*self.work.items, *self.queue) if isinstance(item, Batch)]
