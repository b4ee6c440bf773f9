"""A long steady load on the whole line: does anything grow, fall behind, repeat or get lost?

    python -m tests.bench.soak [--minutes 60] [--rate 100]

Bridge and worker run as processes of their own, with their defaults but for the retention of finished jobs, so that the
table reaches its size within two minutes and stays there. Each minute it prints one line. It exits with 1 where an
entry is missing on `events` or there twice, a transition is missing or too many, or a row outlives its retention.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from aiokafka import AIOKafkaConsumer

from streams.local import stack
from streams.topology import full_name
from tests.bench.latency_bench import ENTRIES_PER_JOB, TRANSITIONS_PER_JOB, add_job, paced
from tests.bench.measuring import resident_mb
from tests.bench.worker_bench import create
from tests.system.support import Line, until

RETENTION_S = 60
KEPT_JOBS = 1_000
"""Hashes that stay in Redis, as with `removeOnComplete: 1000`."""
KEPT_ENTRIES = 10_000
"""BullMQ's own limit of a stream."""
REPORT_EVERY_S = 60
SETTLE_S = 90


@dataclass(slots=True)
class Seen:
    """What has come out."""

    entries: int = 0
    entry_ids: set[int] = field(default_factory=set)
    looks: int = 0
    transitions: int = 0
    rows: set[bytes] = field(default_factory=set)
    most_rows: int = 0


async def produce(client: Any, queue: str, rate: int, jobs: int) -> None:
    """So many jobs, so many a second, of which Redis keeps the newest."""
    async for number in paced(rate, jobs):
        await add_job(client, queue, number, keep_entries=KEPT_ENTRIES)
        if number >= KEPT_JOBS:
            old = f"crawl-drive-{number - KEPT_JOBS}"
            await client.delete(f"bull:{queue}:{old}")
            await client.zrem(f"bull:{queue}:completed", old)


async def watch(bootstrap: str, prefix: str, seen: Seen) -> None:
    """Count what consumers of the three topics read."""
    names = {full_name(prefix, topic): topic for topic in ("events", "transitions", "status")}
    consumer = AIOKafkaConsumer(
        *names, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    async with consumer:
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    _count(names[partition.topic], record, seen)


def _count(topic: str, record: Any, seen: Seen) -> None:
    if topic == "events":
        headers = dict(record.headers)
        if headers["ce_type"] == b"bullmq.job.observed.v1":
            seen.looks += 1
        else:
            seen.entries += 1
            seen.entry_ids.add(hash(headers["ce_id"]))
    elif topic == "transitions":
        seen.transitions += 1
    elif record.value is None:
        seen.rows.discard(record.key)
    else:
        seen.rows.add(record.key)
        seen.most_rows = max(seen.most_rows, len(seen.rows))


async def report(line: Line, seen: Seen) -> None:
    """One line a minute."""
    begin = time.monotonic()
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        bridge, worker = (resident_mb(process.pid) for process in line.processes)
        say(
            f"{(time.monotonic() - begin) / 60:5.1f} min: {seen.entries:,} entries, {seen.looks:,} looks, "
            f"{seen.transitions:,} transitions, {len(seen.rows):,} rows; "
            f"resident: bridge {bridge:.0f} MB, worker {worker:.0f} MB"
        )


def say(text: str) -> None:
    """One line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def problems(seen: Seen, jobs: int) -> list[str]:
    """What is not as it has to be."""
    entries, transitions = jobs * ENTRIES_PER_JOB, jobs * TRANSITIONS_PER_JOB
    checks = {
        f"{seen.entries:,} of {entries:,} entries": seen.entries == entries,
        f"{len(seen.entry_ids):,} different ones of {entries:,} entries": len(seen.entry_ids) == entries,
        f"{seen.transitions:,} transitions, expected {transitions:,}": seen.transitions == transitions,
        f"{len(seen.rows):,} rows have outlived their retention": not seen.rows,
    }
    return [text for text, right in checks.items() if not right]


async def soak(servers: stack.Servers, arguments: argparse.Namespace, logs: Path) -> int:
    """Run, report, judge."""
    prefix = f"soak-{uuid.uuid4().hex[:8]}"
    await create(servers.bootstrap, prefix)
    client = redis.from_url(servers.redis_url)
    await client.hset(f"bull:{prefix}:meta", "opts.maxLenEvents", KEPT_ENTRIES)
    line = Line(
        servers.bootstrap, servers.redis_url, prefix, logs,
        BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES=f'["{prefix}"]',
        BULLMQ_STREAMS_WORKER__RETENTION_S=str(RETENTION_S),
    )  # fmt: skip
    seen = Seen()
    try:
        line.start("bridge")
        line.start("worker")
        beside = [
            asyncio.create_task(watch(servers.bootstrap, prefix, seen)), asyncio.create_task(report(line, seen)),
        ]  # fmt: skip
        jobs = int(arguments.rate * arguments.minutes * 60)
        await produce(client, prefix, arguments.rate, jobs)

        async def right() -> bool:
            return not problems(seen, jobs)

        try:
            await until(right, RETENTION_S + SETTLE_S, "all entries, transitions and ends of rows")
        except AssertionError:
            say("\n".join(["WRONG", *problems(seen, jobs), line.log_text()]))
            return 1
        finally:
            for task in beside:
                task.cancel()
    finally:
        line.stop_all()
        await client.aclose()
    counts = f"{jobs:,} jobs, {seen.entries:,} entries, {seen.looks:,} looks, {seen.transitions:,} transitions"
    say(f"right: {counts}, {seen.most_rows:,} rows at most")
    return 0


def main() -> int:
    """On servers of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=100, help="jobs a second, of four entries each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = stack.up(Path(folder), jvm_heap_mb=768)
        try:
            return asyncio.run(soak(servers, arguments, Path(folder)))
        finally:
            stack.down(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
