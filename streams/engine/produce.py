"""Records into as few produce batches as fit: far cheaper than one send per record."""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.producer import sender

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

    topic: str
    size_bytes: int
    future: asyncio.Future[Any]


Sends = list[Sent]


class BatchRefusedError(MessageSizeTooLargeError):
    """The broker does not take a batch of this size in this topic."""

    def __init__(self, topic: str, size_bytes: int) -> None:
        super().__init__(f"{topic} refuses a batch of {size_bytes} bytes")
        self.topic = topic
        self.size_bytes = size_bytes


async def start_producer(options: EngineOptions, partition: int | None, batch_bytes: int = BATCH_BYTES) -> Any:
    """A started producer: transactional, of one partition, or (None) idempotent, for the process.

    `batch_bytes`: what its batches of many records may grow to. A record alone in its batch may be larger.
    On return of a transactional one the last owner is fenced and what it left open is ended.
    """
    extra: dict[str, Any] = {}
    name = options.app_id
    if partition is not None:
        name = f"{options.app_id}-{partition}"
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
    topic, partition = where
    size_bytes = batch.size()
    batch.close()
    return Sent(topic, size_bytes, await producer.send_batch(batch, topic, partition=partition))


async def settle(sends: Sends) -> None:
    """Wait for all batches and raise the first error; BatchRefusedError where a batch was too large.

    aiokafka commits a transaction although one of its batches failed, so nobody may commit before this.
    """
    results = await asyncio.gather(*(sent.future for sent in sends), return_exceptions=True)
    for sent, result in zip(sends, results, strict=True):
        if isinstance(result, (MessageSizeTooLargeError, RecordListTooLargeError)):
            raise BatchRefusedError(sent.topic, sent.size_bytes) from result
        if isinstance(result, BaseException):
            raise result
