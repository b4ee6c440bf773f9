"""The recordings of the real BullMQ as events: what a bridge would have published, and the rows to be expected."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streams.bridge.bullmq import decode_job
from streams.core.fold import fold
from streams.core.job import job_key
from streams.core.row import attempts_of, max_attempts_of
from streams.core.step import Result

CAPTURES = Path(__file__).parent.parent / "captures"
VERSIONS = ("v4", "v5", "v6")
LISTS = ("wait", "paused", "active")
ZSETS = ("delayed", "prioritized", "completed", "failed", "waiting-children")
NO_JOB = {
    "progress", "removed", "duplicated", "deduplicated", "debounced", "retries-exhausted",
    "paused", "resumed", "drained", "cleaned",
}  # fmt: skip
SOURCE_STATES = {"wait": "waiting", "paused": "waiting"}

Step = dict[str, Any]
Event = dict[str, Any]


@functools.cache
def recording(version: str) -> dict[str, list[Step]]:
    """Scenario to its steps."""
    scenarios: dict[str, list[Step]] = {}
    with gzip.open(CAPTURES / f"{version}.jsonl.gz", "rt") as lines:
        for line in lines:
            step = json.loads(line)
            scenarios.setdefault(step["scenario"], []).append(step)
    return scenarios


def cases() -> list[tuple[str, str]]:
    """All (version, scenario)."""
    return [(version, name) for version in VERSIONS for name in recording(version)]


def place_of(queue: dict[str, Any], job_id: str) -> str | None:
    """The list or sorted set that holds the job."""
    for name in LISTS:
        if job_id in queue["lists"][name]:
            return name
    for name in ZSETS:
        if job_id in queue["zsets"][name]:
            return name
    return None


def decoded(queue: dict[str, Any], job_id: str) -> dict[str, Any] | None:
    hashed = queue["jobs"].get(job_id)
    return decode_job(hashed) if hashed else None


class Bridge:
    """Publishes a scenario's entries, each with the hash of the same step or of a later one."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.paused: dict[str, bool] = {}

    def entries(self, k: int, later: int = 0, *, gone: bool = False) -> Iterator[Event]:
        """Events of step `k` (from 0), with the hashes as they are `later` steps on.

        A hash that has gone by then is read at its last moment; with `gone`, it is gone.
        """
        upto = min(k + later, len(self.steps) - 1)
        for name, queue in self.steps[k]["queues"].items():
            snapshots = [step["queues"].get(name, queue) for step in self.steps[k : upto + 1]]
            snapshots = snapshots[-1:] if gone else snapshots[::-1]
            entries = queue["events"]
            for at, (stream_id, fields) in enumerate(entries):
                follower = entries[at + 1][1] if at + 1 < len(entries) else {}
                job_id = fields.get("jobId", "")
                hashes = next((each for each in snapshots if job_id in each["jobs"]), snapshots[0])
                yield self._event(name, stream_id, fields, follower, hashes)

    def _event(
        self, name: str, stream_id: str, fields: dict[str, str], follower: dict[str, str], hashes: dict[str, Any]
    ) -> Event:
        event, job_id = fields["event"], fields.get("jobId", "")
        if event in ("paused", "resumed"):
            self.paused[name] = event == "paused"
        job = decoded(hashes, job_id) if job_id and event not in NO_JOB else None
        record: Event = {
            "source": "default", "queue": name, "job_id": job_id, "event": event, "stream_id": stream_id,
            "fields": {k: v for k, v in fields.items() if k not in ("event", "jobId")},
            "queue_paused": self.paused.get(name, False), "job": job, "enriched": job is not None,
        }  # fmt: skip
        if event == "waiting":
            place = place_of(hashes, job_id)
            record["where"] = (
                {"paused": "wait"}.get(place or "", place) if place in ("wait", "paused", "prioritized") else None
            )
            if follower.get("event") == "stalled" and follower.get("jobId") == job_id:
                record["stalled"] = True
        return record

    def looks(self, k: int, reason: str = "snapshot", after_ms: int = 0) -> Iterator[Event]:
        """One observation of each job ever heard of, as step `k` shows it."""
        step = self.steps[k]
        for name, queue in step["queues"].items():
            ids = set(queue["jobs"]) | set(step["states"].get(name, ()))
            for job_id in sorted(ids):
                yield self._look(name, queue, job_id, step["at"] + after_ms, reason)

    def _look(self, name: str, queue: dict[str, Any], job_id: str, at: int, reason: str) -> Event:
        place, job = place_of(queue, job_id), decoded(queue, job_id)
        return {
            "source": "default", "queue": name, "job_id": job_id, "event": "observed", "reason": reason,
            "stream_id": queue["last_id"] or "0-0", "observed_at": at, "found": job is not None, "where": place,
            "due_at": due_of(queue, job_id), "lock_ttl_ms": queue["locks"].get(job_id),
            "queue_paused": "paused" in queue["meta"], "job": job, "enriched": job is not None,
        }  # fmt: skip


