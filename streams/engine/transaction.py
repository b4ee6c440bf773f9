"""One batch of work: folded, written, and only then applied.

Until the commit returned, rows and offsets are as they were, so a batch may be folded any number of times.
"""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka.errors import ProducerFenced
from aiokafka.structs import TopicPartition

from streams.engine.partition import Batch
from streams.engine.produce import Sends, send, settle
from streams.engine.tx import CheckedTx, Tx, Unwritable
from streams.wire import NO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.engine.api import EngineOptions, Handler
    from streams.engine.partition import Part, Work
    from streams.engine.store import PartitionStore
    from streams.engine.tx import Output


class CommitUnknown(RuntimeError):  # noqa: N818 - it may have been committed
    """Asked to commit, the producer failed: rows and offsets have to be read again, under a new assignment."""


@dataclass(slots=True)
class Folded:
    """The outcome of a fold: what to write, what to apply."""

    tx: Tx
    rows: dict[bytes, bytes | None]
    seconds: float

    @property
    def empty(self) -> bool:
        """Nothing to write, offsets aside."""
        return not self.rows and not self.tx.outputs

    def row_records(self) -> Iterator[Output]:
        """The rows as records of the changelog. A generator: fewer objects alive for the collector."""
        topic, partition = self.tx.table_topic, self.tx.partition
        return ((topic, partition, key, raw, NO_HEADERS, None) for key, raw in self.rows.items())


def fold(
    handler: Handler,
    store: PartitionStore,
    options: EngineOptions,
    part: Part,
    work: Work,
    *,
    careful: bool = False,
) -> Folded:
    """Fold `work` on the committed rows.

    `careful` sets aside what cannot be written, record by record. Without it Unwritable is raised.
    """
    began = time.perf_counter()
    rows = store.parts[part.number]
    arguments = (part.number, rows, options.table_topic, options.max_record_bytes, options.codec)
    tx: Tx
    if careful:
        tx = checked = CheckedTx(*arguments)
        _fold_checked(handler, checked, work)
    else:
        tx = Tx(*arguments)
        _fold_all(handler, tx, work)
    return Folded(tx, tx.encode(), time.perf_counter() - began)


def _fold_all(handler: Handler, tx: Tx, work: Work) -> None:
    on_record = handler.on_record
    for item in work.items:
        if isinstance(item, Batch):
            for record in item.message.records:
                on_record(tx, record)
        else:
            handler.on_tick(tx, item.now_ms)


def _fold_checked(handler: Handler, tx: CheckedTx, work: Work) -> None:
    for item in work.items:
        records = item.message.records if isinstance(item, Batch) else (None,)
        for record in records:
            tx.mark()
            try:
                if record is not None:
                    handler.on_record(tx, record)
                elif not isinstance(item, Batch):
                    handler.on_tick(tx, item.now_ms)
            except Unwritable as error:
                tx.take_back()
                handler.on_unwritable(tx, record, error)


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
    await settle(sends)
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
    await settle(outputs)
    rows: Sends = []
    count = await send(part.producer, folded.row_records(), rows)
    await settle(rows)
    return _last_offset(rows, count)


def _last_offset(sends: Sends, count: int | None) -> int | None:
    if count is None:
        return None
    first: int = sends[-1].result().offset
    return first + count - 1


def lost(producer: Any) -> bool:
    """True when a transactional producer can only be thrown away."""
    fatal: bool = producer._txn_manager.is_fatal_error()
    return fatal
