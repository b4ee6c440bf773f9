"""What stands on Kafka, read on and on past the proxies, as a consumer with `read_committed` would see it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.topology import ALERTS, DEAD_LETTERS, EVENTS, HEALTH, STATUS, TRANSITIONS, full_name
from tests.faults.history import Id, digest, parse_id

Json = dict[str, Any]
READ: Final = (EVENTS, STATUS, TRANSITIONS, ALERTS, HEALTH, DEAD_LETTERS)
SAMPLED: Final = 40
"""One record of so many is kept whole, to be held against the published schema; all of the hostile queues are."""
SAMPLES: Final = 3_000
_TRANSITION: Final = (
    "queue", "job_id", "life", "seq", "from", "to", "source_from", "source_to", "cause", "observed", "at", "position",
)  # fmt: skip
_ALERT: Final = (
    "fingerprint", "rule", "status", "starts_at", "ends_at", "cause", "queue", "job_id", "life", "resolved_by",
)  # fmt: skip


@dataclass(slots=True)
class Published:
    """One stream entry as it stands on `events`, or as a dead letter."""

    queue: str
    id: Id
    epoch: int
    digest: bytes
    exact: bool
    """False where texts were cut or replaced, so that the digest says nothing."""
    place: str
    """Topic, partition and offset."""


@dataclass
class Topics:
    """All that was read so far."""

    bootstrap: str
    prefix: str
    entries: list[Published] = field(default_factory=list)
    looks: int = 0
    gone: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Whether a job's hash was gone already when its last `failed` entry was published, by queue and job."""
    rows: dict[str, Json | None] = field(default_factory=dict)
    transitions: list[Json] = field(default_factory=list)
    alerts: list[Json] = field(default_factory=list)
    health: list[Json] = field(default_factory=list)
    dead: list[Json] = field(default_factory=list)
    samples: list[tuple[str, Json]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Records that are no JSON objects, or have a `ce_id` that another record had."""
    _ids: dict[bytes, tuple[bytes, str, str]] = field(default_factory=dict)
    _consumer: AIOKafkaConsumer | None = None
    _count: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 << 20,
        )
        await self._consumer.start()
        parts = []
        for topic in READ:
            name = full_name(self.prefix, topic)
            known = (await self._consumer._client.fetch_all_metadata()).partitions_for_topic(name) or ()
            parts += [TopicPartition(name, number) for number in known]
        self._consumer.assign(parts)

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def catch_up(self) -> None:
        """Read all that is committed now."""
        consumer = self._consumer
        assert consumer is not None
        parts = list(consumer.assignment())
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(timeout_ms=200, max_records=2_000)).values():
                for record in records:
                    self._take(record)

    def _take(self, record: Any) -> None:
        topic = record.topic[len(self.prefix) + 1 :].rpartition(".")[0]
        headers = dict(record.headers)
        place = f"{topic}[{record.partition}]@{record.offset}"
        self._count[topic] += 1
        if "ce_id" in headers:
            self._identified(topic, headers["ce_id"], record.value or b"", place)
        if topic == DEAD_LETTERS:
            self._dead_letter(record, headers, place)
            return
        key = (record.key or b"").decode()
        value = json.loads(record.value) if record.value else None
        if topic == STATUS:
            self.rows[key] = value
        if value is None:
            return
        if not isinstance(value, dict):
            self.broken.append(f"{place}: no JSON object")
            return
        self._sample(topic, value)
        self._keep(topic, value, place)

    def _identified(self, topic: str, ce_id: bytes, value: bytes, place: str) -> None:
        key, content = f"{topic} ".encode() + ce_id, hashlib.sha1(value, usedforsecurity=False).digest()
        reason = str(json.loads(value).get("reason")) if b"/observed/" in ce_id else ""
        first = self._ids.setdefault(key, (content, place, reason))
        if first[1] != place:
            same = "the same" if first[0] == content else "another content"
            reasons = f" (looks: {first[2]}, then {reason})" if reason else ""
            self.broken.append(f"{place}: ce_id {ce_id.decode()} is there twice, first at {first[1]}: {same}{reasons}")

    def _keep(self, topic: str, value: Json, place: str) -> None:
        if topic == EVENTS:
            self._event(value, place)
        elif topic == TRANSITIONS:
            self.transitions.append({name: value.get(name) for name in _TRANSITION})
        elif topic == ALERTS:
            self.alerts.append({name: value.get(name) for name in _ALERT})
        elif topic == HEALTH:
            self.health.append(value)

    def _event(self, value: Json, place: str) -> None:
        if is_look(value):
            self.looks += 1
            return
        fields = value["fields"]
        if value["event"] == "failed":
            self.gone[value["queue"], value["job_id"]] = value.get("job") is None
        self.entries.append(
            Published(
                value["queue"],
                parse_id(value["stream_id"]),
                value.get("epoch", 0),
                digest(value["event"], value["job_id"], fields),
                not value.get("cut"),
                place,
            )
        )

    def _dead_letter(self, record: Any, headers: Mapping[str, bytes], place: str) -> None:
        said = {name: text.decode(errors="replace") for name, text in headers.items() if name.startswith("dlq_")}
        self.dead.append({**said, "key": (record.key or b"").decode(errors="replace"), "place": place})
        if "dlq_stream_id" in said and said["dlq_reason"] == "missing_field":  # such an entry stands nowhere else
            queue = said["dlq_stream"].removeprefix("bull:").removesuffix(":events")
            self.entries.append(Published(queue, parse_id(said["dlq_stream_id"]), 0, b"", False, place))

    def _sample(self, topic: str, value: Json) -> None:
        hostile = str(value.get("queue")).startswith("hostile")
        if len(self.samples) < SAMPLES and (hostile or self._count[topic] % SAMPLED == 0 or topic == HEALTH):
            self.samples.append((topic, value))


def is_look(value: Mapping[str, Any]) -> bool:
    """Whether a record of `events` is an observation; 0.1's records do not say `kind`."""
    if "kind" in value:
        return bool(value["kind"] == "look")
    return value["event"] == "observed" and "observed_at" in value and "fields" not in value


def gaps_of(health: list[Json]) -> Iterator[Json]:
    """Gaps of the bridge; those of workers (`expired`) concern Kafka's own retention."""
    return (each for each in health if each["type"] == "gap" and each.get("cause") != "expired")
