"""What the worker writes beside its rows: transitions, alerts, probes and dead letters, as records for Kafka."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from streams import topology
from streams.clock import wall_ms
from streams.core.events import BadRecordError, Event
from streams.core.job import escape, job_key, partition_of
from streams.engine import HEADER_OVERHEAD_BYTES, ConsumerRecord, Tx, Unwritable, size_of
from streams.settings import Settings
from streams.wire import NO_HEADERS, Headers, Unpackable, cloud_event, dumps, pack

ERROR_LENGTH: Final = 1_000
"""Characters of what is said about a dead letter."""
LENGTHS_BYTES: Final = sum(HEADER_OVERHEAD_BYTES + len(name) + 10 for name in ("dlq_key_length", "dlq_length"))
"""At least what the headers take that a dead letter has only where it is cut."""


@lru_cache(maxsize=4096)
def ce_source(source: str, queue: str) -> str:
    """`/<source>/<queue>`, escaped as in a key."""
    return f"/{escape(source)}/{escape(queue)}"


class Outputs:
    """Builds the records; topic names and the partition count come from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._transitions = settings.topic(topology.TRANSITIONS)
        self._alerts = settings.topic(topology.ALERTS)
        self._probes = settings.topic(topology.PROBES)
        self._health = settings.topic(topology.HEALTH)
        self._dead_letters = settings.topic(topology.DEAD_LETTERS)
        self._partitions = settings.kafka.partitions

    def transition(self, tx: Tx, key: bytes, value: dict[str, Any], timestamp_ms: int) -> None:
        """One change of state (contract 2.3)."""
        headers = cloud_event(
            b"%b@%d/%d" % (key, value["life"], value["seq"]),
            "bullmq.job.transition.v1",
            ce_source(value["source"], value["queue"]),
            value["at"],
        )
        tx.emit(self._transitions, key, _encode(self._transitions, key, value), headers, timestamp_ms)

    def alert(self, tx: Tx, value: dict[str, Any], timestamp_ms: int) -> None:
        """An alert that has opened or ended (contract 2.4); it goes to the partition of its fingerprint."""
        key = value["fingerprint"].encode()
        headers = cloud_event(
            f"{value['fingerprint']}/{value['starts_at']}/{value['status']}".encode(),
            "bullmq.alert.v1",
            ce_source(value["source"], value["queue"]),
            value["ends_at"] or value["starts_at"],
        )
        encoded = _encode(self._alerts, key, value)
        tx.emit(self._alerts, key, encoded, headers, timestamp_ms, partition_of(key, self._partitions))

    def probe(self, tx: Tx, key: bytes, event: Event, reason: str, now_ms: int) -> None:
        """Ask the bridge to look at a job; `event` is anything that names it (an event, a row's address)."""
        value = {
            "source": event["source"],
            "queue": event["queue"],
            "job_id": event["job_id"],
            "reason": reason,
            "asked_at": now_ms,
        }
        tx.emit(self._probes, key, dumps(value), NO_HEADERS, now_ms)

    def health(
        self, tx: Tx, kind: str, value: dict[str, Any], now_ms: int, mark: str, queue: tuple[str, str] | None
    ) -> None:
        """A record on `health`, of a queue or of all; `mark` tells those of one kind and ms apart."""
        name = "" if queue is None else f"{escape(queue[0])}/{escape(queue[1])}"
        source, queue_name = (None, None) if queue is None else queue
        whole = {"type": kind, "source": source, "queue": queue_name, "at": now_ms, **value}
        ce_id = f"{name}/{kind}/{mark}/{now_ms}".encode()
        headers = cloud_event(ce_id, f"bullmq.health.{kind}.v1", f"/{name}", now_ms)
        tx.emit(self._health, name.encode() or None, dumps(whole), headers, now_ms, 0)

    def compare(self, tx: Tx, queue: tuple[str, str], reason: str, request: str, now_ms: int) -> None:
        """Ask the bridge to compare a whole queue."""
        source, name = queue
        value = {
            "source": source,
            "queue": name,
            "job_id": "",
            "reason": reason,
            "request": request,
            "asked_at": now_ms,
        }
        key = job_key(source, name, "").encode()
        tx.emit(self._probes, key, dumps(value), NO_HEADERS, now_ms, partition_of(key, self._partitions))

    def dead_letter(self, tx: Tx, record: ConsumerRecord, error: BadRecordError) -> None:
        """Set a record aside as it came, with where it came from and what is wrong with it (contract 2.5)."""
        headers = [
            ("dlq_topic", record.topic.encode()),
            ("dlq_partition", str(record.partition).encode()),
            ("dlq_offset", str(record.offset).encode()),
            ("dlq_reason", error.reason.encode()),
            ("dlq_error", str(error)[:ERROR_LENGTH].encode("utf-8", "replace")),
            ("dlq_at", str(wall_ms()).encode()),
        ]
        key, value, lengths = _cut(
            record.key, record.value, tx.limit_of(self._dead_letters) - size_of(None, None, headers)
        )
        tx.emit(self._dead_letters, key, value, [*headers, *lengths], record.timestamp, 0)


def _cut(key: bytes | None, value: bytes | None, room: int) -> tuple[bytes | None, bytes | None, Headers]:
    """As much of a key and a value as `room` bytes hold, the key first; and the lengths of what was cut, as headers.

    What the headers take comes off the room.
    """
    key_length, length = len(key or b""), len(value or b"")
    if key_length + length <= room:
        return key, value, NO_HEADERS
    lengths = []
    if key is not None and key_length > room - LENGTHS_BYTES:
        lengths.append(("dlq_key_length", str(key_length).encode()))
        key = key[: max(room - LENGTHS_BYTES, 0)]
    left = max(room - LENGTHS_BYTES - len(key or b""), 0)
    if value is not None and length > left:
        lengths.append(("dlq_length", str(length).encode()))
        value = value[:left]
    return key, value, lengths


def _encode(topic: str, key: bytes, value: dict[str, Any]) -> bytes:
    """The value as JSON. Raises Unwritable where JSON cannot say it, which is a fact about its event."""
    try:
        return pack(value)
    except Unpackable as error:
        raise Unwritable("not_encodable", topic, key, 0, str(error)) from error
