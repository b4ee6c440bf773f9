"""A worker killed in mid-job: state, alert, rescue. And a long job with a live worker, of which nothing is said."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest
from bullmq import Queue
from pipeshub_sdk.models import JobStatus

from streams.topology import full_name
from tests.system.oracle import read_all, rows_of
from tests.system.support import Line, until

pytestmark = pytest.mark.system

LOCK_MS = 2_000
LONG_JOB_S = 60
STUCK_WITHIN_S = LOCK_MS / 1000 + 5
CRAWL = {
    "connector": "drive",
    "connectorId": "507f1f77bcf86cd799439011",
    "scheduleConfig": {
        "scheduleType": "once",
        "isEnabled": True,
        "timezone": "UTC",
        "scheduledTime": "2026-11-24T10:00:00Z",
    },
    "orgId": "507f1f77bcf86cd799439012",
    "userId": "507f1f77bcf86cd799439013",
    "timestamp": "2026-11-24T09:00:00.000Z",
}
NAME = "crawl-drive-507f1f77bcf86cd799439011"


@pytest.fixture
async def line(kafka, redis_server, prefix, topics, tmp_path):
    queues = json.dumps([f"{prefix}*"])
    line = Line(kafka, redis_server, prefix, tmp_path, BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES=queues)
    await topics()
    yield line
    line.stop_all()


@pytest.fixture
async def queue(line, prefix):
    queue = Queue(prefix, {"connection": line.redis_url})
    yield queue
    await queue.close()


def application(line: Line, queue: str, seconds: float, lock_ms: int = LOCK_MS) -> subprocess.Popen[str]:
    options = {"lockDuration": lock_ms, "stalledInterval": 1000, "maxStalledCount": 3}
    command = [
        sys.executable,
        "-m",
        "tests.system.application",
        line.redis_url,
        queue,
        json.dumps(options),
        str(seconds),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line.processes.append(process)
    return process


async def begun(process: subprocess.Popen[str]) -> str:
    """The id of the next job that the application begins."""
    assert process.stdout is not None
    text = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)
    return text.removeprefix("begun ").strip()


async def alerts(line: Line, queue: str) -> list[dict]:
    records = await read_all(line.bootstrap, full_name(line.prefix, "alerts"))
    return [alert for alert in (json.loads(record.value) for record in records) if alert["queue"] == queue]


async def state_of(line: Line, queue: str, job_id: str) -> dict:
    return (await rows_of(line.bootstrap, line.prefix)).get(f"default/{queue}/{job_id}") or {}


async def test_a_killed_workers_job_is_stuck_then_rescued(line, prefix, queue):
    line.start("bridge")
    line.start("worker")
    job = await queue.add(NAME, CRAWL, {"attempts": 3, "jobId": f"{NAME}-507f1f77bcf86cd799439012"})
    victim = application(line, prefix, 600)
    assert await begun(victim) == job.id

    async def is_active():
        return (await state_of(line, prefix, job.id)).get("state") == "active"

    await until(is_active, 20, "the job is active")
    killed_at = time.time()
    victim.kill()

    async def is_firing():
        return [alert for alert in await alerts(line, prefix) if alert["status"] == "firing"]

    firing = await until(is_firing, 30, f"an alert\n{line.log_text()}")
    assert len(firing) == 1
    row = await state_of(line, prefix, job.id)
    assert row["state"] == "stuck"
    assert row["source_state"] == "active"
    assert (firing[0]["rule"], firing[0]["cause"], firing[0]["severity"]) == ("stuck", "lock_lost", "critical")
    assert firing[0]["starts_at"] / 1000 - killed_at < STUCK_WITHIN_S
    JobStatus.model_validate(row)

    application(line, prefix, 0.1)

    async def is_resolved():
        return [alert for alert in await alerts(line, prefix) if alert["status"] == "resolved"]

    resolved = await until(is_resolved, 30, f"the alert resolves\n{line.log_text()}")
    assert [alert["resolved_by"] for alert in resolved] == ["rescued"]
    assert resolved[0]["fingerprint"] == firing[0]["fingerprint"]

    async def is_completed():
        row = await state_of(line, prefix, job.id)
        return row if row.get("state") == "completed" else None

    row = await until(is_completed, 20, "the rescued job completes")
    assert [past["cause"] for past in row["history"]] == [
        "added", "picked_up", "lock_lost", "rescued", "picked_up", "completed",
    ]  # fmt: skip
    assert len(await alerts(line, prefix)) == 2


async def test_a_long_job_with_a_renewed_lock_never_alarms(line, prefix, queue):
    line.start("bridge")
    line.start("worker")
    job = await queue.add(NAME, CRAWL, {})
    long = application(line, prefix, LONG_JOB_S)
    assert await begun(long) == job.id

    async def is_completed():
        row = await state_of(line, prefix, job.id)
        return row if row.get("state") == "completed" else None

    row = await until(is_completed, LONG_JOB_S + 30, "the long job completes")
    assert [past["cause"] for past in row["history"]] == ["added", "picked_up", "completed"]
    assert await alerts(line, prefix) == []
    probes = await read_all(line.bootstrap, full_name(line.prefix, "probes"))
    assert len(probes) >= LONG_JOB_S // 2 // (LOCK_MS // 1000), "it was looked at, or this proves nothing"


async def test_rows_of_crawling_jobs_are_what_the_published_model_reads(line, prefix, queue):
    line.start("bridge")
    line.start("worker")
    options = {"attempts": 3, "backoff": {"type": "exponential", "delay": 200}, "priority": 5}
    for number in range(3):
        await queue.add(NAME, CRAWL, {**options, "jobId": f"{NAME}-{number}", "delay": 600_000 if number == 0 else 0})
    application(line, prefix, 0.05)

    async def all_there():
        rows = [row for row in (await rows_of(line.bootstrap, line.prefix)).values() if row]
        return rows if sorted(row["state"] for row in rows) == ["completed", "completed", "delayed"] else None

    for row in await until(all_there, 30, "three rows"):
        model = JobStatus.model_validate(row)
        assert model.name == NAME
        assert model.data.connector == "drive"
        assert model.state.value == row["state"] if hasattr(model.state, "value") else model.state == row["state"]
