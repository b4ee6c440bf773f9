"""`status`: what the topics say now — jobs by state, lag, losses, firing alerts, or one job with its history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition

from streams import topology, wire
from streams.commands import console, errors, status_text
from streams.commands.errors import CommandError
from streams.commands.reading import Reader, Record, reader
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


async def overview(settings: Settings, only: QueueName | None, *, as_json: bool) -> int:
    """Print all queues, or one; returns the exit code."""
    with errors.kafka(settings):
        async with reader(settings) as kafka:
            queues = await count_jobs(kafka, settings, only)
            await add_heartbeats(kafka, settings, queues, only)
            firing = await count_alerts(kafka, settings, only)
    if only is not None and only not in queues:
        raise CommandError(f"queue {only[1]} of source {only[0]} is unknown", "bullmq-streams status lists those known")
    if as_json:
        console.print_json({"queues": [_json(*each) for each in sorted(queues.items())], "alerts_firing": firing})
    else:
        status_text.overview(dict(sorted(queues.items())), firing, int(time.time() * 1000))
    return 0


def _json(name: QueueName, queue: Queue) -> dict[str, Any]:
    return {
        "source": name[0],
        "queue": name[1],
        "paused": queue.paused,
        "jobs": queue.jobs,
        "lag_ms": queue.lag_ms,
        "lost": queue.lost,
    }


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
        async for value in _heartbeats(kafka, partitions, int((time.time() - window_s) * 1000)):
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


async def job(settings: Settings, source: str, queue: str, job_id: str, *, as_json: bool) -> int:
    """Print a job's row; returns the exit code. Raises CommandError where the table has none."""
    with errors.kafka(settings):
        async with reader(settings) as kafka:
            value = await find(kafka, settings, job_key(source, queue, job_id).encode())
    if value is None:
        raise CommandError(
            f"job {job_id} of queue {queue} (source {source}) is unknown",
            f"bullmq-streams tail transitions --queue {queue} --job {job_id} --from beginning tells what became of it",
        )
    row = wire.loads(value)
    if as_json:
        console.print_json(row)
    else:
        status_text.job(row)
    return 0


async def find(kafka: Reader, settings: Settings, key: bytes) -> bytes | None:
    """The newest value of a key on `status`, out of the one partition that it can be in."""
    partitions = kafka.partitions(settings.topic(topology.STATUS))
    value: bytes | None = None
    async for records in kafka.to_end([partitions[partition_of(key, len(partitions))]]):
        for record in records:
            if record.key == key:
                value = record.value
    return value
