"""Whether a partition is as it was left, when the broker has forgotten its producer.

A transactional id that is not used for `transactional.id.expiration.ms` (7 days) is dropped, and the next transaction
fails for good, on a system that did nothing wrong but wait. A new producer under the same id mends that. It may also
fence an owner that came meanwhile, while this process slept, say: so it is taken into use only where nobody has written
a row or an offset since the last commit of this assignment. With the new producer started both are final.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import InvalidProducerIdMapping
from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from streams.engine.api import EngineOptions

POLL_MS: Final = 200


class Overtaken(RuntimeError):  # noqa: N818 - a fact about the partition, not a failure of the engine
    """Another process had the partition meanwhile: rows and offsets have to be read again, by a new process."""


def forgotten(error: BaseException) -> bool:
    """Whether the broker has dropped the transactional id; aiokafka says so in a general error's cause."""
    return isinstance(error, InvalidProducerIdMapping) or (error.__cause__ is not None and forgotten(error.__cause__))


async def check_untouched(options: EngineOptions, partition: int, committed: int, row_offset: int) -> None:
    """Raise Overtaken unless the group's offset is `committed` and no row lies beyond `row_offset` (-1: none at all).

    Raises KafkaError where that cannot be asked.
    """
    consumer = AIOKafkaConsumer(
        **options.client,
        client_id=f"{options.app_id}-reopen",
        group_id=options.app_id,
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    events, table = (TopicPartition(name, partition) for name in (options.events_topic, options.table_topic))
    try:
        await consumer.start()
        consumer.assign([events, table])
        consumer.pause(events)
        now = await consumer.committed(events) or 0
        if now != committed:
            raise Overtaken(f"partition {partition}: the group has come to {now}, and was left at {committed}")
        await _check_rows(consumer, table, row_offset)
    finally:
        await consumer.stop()


async def _check_rows(consumer: AIOKafkaConsumer, table: TopicPartition, row_offset: int) -> None:
    """By reading: the end also counts markers and aborted records, which are nobody's rows."""
    end = (await consumer.end_offsets([table]))[table]
    start = (await consumer.beginning_offsets([table]))[table]
    consumer.seek(table, max(start, row_offset + 1))
    while await consumer.position(table) < end:
        if any((await consumer.getmany(table, timeout_ms=POLL_MS)).values()):
            raise Overtaken(f"{table.topic} {table.partition}: rows beyond offset {row_offset} that are not ours")
