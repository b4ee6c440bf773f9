"""What the topics say now: jobs by state, heartbeats, firing alerts, or the row of one job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from streams import topology, wire
from streams.commands import health
from streams.commands.health import Newest, QueueName
from streams.commands.reading import Reader, Record
from streams.core.job import job_key, parse_key, partition_of
from streams.core.lifecycle import STATES, UNKNOWN
from streams.settings import Settings
from streams.worker import drift

OLDEST_S: Final = 86_400
"""A queue that has been silent for longer is not listed."""


@dataclass(slots=True)
class Queue:
    """A line of the overview. What a heartbeat tells is None without one within a day.

    `stale_s` since it; `refused` = why the bridge does not read the queue; `drift` = the table's count less the one in
    Redis, by state; `snapshot` = how far a comparison that goes on now has come. `unplaced` = jobs that are stuck in
    none of BullMQ's places.
    """

    jobs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    paused: bool | None = None
    lag_ms: int | None = None
    lost: int | None = None
    heartbeat_at: int | None = None
    stale_s: float | None = None
    refused: str | None = None
    drift: dict[str, int] | None = None
    snapshot: dict[str, Any] | None = None
    unplaced: int = 0


async def count_jobs(kafka: Reader, settings: Settings, only: QueueName | None) -> dict[QueueName, Queue]:
    """Count the rows by queue and state. One partition after the other, so that memory holds the keys of one."""
    queues: dict[QueueName, Queue] = {}
    prefix = job_key(*only, "").encode() if only else b""
    for partition in kafka.partitions(settings.topic(topology.STATUS)):
        states: dict[bytes, tuple[str, bool]] = {}
        async for records in kafka.to_end([partition]):
            for key, value in _newest(records, prefix).items():
                if value is None:
                    states.pop(key, None)
                else:
                    states[key] = _state(value)
        for key, (state, unplaced) in states.items():
            name = _queue_of(key)
            if name is not None and state:
                queue = queues.setdefault(name, Queue())
                queue.jobs[state] = queue.jobs.get(state, 0) + 1
                queue.unplaced += unplaced
    return queues


def _state(value: bytes) -> tuple[str, bool]:
    """Of a row, and whether its job is in no place; empty for what is none."""
    try:
        row = wire.loads(value)
    except wire.JSONDecodeError:
        return "", False
    if not isinstance(row, dict) or not isinstance(row.get("state"), str):
        return "", False
    return row["state"], row.get("source_state") == UNKNOWN


def _queue_of(key: bytes) -> QueueName | None:
    try:
        source, queue, _ = parse_key(key.decode())
    except ValueError:
        return None
    return source, queue


def _newest(records: list[Record], prefix: bytes = b"") -> dict[bytes, bytes | None]:
    """The last value of each key: the others need no decoding."""
    return {record.key: record.value for record in records if record.key is not None and record.key.startswith(prefix)}


async def add_health(
    kafka: Reader, settings: Settings, queues: dict[QueueName, Queue], only: QueueName | None, now_ms: int
) -> None:
    """Take what the newest records on `health` say of each queue; one without jobs appears by them."""
    found = await health.newest(kafka, settings, now_ms - OLDEST_S * 1000)
    for name in {*queues, *found.heartbeats, *found.refused} if only is None else (only,):
        queue = queues.get(name, Queue())
        _add(queue, name, found, now_ms)
        if name in queues or queue.heartbeat_at is not None or queue.refused is not None:
            queues[name] = queue


def _add(queue: Queue, name: QueueName, found: Newest, now_ms: int) -> None:
    queue.refused, queue.snapshot = found.refusal(name), found.progress(name)
    beat = found.heartbeats.get(name)
    if beat is None:
        return
    queue.paused, queue.lag_ms, queue.lost = beat.get("paused"), beat.get("lag_ms"), beat.get("entries_lost")
    queue.heartbeat_at = beat["at"]
    queue.stale_s = round(max(0, now_ms - beat["at"]) / 1000, 1)
    if isinstance(beat.get("counts"), dict):
        ours: dict[tuple[str, ...], float] = {(*name, state): count for state, count in queue.jobs.items()}
        found_ = drift.drift(ours, {name: drift.by_state(beat)}, {name: queue.unplaced})
        queue.drift = {state: int(count) for (_, _, state), count in found_.items()}


async def count_alerts(kafka: Reader, settings: Settings, only: QueueName | None) -> dict[str, int]:
    """Alerts that fire now, by rule; rules without one are there with 0."""
    firing: dict[bytes, dict[str, Any]] = {}
    async for records in kafka.to_end(kafka.partitions(settings.topic(topology.ALERTS))):
        for key, value in _newest(records).items():
            alert = _alert(value)
            if alert.get("status") == "firing" and only in (None, (alert.get("source"), alert.get("queue"))):
                firing[key] = alert
            else:
                firing.pop(key, None)
    counts = dict.fromkeys(("failed", "stuck"), 0)
    for alert in firing.values():
        rule = str(alert.get("rule"))
        counts[rule] = counts.get(rule, 0) + 1
    return counts


def _alert(value: bytes | None) -> dict[str, Any]:
    try:
        alert = wire.loads(value or b"{}")
    except wire.JSONDecodeError:
        return {}
    return alert if isinstance(alert, dict) else {}


async def find(kafka: Reader, settings: Settings, key: bytes) -> bytes | None:
    """The newest value of a key on `status`, out of the one partition that it can be in."""
    partitions = kafka.partitions(settings.topic(topology.STATUS))
    value: bytes | None = None
    async for records in kafka.to_end([partitions[partition_of(key, len(partitions))]]):
        for record in records:
            if record.key == key:
                value = record.value
    return value
