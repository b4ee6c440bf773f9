"""Records into as few produce batches as fit: far cheaper than one send per record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer import sender

from streams.engine.tx import RECORD_OVERHEAD_BYTES, Output, Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.engine.api import EngineOptions

# Between two transactions aiokafka meets markers still being written and waits, 20 ms as it comes: the
# wait, not the broker, would bound a partition to 50 transactions a second.
sender.BACKOFF_OVERRIDE = 0.002

Sends = list["asyncio.Future[Any]"]


async def start_producer(options: EngineOptions, partition: int | None) -> Any:
    """A started producer: transactional, of one partition, or (None) idempotent, for the process.

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
        max_batch_size=options.max_record_bytes + RECORD_OVERHEAD_BYTES,
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
            if batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers) is None:
                raise Unwritable("too_large", topic, key, len(value or b""))
    count = None
    for where, batch in batches.items():
        count = batch.record_count()
        sends.append(await _submit(producer, batch, where))
    return count


async def _submit(producer: Any, batch: Any, where: tuple[str, int]) -> asyncio.Future[Any]:
    topic, partition = where
    batch.close()
    future: asyncio.Future[Any] = await producer.send_batch(batch, topic, partition=partition)
    return future


async def settle(sends: Sends) -> None:
    """Wait for all batches and raise the first error.

    aiokafka commits a transaction although one of its batches failed, so nobody may commit before this.
    """
    for result in await asyncio.gather(*sends, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
