"""How far the bridge has come in each stream: records of the compacted topic `checkpoints`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import topology, wire
from streams.bridge.encode import Record
from streams.bridge.history import Memory, Server, offset_of, trail_of
from streams.bridge.ids import format_id, parse_id
from streams.bridge.stream import Stream
from streams.bridge.walk import FIRST_SIGHT, pause_walk
from streams.core.job import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.settings import Settings

log = logging.getLogger(__name__)

_PARTS_END: Final = 2**64
_PAIR: Final = 2
"""Reason and request."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`position` = the last entry on Kafka, `entries_added` = the stream's count then (None: unknown).

    `epoch` counts the stream's histories; `run_id` `replid` `offset` `trail` tell a later start whether this one goes
    on (history.py). `snapshot` `comparisons` `pausing` say what has to be begun again after a stop: `pending`, the
    reasons and requests, and `pause` or `resume`. Release 0.1 had nothing of all that stands behind `at` but `pausing`.
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
    epoch: int = 0
    replid: str = ""
    offset: int | None = None
    trail: str = ""
    comparisons: list[list[str]] = field(default_factory=list)
    observed_at: int = 0


def key_of(bridge_id: str, source: str, queue: str) -> bytes:
    """`<bridge.id>/<source>/<queue>`, each escaped."""
    return f"{escape(bridge_id)}/{escape(source)}/{escape(queue)}".encode()


def of_stream(stream: Stream, now_ms: int) -> Checkpoint:
    """The checkpoint that covers all that the stream has handed on."""
    memory = stream.memory
    pending = stream.comparisons.pending
    return Checkpoint(
        stream.source,
        stream.queue,
        format_id(memory.position),
        memory.ordinal,
        memory.server.run_id,
        stream.paused,
        "pending" if pending else "done",
        now_ms,
        stream.pausing,
        stream.epoch,
        memory.server.replid,
        offset_of(memory.samples, memory.position),
        memory.trail,
        pending,
        stream.observed_at,
    )


def resume(stream: Stream, known: Checkpoint) -> None:
    """Go on where the checkpoint says, once it has been judged whether this is still its history."""
    position = parse_id(known.position)
    stream.position = stream.read_to = stream.settled = position
    stream.ordinal = known.entries_added
    stream.paused = known.paused
    stream.epoch = known.epoch
    stream.observed_at = known.observed_at
    stream.memory = Memory(Server(known.run_id, known.replid), position, known.entries_added, known.trail)
    if known.offset is not None:
        stream.memory.sample(position, known.offset)
    if known.pausing is not None:
        stream.walks.append(pause_walk(paused=known.pausing == "pause"))
    if known.snapshot == "pending":
        for reason, request in known.comparisons or [[FIRST_SIGHT, ""]]:
            stream.comparisons.ask(reason, request)
    stream.unsure = True


def epochs(known: Iterable[Checkpoint]) -> dict[tuple[str, str], int]:
    """The highest epoch by source and queue, whichever bridge has written it: none may begin again below."""
    highest: dict[tuple[str, str], int] = {}
    for each in known:
        queue = (each.source, each.queue)
        highest[queue] = max(highest.get(queue, 0), each.epoch)
    return highest


def record(bridge_id: str, checkpoint: Checkpoint) -> Record:
    """The checkpoint as a record; a table's, so it carries no headers."""
    key = key_of(bridge_id, checkpoint.source, checkpoint.queue)
    return Record(topology.CHECKPOINTS, 0, key, wire.dumps(asdict(checkpoint)), checkpoint.at, [])


_read: Final[Callable[[bytes], Checkpoint]] = wire.reader(Checkpoint)


def decode(value: bytes) -> Checkpoint | None:
    """The inverse of `record`'s value; None where it is none: anybody with the right to may write to the topic."""
    try:
        found = _read(value)
        position, trail = parse_id(found.position), trail_of(found.trail)
    except (*wire.ShapeError, ValueError):
        return None
    ids = [position, *(at for at, _ in trail)]
    sound = all(0 <= part < _PARTS_END for at in ids for part in at) and found.epoch >= 0
    return found if sound and all(len(each) == _PAIR for each in found.comparisons) else None


async def read_all(settings: Settings) -> dict[bytes, Checkpoint]:
    """The last checkpoint of each stream, committed ones only. Only final after the producer has fenced."""
    name, foreign = settings.topic(topology.CHECKPOINTS), 0
    topic = TopicPartition(name, 0)
    consumer = AIOKafkaConsumer(**settings.kafka.reader(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([topic])
        await consumer.seek_to_beginning(topic)
        end = (await consumer.end_offsets([topic]))[topic]
        found: dict[bytes, Checkpoint] = {}
        while await consumer.position(topic) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    checkpoint = decode(record.value) if record.value else None
                    if checkpoint is not None:
                        found[record.key] = checkpoint
                    elif record.value:
                        foreign += 1
        if foreign:
            log.error("%d records on %s are no checkpoints, and passed over: somebody else wrote them", foreign, name)
        return found
    finally:
        await consumer.stop()
