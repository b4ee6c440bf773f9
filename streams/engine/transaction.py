"""One batch of work: folded, written, and only then applied.

Until the commit returned, rows and offsets are as they were, so a batch may be folded any number of times.
"""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import ProducerFenced
from aiokafka.structs import TopicPartition

from streams.engine.partition import Batch
from streams.engine.produce import Sends, send, settle
from streams.engine.quiet import RateLimit, kind_of
from streams.engine.tx import CheckedTx, Tx, Unwritable
from streams.wire import NO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.engine.api import ConsumerRecord, EngineOptions, Handler
    from streams.engine.limits import Limits
    from streams.engine.partition import Part, Tick, Work
    from streams.engine.store import PartitionStore
    from streams.engine.tx import Output


log = logging.getLogger(__name__)
log.addFilter(RateLimit())

SLICE_S: Final = 0.02
"""The fold gives the loop back after so long."""
SHORT_S: Final = 0.001
"""What takes less than this need not give it back."""
MAX_FOLD_S: Final = 5.0
"""A transaction takes no more than this and one slice of folding."""


class CommitUnknown(RuntimeError):  # noqa: N818 - it may have been committed
    """Asked to commit, the producer failed: rows and offsets have to be read again, under a new assignment."""


@dataclass(slots=True)
class Folded:
    """The outcome of a fold: what to write, what to apply."""

    tx: Tx
    rows: dict[bytes, bytes | None]
    seconds: float
    work: Work
    """What was folded: all that there was, or as much as goes into a transaction."""
    left: list[Batch | Tick]

    @property
    def empty(self) -> bool:
        """Nothing to write, offsets aside."""
        return not self.rows and not self.tx.outputs

    def row_records(self) -> Iterator[Output]:
        """The rows as records of the changelog. A generator: fewer objects alive for the collector."""
        topic, partition = self.tx.table_topic, self.tx.partition
        return ((topic, partition, key, raw, NO_HEADERS, None) for key, raw in self.rows.items())


@dataclass(slots=True)
class Folding:
    """A fold on its way: how far it has come, and what it has cost.

    Folding holds the loop, so it goes in slices, of one partition at a time: all partitions together hold the loop
    no longer than one of them.
    """

    handler: Handler
    tx: Tx
    work: Work
    max_bytes: int
    turn: asyncio.Lock
    seconds: float = 0.0
    items: int = 0
    records: int = 0

    async def run(self) -> None:
        """Fold all, or until the transaction has its fill."""
        while self.items < len(self.work.items) and not self._full():
            async with self.turn:
                began = time.perf_counter()
                self._slice(began + SLICE_S)
                took = time.perf_counter() - began
                self.seconds += took
                if took >= SHORT_S:  # before the next one's turn, or many of them would come in one turn of the loop
                    await asyncio.sleep(0)

    def _slice(self, until: float) -> None:
        """Fold until this time."""
        while self.items < len(self.work.items):
            item = self.work.items[self.items]
            if isinstance(item, Batch):
                self._records(item, until)
                if self.records < len(item.records):
                    return
                self.records = 0
            else:
                self._one(None, item.now_ms)
            self.items += 1
            if time.perf_counter() >= until or self._full():
                return

    def _records(self, batch: Batch, until: float) -> None:
        tx, clock, max_bytes, one = self.tx, time.perf_counter, self.max_bytes, self._of_records()
        folded = self.records
        for record in islice(batch.records, folded, None):
            one(record)
            folded += 1
            tx.spent_bytes += len(record.value or b"")
            if tx.spent_bytes >= max_bytes or clock() >= until:
                break
        self.records = folded

    def _of_records(self) -> Callable[[ConsumerRecord], None]:
        tx = self.tx
        if isinstance(tx, CheckedTx):
            return lambda record: self._one(record, 0)
        return partial(self.handler.on_record, tx)

    def _one(self, record: ConsumerRecord | None, now_ms: int) -> None:
        """Fold a record, or (None) what is due. What a careful transaction cannot take is set aside at once."""
        tx, handler = self.tx, self.handler
        tx.mark()
        try:
            if record is None:
                handler.on_tick(tx, now_ms)
            else:
                handler.on_record(tx, record)
        except Exception as error:
            if not isinstance(tx, CheckedTx):
                raise
            tx.take_back()
            self._set_aside(tx, record, error)

    def _set_aside(self, tx: CheckedTx, record: ConsumerRecord | None, error: Exception) -> None:
        handler = self.handler
        try:
            if isinstance(error, Unwritable):
                handler.on_unwritable(tx, record, error)
            else:
                handler.on_failed(tx, record, error)
        except Exception as again:  # noqa: BLE001 - whatever it is: the other records must go on
            tx.take_back()
            where = "a tick" if record is None else f"{record.topic}-{record.partition} offset {record.offset}"
            log.error(  # noqa: TRY400 - a traceback would show data
                "%s failed (%s) and cannot be set aside (%s): it is left out", where, *map(kind_of, (error, again))
            )

    def _full(self) -> bool:
        return self.tx.spent_bytes >= self.max_bytes or self.seconds >= MAX_FOLD_S