def due_of(queue: dict[str, Any], job_id: str) -> int | None:
    score = queue["zsets"]["delayed"].get(job_id)
    return None if score is None else int(score) // 4096


class Table:
    """The rows, folded in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any] | None] = {}
        self.transitions: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.anomalies: list[str] = []
        self.asked: list[str] = []

    def apply(self, event: Event) -> Result:
        key = job_key(event["source"], event["queue"], event["job_id"])
        result = fold(self.rows.get(key), event)
        self.rows[key] = result.row
        self.transitions += result.transitions
        self.alerts += result.alerts
        self.anomalies += result.anomalies
        if result.ask:
            self.asked.append(key)
        return result

    def live(self) -> dict[str, dict[str, Any]]:
        return {key: row for key, row in self.rows.items() if row is not None}


def expected_rows(step: Step) -> dict[str, dict[str, Any]]:
    """What each row must say: the hash, the place and the lock of the step."""
    return {
        job_key("default", name, job_id): expected_row(queue, job_id)
        for name, queue in step["queues"].items()
        for job_id in queue["jobs"]
    }


def expected_row(queue: dict[str, Any], job_id: str) -> dict[str, Any]:
    job, place = decoded(queue, job_id), place_of(queue, job_id)
    assert job is not None
    source_state = SOURCE_STATES.get(place or "", place)
    state = {"prioritized": "waiting", "waiting-children": "waiting"}.get(source_state or "", source_state)
    if state == "waiting" and source_state != "waiting-children" and "paused" in queue["meta"]:
        state = "paused"
    if place == "active" and job_id not in queue["locks"]:
        state = "stuck"
    return {
        "id": job_id, "name": job["name"], "data": job["data"],
        "progress": 0 if job.get("progress") is None else job["progress"],
        "delay": job.get("delay") or 0, "timestamp": job["timestamp"],
        "attempts_made": attempts_of(job, running=place == "active"),
        "finished_on": job.get("finished_on"), "processed_on": job.get("processed_on"),
        "failed_reason": job.get("failed_reason"), "state": state, "source_state": source_state,
        "priority": job.get("priority") or 0, "stalled_count": job.get("stalled_count") or 0,
        "return_value": job.get("return_value"), "parent": job.get("parent"), "due_at": due_of(queue, job_id),
        "max_attempts": max_attempts_of(job), "enriched": True,
    }  # fmt: skip


def differences(table: Table, step: Step) -> list[tuple[str, str, Any, Any]]:
    """(key, field, row's value, expected value) for all that differs; a row too many or missing is field `row`."""
    wanted = expected_rows(step)
    found = []
    for key, row in table.live().items():
        if key not in wanted and row["state"] not in ("completed", "failed"):
            found.append((key, "row", row["state"], None))
    for key, want in wanted.items():
        got = table.rows.get(key)
        if got is None:
            found.append((key, "row", None, want["state"]))
            continue
        found += [(key, field, got[field], value) for field, value in want.items() if got[field] != value]
    return found
