"""Read `health` from its last minutes on: heartbeats, tables, comparisons, for whoever keeps account of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import topology
from streams.clock import wall_ms
from streams.settings import Settings
from streams.wire import JSONDecodeError, loads
from streams.worker.comparisons import KEPT_MS, Comparisons

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
_LAST_RECORDS: Final = 20
_LOOK_MS: Final = 2_000
Listener = Callable[[Mapping[str, Any]], None]


class Follower:
    """Reads `health`, hands its records on, and says of each finished comparison what stood on `events` by then."""

    def __init__(self, settings: Settings, comparisons: Comparisons, listeners: list[Listener]) -> None:
        self._settings = settings
        self._comparisons = comparisons
        self._listeners = [comparisons.take, *listeners]

    async def follow(self) -> None:
        """Until cancelled. Kafka away: tried again, from the last minutes on; others say that it is."""
        while True:
            consumer = AIOKafkaConsumer(**self._settings.kafka.reader())
            try:
                await consumer.start()
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                log.debug("health: %r", error)
                await asyncio.sleep(RETRY_S)
            finally:
                await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        partition = TopicPartition(self._settings.topic(topology.HEALTH), 0)
        events = [
            TopicPartition(self._settings.topic(topology.EVENTS), number)
            for number in range(self._settings.kafka.partitions)
        ]
        consumer.assign([partition])
        now_ms = min(wall_ms(), await _newest_ms(consumer, partition))
        since = (await consumer.offsets_for_times({partition: now_ms - KEPT_MS}))[partition]
        if since is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, since.offset)
        while True:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    self.take(record.value)
            unplaced = self._comparisons.unplaced()
            if unplaced:
                # Read after its `finished` was: all that the comparison has written is below.
                ends = {each.partition: end for each, end in (await consumer.end_offsets(events)).items()}
                for comparison in unplaced:
                    comparison.ends = ends

    def take(self, value: bytes | None) -> None:
        """Hand a record on. What is none of ours is nobody's: it is passed over."""
        try:
            record = loads(value or b"")
        except JSONDecodeError as error:
            log.debug("on health: %r", error)
            return
        for listener in self._listeners:
            try:
                listener(record)
            except Exception as error:  # noqa: BLE001 - whatever somebody else has written, it costs that record alone
                log.debug("on health: %r", error)


async def _newest_ms(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """When the last records were written: a worker whose clock is ahead is not to pass over the last minutes."""
    begin = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    consumer.seek(partition, max(begin, end - _LAST_RECORDS))
    found = await consumer.getmany(partition, timeout_ms=_LOOK_MS) if end > begin else {}
    return max((record.timestamp for records in found.values() for record in records), default=wall_ms())
