"""What somebody else writes to the topics costs itself alone: before a start, while all runs, at the next start."""

from __future__ import annotations

import contextlib
import json
import urllib.request

import pytest
from aiokafka import AIOKafkaProducer

from streams import topology
from streams.bridge.checkpoint import key_of
from streams.core.job import job_key
from tests.commands.support import free_port
from tests.system.oracle import read_all
from tests.system.support import Line, until

pytestmark = [pytest.mark.system, pytest.mark.node]

WAIT_S = 60


def records(queue: str) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values that are nearly what stands on one topic or another."""
    of_queue = {"source": "default", "queue": queue, "at": 1}
    values = [
        b"{", b"\xff\xfe", b"[]", b"null", b"7", b"[" * 5_000,
        *(json.dumps(each).encode() for each in (
            {}, {"type": "table", "partition": 0, "counts": {f"default/{queue}": {"waiting": "9", "active": 9}}},
            {"type": "table", "partition": 7, "counts": []}, {"type": "table", "partition": "x", "counts": {"a": 5}},
            {"type": "heartbeat", **of_queue, "counts": {"wait": "x"}, "entries_read": None, "lag_ms": []},
            {"type": "heartbeat", **of_queue, "at": 10**18, "counts": [], "entries_read": 1, "lag_ms": 0},
            {"type": "snapshot", **of_queue, "status": "started", "request": ["x"], "reason": {}, "epoch": "y"},
            {"type": "snapshot", **of_queue, "status": "finished", "request": 5},
            {"type": "gap", "source": [], "queue": {}, "at": 1, "cause": "failover", "from_id": 9},
            {**of_queue, "job_id": "", "reason": "gap", "request": "r" * 99, "asked_at": "now"},
            {**of_queue, "job_id": ["1"], "reason": "probe", "asked_at": 1},
            {**of_queue, "position": "9-x", "entries_added": "7", "run_id": 5, "paused": 1, "snapshot": []},
            {"id": "1", "state": "nope", "_": {"due": "x", "state": [], "at": 1e300, "spread": -1}},
        )),
    ]  # fmt: skip
    keys = [None, b"", b"x", job_key("default", queue, "1").encode(), key_of("bridge", "default", queue)]
    return [(key, value) for key in keys for value in values] + [(b"x", None)]


async def spoil(line: Line, queue: str) -> None:
    """All of them on all topics of which the product reads its own records back."""
    producer = AIOKafkaProducer(bootstrap_servers=line.bootstrap)
    await producer.start()
    try:
        for topic in (topology.CHECKPOINTS, topology.STATUS, topology.HEALTH, topology.PROBES, topology.EVENTS):
            name = topology.full_name(line.prefix, topic)
            compacted = topic in (topology.CHECKPOINTS, topology.STATUS)
            for key, value in records(queue):
                if key or not compacted:  # Kafka refuses these itself
                    await producer.send(name, value, key, partition=0)
        await producer.flush()
    finally:
        await producer.stop()


@pytest.fixture
async def line(kafka, redis_server, redis_client, prefix, topics, tmp_path):
    await redis_client.flushdb()
    await topics()
    settings = {
        "BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES": json.dumps([f"{prefix}*"]),
        "BULLMQ_STREAMS_WORKER__HTTP_PORT": str(free_port()),
    }
    line = Line(kafka, redis_server, prefix, tmp_path, **settings)
    yield line
    line.stop_all()


async def completed(line: Line, *job_ids: str) -> None:
    """Rows of these jobs say so, and both processes live."""

    async def there() -> bool:
        assert all(process.poll() is None for process in line.processes), line.log_text()
        states = {}
        for record in await read_all(line.bootstrap, topology.full_name(line.prefix, topology.STATUS)):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                row = json.loads(record.value)
                states[row["id"]] = row["state"]
        return all(states.get(job_id) == "completed" for job_id in job_ids)

    await until(there, WAIT_S, f"{job_ids} completed\n{line.log_text()}")


def metrics(line: Line) -> str:
    """The worker's, which are made of what stands on `health`."""
    port = line.env["BULLMQ_STREAMS_WORKER__HTTP_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
    return text


async def test_foreign_records_on_every_topic(line, do, prefix):
    work = f"const q = queue('{prefix}'); worker('{prefix}', () => 'well');"
    await spoil(line, prefix)
    line.start("bridge")
    line.start("worker")
    await do("v6", f"{work} await q.add('x', {{}}, {{ jobId: 'a' }}); await ended('{prefix}', 1);")
    await completed(line, "a")
    await spoil(line, prefix)
    await do("v6", f"{work} await q.add('x', {{}}, {{ jobId: 'b' }}); await ended('{prefix}', 1);")
    await completed(line, "a", "b")
    assert "bullmq_streams_jobs_drift" in metrics(line)
    for process in list(line.processes):
        line.end(process)
    line.start("bridge")
    line.start("worker")
    await do("v6", f"{work} await q.add('x', {{}}, {{ jobId: 'c' }}); await ended('{prefix}', 1);")
    await completed(line, "a", "b", "c")

    async def counted() -> bool:
        return f'bullmq_streams_jobs_drift{{queue="{prefix}",source="default",state="waiting"}} 0.0' in metrics(line)

    await until(counted, WAIT_S, "the counts agree")
