"""Records into as few produce batches as fit: far cheaper than one send per record."""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.producer import sender
from aiokafka.structs import TopicPartition

from streams.engine.limits import BATCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.engine.api import EngineOptions
    from streams.engine.tx import Output

# Between two transactions aiokafka meets markers still being written and waits, 20 ms as it comes: the
# wait, not the broker, would bound a partition to 50 transactions a second.
sender.BACKOFF_OVERRIDE = 0.002


class Sent(NamedTuple):
    """A batch on its way."""

    where: TopicPartition
    records: int
    size_bytes: int
    sequence: int
    """What the producer would have numbered its first record with, had it nothing else under way to this partition."""
    future: asyncio.Future[Any]


Sends = list[Sent]
SEQUENCES_END: Final = 2**31
"""They wrap around as aiokafka's do."""


class BatchRefusedError(MessageSizeTooLargeError):
    """The broker does not take a batch of this size in this topic."""

    def __init__(self, topic: str, size_bytes: int) -> None:
        super().__init__(f"{topic} refuses a batch of {size_bytes} bytes")
        self.topic = topic
        self.size_bytes = size_bytes


async def start_producer(options: EngineOptions, partition: int, batch_bytes: int = BATCH_BYTES) -> Any:
    """A started producer of one partition: transactional, or (at least once) idempotent.

    `batch_bytes`: what its batches of many records may grow to. A record alone in its batch may be larger.
    On return of a transactional one the last owner is fenced and what it left open is ended.
    """
    extra: dict[str, Any] = {}
    name = f"{options.app_id}-{partition}"
    if options.exactly_once:
        extra["transactional_id"] = name
        extra["transaction_timeout_ms"] = int(options.transaction_timeout_s * 1000)
    producer = AIOKafkaProducer(
        **options.client,
        client_id=name,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        compression_type=options.compression,
        max_batch_size=batch_bytes,
        **extra,
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


async def send(producer: Any, outputs: Iterable[Output], sends: Sends) -> int | None:
    """Queue `outputs` and append the futures of their batches to `sends`.

    Returns the number of records in the last batch, which is that of `sends[-1]`; None when there was none.
    """
    batches: dict[tuple[str, int], Any] = {}
    for topic, partition, key, value, headers, timestamp_ms in outputs:
        where = (topic, partition)
        batch = batches.get(where)
        if batch is None:
            batch = batches[where] = producer.create_batch()
        if batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers) is None:
            sends.append(await _submit(producer, batch, where))
            batch = batches[where] = producer.create_batch()
            # The first record of a batch is always taken: one that is larger than the batch goes alone.
            batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers)
    count = None
    for where, batch in batches.items():
        count = batch.record_count()
        sends.append(await _submit(producer, batch, where))
    return count


def resize(producer: Any, batch_bytes: int) -> None:
    """Batches made from now on grow to so many bytes at most."""
    producer._message_accumulator._batch_size = batch_bytes


async def _submit(producer: Any, batch: Any, where: tuple[str, int]) -> Sent:
    to = TopicPartition(*where)
    count, size_bytes, sequence = batch.record_count(), batch.size(), producer._txn_manager.sequence_number(to)
    batch.close()
    return Sent(to, count, size_bytes, sequence, await producer.send_batch(batch, to.topic, partition=to.partition))


async def settle(sends: Sends, producer: Any) -> None:
    """Wait for all batches and raise the first error; BatchRefusedError where a batch was too large.

    aiokafka commits a transaction although one of its batches failed, so nobody may commit before this. The producer
    of `sends` must have nothing else under way; it can be used on after an error.
    """
    results = await asyncio.gather(*(sent.future for sent in sends), return_exceptions=True)
    failed = [(sent, result) for sent, result in zip(sends, results, strict=True) if isinstance(result, BaseException)]
    if failed:
        _number_on(producer, sends, {id(sent) for sent, _ in failed})
    for sent, error in failed:
        if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
            raise BatchRefusedError(sent.where.topic, sent.size_bytes) from error
        raise error


def _number_on(producer: Any, sends: Sends, failed: set[int]) -> None:
    """Number on from what the broker has taken.

    aiokafka has numbered the records of a refused batch like any others. The broker has not, and would refuse whatever
    comes after them, for ever.
    """
    numbers: dict[TopicPartition, int] = {}
    for sent in sends:
        number = numbers.setdefault(sent.where, sent.sequence)
        if id(sent) not in failed:
            number += sent.records
            numbers[sent.where] = number if number < SEQUENCES_END else number - 2 * SEQUENCES_END
    producer._txn_manager._sequence_numbers.update(numbers)
