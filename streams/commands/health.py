"""What `health` says last of each queue: heartbeat, refusal, comparison; out of a bounded piece of the topic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from streams import topology, wire
from streams.commands.reading import Reader
from streams.settings import Settings

QueueName = tuple[str, str]
"""Source and queue, as the records name them: a queue whose name is no UTF-8 stands there escaped."""

MOST_RECORDS: Final = 300_000
"""Three seconds of reading: a day of 30 queues, ten minutes of 5,000."""


@dataclass(slots=True)
class Newest:
    """The newest record of each queue by its type. Of snapshots those of the bridge only."""

    heartbeats: dict[QueueName, dict[str, Any]] = field(default_factory=dict)
    refused: dict[QueueName, dict[str, Any]] = field(default_factory=dict)
    snapshots: dict[QueueName, dict[str, Any]] = field(default_factory=dict)

    def take(self, value: bytes | None) -> None:
        """Remember a record, in the topic's order; what is none of these, or no record of ours, is passed over."""
        read = parse(value)
        if read is None:
            return
        name, record = read
        kind = record["type"]
        if kind == "heartbeat":
            self.heartbeats[name] = record
        elif kind == "refused":
            self.refused[name] = record
        elif kind == "snapshot" and record.get("status") in ("started", "progress", "finished"):
            self.snapshots[name] = record

    def refusal(self, name: QueueName) -> str | None:
        """Why a queue is not read now; None where it is, or nothing says so."""
        record = self.refused.get(name)
        if record is None or record.get("status") == "readmitted":
            return None
        return str(record.get("reason") or "refused")

    def progress(self, name: QueueName) -> dict[str, Any] | None:
        """How far a comparison that is not over has come."""
        record = self.snapshots.get(name)
        if record is None or record["status"] == "finished":
            return None
        return {key: record.get(key) for key in ("reason", "request", "jobs", "done", "at")}


def parse(value: bytes | None) -> tuple[QueueName, dict[str, Any]] | None:
    """A record about a queue; None for anything else."""
    try:
        record: Any = wire.loads(value or b"")
    except wire.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("at"), int):
        return None
    source, queue = record.get("source"), record.get("queue")
    if not (isinstance(source, str) and isinstance(queue, str) and isinstance(record.get("type"), str)):
        return None
    return (source, queue), record


async def newest(kafka: Reader, settings: Settings, since_ms: int) -> Newest:
    """What was said from a time on, `MOST_RECORDS` at most. Raises as Reader.to_end."""
    found = Newest()
    async for records in kafka.to_end(kafka.partitions(settings.topic(topology.HEALTH)), since_ms, MOST_RECORDS):
        for record in records:
            found.take(record.value)
    return found
