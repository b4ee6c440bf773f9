"""Records as they leave the fetch: what aiokafka gives for each, for a third of the time and no work for the collector.

A worker at work makes, hands on and drops hundreds of thousands of them a second when it restores its table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from aiokafka import TopicPartition

PIECE_BYTES: Final = 1 << 20
"""Values of one partition that are unpacked at a time. A fetch is bounded as it is on the wire, and compressed text may
unpack to twenty times that."""


class Record(msgspec.Struct, gc=False):
    """One record; the fields of aiokafka.ConsumerRecord under the same names."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    checksum: int | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def serialized_key_size(self) -> int:
        """Bytes of the key, -1 without one."""
        return -1 if self.key is None else len(self.key)

    @property
    def serialized_value_size(self) -> int:
        """Bytes of the value, -1 without one."""
        return -1 if self.value is None else len(self.value)


def lean_record(_: Any, tp: TopicPartition, record: Any) -> Record:
    """Stands in for PartitionRecords._consumer_record. Keys and values are bytes: nothing here has a deserializer."""
    topic, partition = tp
    return Record(
        topic,
        partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.checksum,
        tuple(record.headers),
    )


def take_piece(self: Any, max_records: int | None = None) -> list[Record]:
    """Stands in for FetchResult.getall: the same, but what is more than PIECE_BYTES waits for the next call, packed."""
    if not self.check_assignment(self._topic_partition) or not self.has_more():
        return []
    taken: list[Record] = []
    room = PIECE_BYTES
    for record in self._partition_records:
        taken.append(record)
        if record.value is not None:
            room -= len(record.value)
        if room <= 0 or (max_records is not None and len(taken) >= max_records):
            self._update_position()
            break
    else:
        self._update_position()
        self._partition_records = None
    return taken
