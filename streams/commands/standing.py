"""What the topics say now: jobs by state, heartbeats, firing alerts, or the row of one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition

from streams import topology, wire
from streams.clock import wall_ms
from streams.commands.reading import Reader, Record
from streams.core.job import job_key, parse_key, partition_of
from streams.core.lifecycle import STATES
from streams.settings import Settings

QueueName = tuple[str, str]
"""Source and queue."""

HEARTBEAT_WINDOWS_S: Final = (60, 3_600, 86_400)
"""How far back heartbeats are looked for, further only while a queue has none."""


@dataclass(slots=True)
class Queue:
    """A line of the overview. `paused`, `lag_ms`, `lost` are None without a heartbeat within a day."""

    jobs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    paused: bool | None = None
    lag_ms: int | None = None
    lost: int | None = None
    heartbeat_at: int | None = None


async def count_jobs(kafka: Reader, settings: Settings, only: QueueName | None) -> dict[QueueName, Queue]:
    """Count the rows by queue and state. One partition after the other, so that memory holds the keys of one."""
    queues: dict[QueueName, Queue] = {}
    prefix = job_key(*only, "").encode() if only else b""
    for partition in kafka.partitions(settings.topic(topology.STATUS)):
        states: dict[bytes, str] = {}
        async for records in kafka.to_end([partition]):
            for key, value in _newest(records, prefix).items():
                if value is None:
                    states.pop(key, None)
                else:
                    states[key] = wire.loads(value)["state"]
        for key, state in states.items():
            source, queue, _ = parse_key(key.decode())
            jobs = queues.setdefault((source, queue), Queue()).jobs
            jobs[state] = jobs.get(state, 0) + 1
    return queues


def _newest(records: list[Record], prefix: bytes = b"") -> dict[bytes, bytes | None]:
    """The last value of each key: the others need no decoding."""
    return {record.key: record.value for record in records if record.key is not None and record.key.startswith(prefix)}


async def add_heartbeats(
    kafka: Reader, settings: Settings, queues: dict[QueueName, Queue], only: QueueName | None
) -> None:
    """Take lag, losses and pause from the newest heartbeat of each queue; a queue without jobs appears by it."""
    partitions = kafka.partitions(settings.topic(topology.HEALTH))
    for window_s in HEARTBEAT_WINDOWS_S:
        async for value in _heartbeats(kafka, partitions, wall_ms() - window_s * 1000):
            name = (value["source"], value["queue"])
            if only in (None, name):
                queue = queues.setdefault(name, Queue())
                queue.paused, queue.lag_ms, queue.lost = value["paused"], value["lag_ms"], value["entries_lost"]
                queue.heartbeat_at = value["at"]
        if queues and all(queue.heartbeat_at is not None for queue in queues.values()):
            return


async def _heartbeats(kafka: Reader, partitions: list[TopicPartition], since_ms: int) -> AsyncIterator[dict[str, Any]]:
    async for records in kafka.to_end(partitions, since_ms):
        for record in records:
            if (b"ce_type", b"bullmq.health.heartbeat.v1") in _headers(record):
                yield wire.loads(record.value)


def _headers(record: Record) -> set[tuple[bytes, bytes]]:
    return {(name.encode(), value) for name, value in record.headers}


async def count_alerts(kafka: Reader, settings: Settings, only: QueueName | None) -> dict[str, int]:
    """Alerts that fire now, by rule; rules without one are there with 0."""
    firing: dict[bytes, dict[str, Any]] = {}
    async for records in kafka.to_end(kafka.partitions(settings.topic(topology.ALERTS))):
        for key, value in _newest(records).items():
            alert = wire.loads(value) if value else {}
            if alert.get("status") == "firing" and only in (None, (alert["source"], alert["queue"])):
                firing[key] = alert
            else:
                firing.pop(key, None)
    counts = dict.fromkeys(("failed", "stuck"), 0)
    for alert in firing.values():
        counts[alert["rule"]] = counts.get(alert["rule"], 0) + 1
    return counts


async def find(kafka: Reader, settings: Settings, key: bytes) -> bytes | None:
    """The newest value of a key on `status`, out of the one partition that it can be in."""
    partitions = kafka.partitions(settings.topic(topology.STATUS))
    value: bytes | None = None
    async for records in kafka.to_end([partitions[partition_of(key, len(partitions))]]):
        for record in records:
            if record.key == key:
                value = record.value
    return value
