"""How far the bridge has come in each stream: records of the compacted topic `checkpoints`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import topology, wire
from streams.bridge.encode import Record
from streams.bridge.stream import Stream, format_id
from streams.core.job import escape

if TYPE_CHECKING:
    from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`position` = the last entry on Kafka, `entries_added` = the stream's count then (None: unknown).

    `snapshot` and `pausing` say what has to be begun again after a stop: `pending`, and `pause` or `resume`.
    """

    source: str
    queue: str
    position: str
    entries_added: int | None
    run_id: str
    paused: bool
    snapshot: str
    at: int
    pausing: str | None = None


def key_of(bridge_id: str, source: str, queue: str) -> bytes:
    """`<bridge.id>/<source>/<queue>`, each escaped."""
    return f"{escape(bridge_id)}/{escape(source)}/{escape(queue)}".encode()


def of_stream(stream: Stream, now_ms: int) -> Checkpoint:
    """The checkpoint that covers all that the stream has handed on."""
    position = format_id(stream.position)
    return Checkpoint(
        stream.source,
        stream.queue,
        position,
        stream.ordinal,
        stream.run_id,
        stream.paused,
        stream.snapshot,
        now_ms,
        stream.pausing,
    )


def record(bridge_id: str, checkpoint: Checkpoint) -> Record:
    """The checkpoint as a record; a table's, so it carries no headers."""
    key = key_of(bridge_id, checkpoint.source, checkpoint.queue)
    return Record(topology.CHECKPOINTS, 0, key, wire.dumps(asdict(checkpoint)), checkpoint.at, [])


def decode(value: bytes) -> Checkpoint:
    """The inverse of `record`'s value. Raises ValueError or TypeError where it is none."""
    fields: dict[str, Any] = wire.loads(value)
    known: dict[str, Any] = {name: fields.get(name) for name in Checkpoint.__dataclass_fields__}
    return Checkpoint(**known)


async def read_all(settings: Settings) -> dict[bytes, Checkpoint]:
    """The last checkpoint of each stream, committed ones only. Only final after the producer has fenced."""
    topic = TopicPartition(settings.topic(topology.CHECKPOINTS), 0)
    consumer = AIOKafkaConsumer(**settings.kafka.reader(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([topic])
        await consumer.seek_to_beginning(topic)
        end = (await consumer.end_offsets([topic]))[topic]
        found: dict[bytes, Checkpoint] = {}
        while await consumer.position(topic) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found.update((record.key, decode(record.value)) for record in records if record.value)
        return found
    finally:
        await consumer.stop()
