"""Reading topics from a place to a place, committed records only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams import admin
from streams.commands.errors import CommandError
from streams.settings import Settings

Record: TypeAlias = ConsumerRecord[bytes, bytes]

POLL_MS: Final = 200
PATIENCE_S: Final = 15.0
"""How long a partition may bring nothing before its end, until the reader gives up."""


@asynccontextmanager
async def reader(settings: Settings, *, follow: bool = False) -> AsyncIterator[Reader]:
    """A connected reader; with `follow` one that waits for new records at little cost.

    Raises KafkaError or OSError where the cluster does not answer.
    """
    async with admin.cluster(settings) as cluster:
        # The sizes of all topics: a consumer that asks for one by name could create it.
        sizes = await cluster.partitions()
    consumer = AIOKafkaConsumer(
        **settings.kafka.reader(),
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
        # A seek waits for the fetch under way, which the broker holds back so long where there is nothing new.
        fetch_max_wait_ms=500 if follow else 20,
        request_timeout_ms=10_000,
    )
    try:
        await consumer.start()
        await asyncio.sleep(0)  # a stop before the consumer's tasks have begun would raise their CancelledError
        yield Reader(consumer, sizes)
    finally:
        await consumer.stop()


class Reader:
    """Reads whole topics; belongs to no group and leaves no trace."""

    def __init__(self, consumer: AIOKafkaConsumer, sizes: Mapping[str, int]) -> None:
        self._consumer = consumer
        self._sizes = sizes

    def exists(self, topic: str) -> bool:
        """Whether this user sees a topic."""
        return topic in self._sizes

    def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic. Raises CommandError where there is none."""
        if topic not in self._sizes:
            raise CommandError(f"topic {topic} does not exist", "run: bullmq-streams topics apply")
        return [TopicPartition(topic, number) for number in range(self._sizes[topic])]

    async def to_end(
        self, partitions: Sequence[TopicPartition], since_ms: int | None = None, most: int | None = None
    ) -> AsyncIterator[list[Record]]:
        """Batches of records from the beginning, or from a time on, to what is the end now.

        `most` = how far before its end a partition is read at most.
        """
        ends = await self._consumer.end_offsets(list(partitions))
        await self.seek(partitions, "beginning" if since_ms is None else since_ms)
        for partition, end in ends.items():
            if most is not None and await self._consumer.position(partition) < end - most:
                self._consumer.seek(partition, end - most)
        waiting_since = time.monotonic()
        while await self._behind(ends):
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in batches.items():
                yield [record for record in records if record.offset < ends[partition]]
            if batches:
                waiting_since = time.monotonic()
            elif time.monotonic() - waiting_since > PATIENCE_S:
                raise TimeoutError(f"no records for {PATIENCE_S:.0f} s")

    async def try_fetch(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch at the end of partitions. Raises TopicAuthorizationFailedError where they may not be read."""
        await self.seek(partitions, "end")
        await self._consumer.getmany(timeout_ms=5 * POLL_MS)

    async def onwards(self) -> AsyncIterator[list[Record]]:
        """Batches from the place of the last `seek` on, without end."""
        while True:
            for records in await self.poll():
                yield records

    async def poll(self) -> list[list[Record]]:
        """What has come from the place of the last `seek` on, by partition; empty where nothing has for a moment."""
        return list((await self._consumer.getmany(timeout_ms=POLL_MS)).values())

    async def seek(self, partitions: Sequence[TopicPartition], start: str | int) -> None:
        """Take just these partitions and go to `beginning`, `end` or the first record at or after so many ms."""
        consumer, wanted = self._consumer, list(partitions)
        consumer.assign(wanted)
        if start == "beginning":
            offsets = await consumer.beginning_offsets(wanted)
        else:
            offsets = await consumer.end_offsets(wanted)
            if isinstance(start, int):
                found: dict[TopicPartition, Any] = await consumer.offsets_for_times(dict.fromkeys(wanted, start))
                offsets |= {partition: at.offset for partition, at in found.items() if at is not None}
        for partition, offset in offsets.items():
            consumer.seek(partition, offset)

    async def _behind(self, ends: dict[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if await self._consumer.position(partition) < end:
                return True
        return False