async def fold(
    handler: Handler,
    store: PartitionStore,
    options: EngineOptions,
    part: Part,
    work: Work,
    limits: Limits,
    turn: asyncio.Lock,
    *,
    careful: bool = False,
) -> Folded:
    """Fold `work` on the committed rows, or as much of it as goes into a transaction.

    `careful` sets aside what cannot be written or fails, record by record. Without it that is raised.
    """
    rows = store.parts[part.number]
    kind = CheckedTx if careful else Tx
    tx = kind(part.number, rows, options.table_topic, limits.default, options.codec, limits.by_topic)
    folding = Folding(handler, tx, work, options.max_batch_bytes, turn)
    await folding.run()
    began = time.perf_counter()
    encoded = tx.encode()
    done, left = (work, []) if folding.items == len(work.items) else work.split(folding.items, folding.records)
    return Folded(tx, encoded, folding.seconds + time.perf_counter() - began, done, left)


async def commit(part: Part, folded: Folded, last_offset: int | None, group: str) -> int | None:
    """Outputs, rows and the consumed offset in one transaction. Returns the offset of the last row.

    Raises KafkaError or Unwritable when it was not committed (abort, and fold again), ProducerFenced when the
    partition has another owner, CommitUnknown when nobody here can tell.
    """
    producer = part.producer
    await producer.begin_transaction()  # local: the broker's clock starts with the first send
    sends: Sends = []
    await send(producer, folded.tx.outputs, sends)
    count = await send(producer, folded.row_records(), sends)
    await settle(sends, producer)
    if last_offset is not None:
        # After the sends, never beside them: the broker would refuse the first produce, and aiokafka wait.
        offsets = {TopicPartition(part.tp.topic, part.tp.partition): last_offset + 1}
        await producer.send_offsets_to_transaction(offsets, group)
    try:
        await producer.commit_transaction()
    except ProducerFenced:
        raise
    except Exception as error:
        raise CommitUnknown(f"partition {part.number}: {error!r}") from error
    return _last_offset(sends, count)


async def write(part: Part, folded: Folded) -> int | None:
    """At least once: outputs, then rows; the offset follows with the acknowledgement."""
    outputs: Sends = []
    await send(part.producer, folded.tx.outputs, outputs)
    await settle(outputs, part.producer)
    rows: Sends = []
    count = await send(part.producer, folded.row_records(), rows)
    await settle(rows, part.producer)
    return _last_offset(rows, count)


def _last_offset(sends: Sends, count: int | None) -> int | None:
    if count is None:
        return None
    first: int = sends[-1].future.result().offset
    return first + count - 1


def lost(producer: Any) -> bool:
    """True when a transactional producer can only be thrown away."""
    fatal: bool = producer._txn_manager.is_fatal_error()
    return fatal
