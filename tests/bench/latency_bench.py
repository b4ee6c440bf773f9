r"""From the entry in Redis to the row readable on `status` (read_committed), at a constant rate of jobs.

    python -m tests.bench.latency_bench --bootstrap localhost:9092 --redis redis://localhost:6379/0 \
        [--rate 200] [--seconds 30]

Bridge and worker run as processes of their own, with their defaults. A job is four entries with a hash of real shape.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from aiokafka import AIOKafkaConsumer

from streams.topology import full_name
from streams.wire import loads
from tests.bench.worker_bench import create
from tests.system.support import Line

DATA = json.dumps(
    {"connector": "drive", "connectorId": "5" * 36, "scheduleConfig": {"scheduleType": "once"}, "pad": "x" * 160}
)
OPTS = json.dumps({"attempts": 3, "backoff": {"type": "exponential", "delay": 5000}, "removeOnComplete": 10})


ENTRIES_PER_JOB = 4
TRANSITIONS_PER_JOB = 3


async def produce(client: Any, queue: str, rate: int, seconds: int) -> None:
    """The entries and hash changes of `rate` jobs a second, spread evenly."""
    async for number in paced(rate, rate * seconds):
        await add_job(client, queue, number)


async def paced(rate: int, count: int) -> AsyncIterator[int]:
    """0, 1, 2, … up to `count`, so many a second, spread evenly."""
    begin = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        yield number


async def add_job(client: Any, queue: str, number: int, *, keep_entries: int | None = None) -> None:
    """A job from birth to end, at once, as BullMQ would write it; the stream is trimmed at about `keep_entries`."""
    base, job, now = f"bull:{queue}", f"crawl-drive-{number}", int(time.time() * 1000)
    pipe = client.pipeline(transaction=True)

    def tell(**fields: Any) -> None:
        pipe.xadd(f"{base}:events", {**fields, "jobId": job}, maxlen=keep_entries)

    fields = {"name": "crawl-drive", "data": DATA, "opts": OPTS, "timestamp": now, "delay": 0, "priority": 0}
    pipe.hset(f"{base}:{job}", mapping=fields)
    tell(event="added", name="crawl-drive")
    tell(event="waiting")
    pipe.hset(f"{base}:{job}", mapping={"processedOn": now, "ats": 1})
    tell(event="active", prev="waiting")
    pipe.hset(f"{base}:{job}", mapping={"finishedOn": now, "atm": 1, "returnvalue": "null"})
    pipe.zadd(f"{base}:completed", {job: now})
    tell(event="completed", returnvalue="null", prev="active")
    await pipe.execute()


def completed_at(record: Any) -> int | None:
    """The ms of the `completed` entry that an event or a row tells of; None for all others."""
    value = loads(record.value)
    if "completed" not in (value.get("state"), value.get("event")):
        return None
    return int((value.get("position") or value["stream_id"]).partition("-")[0])


async def watch(bootstrap: str, topic: str, wanted: int, delays: list[float]) -> None:
    """Delay in ms of each completed job's record."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest",
        enable_auto_commit=False, fetch_max_wait_ms=20,
    )  # fmt: skip
    await consumer.start()
    try:
        while len(delays) < wanted:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                now = time.time() * 1000
                for record in records:
                    at = completed_at(record)
                    if at is not None:
                        delays.append(now - at)
    finally:
        await consumer.stop()


async def measure(arguments: argparse.Namespace) -> None:
    """Print one line."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    await create(arguments.bootstrap, prefix)
    client = redis.from_url(arguments.redis)
    await client.hset(f"bull:{prefix}:meta", "opts.maxLenEvents", 1_000_000)
    only = json.dumps([prefix])
    with tempfile.TemporaryDirectory() as logs:
        line = Line(
            arguments.bootstrap, arguments.redis, prefix, Path(logs), BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES=only
        )
        line.start("bridge")
        line.start("worker")
        try:
            await asyncio.sleep(6)  # both have started: this measures the steady state
            wanted = arguments.rate * arguments.seconds
            delays: dict[str, list[float]] = {"events": [], "status": []}
            watching = [
                asyncio.create_task(watch(arguments.bootstrap, full_name(prefix, topic), wanted, found))
                for topic, found in delays.items()
            ]
            await asyncio.sleep(1)
            await produce(client, prefix, arguments.rate, arguments.seconds)
            await asyncio.wait_for(asyncio.gather(*watching), 60)
        finally:
            line.stop_all()
    await client.aclose()
    for topic, found in delays.items():
        say(topic, sorted(found), arguments)


def say(topic: str, delays: list[float], arguments: argparse.Namespace) -> None:
    """One line of percentiles."""
    at = {p: delays[min(int(len(delays) * p / 100), len(delays) - 1)] for p in (50, 95, 99)}
    sys.stdout.write(
        f"entry → {topic}: {arguments.rate} jobs/s for {arguments.seconds} s, "
        + " ".join(f"p{p} {ms:.0f} ms" for p, ms in at.items())
        + f" max {delays[-1]:.0f} ms\n"
    )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=30)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
