"""Measure the bridge: `python -m tests.bench.bridge_bench [--kafka HOST:PORT --redis URL] [backlog] [pause] [compare]`.

`backlog`: a filled stream of jobs of real shape, hashes there, through the complete bridge: entries/s and CPU.
`pause`: a queue with many waiting jobs is paused while another queue is busy: how long until each job is told
of, and how late the other queue's entries are meanwhile.
`compare`: a queue with many waiting jobs is compared while entries flow in it: how long it takes, how late these are,
and what it costs Redis.
Without addresses a Kafka and a Redis are started in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topology, wire
from streams.bridge.run import run
from tests.bridge.support import PARTITIONS, Setup, running

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = json.dumps(
    {
        "connector": "drive",
        "connectorId": "507f1f77bcf86cd799439011",
        "scheduleConfig": {"scheduleType": "once", "isEnabled": True, "timezone": "UTC"},
        "orgId": "507f1f77bcf86cd799439012",
        "userId": "507f1f77bcf86cd799439013",
        "timestamp": "2026-11-24T09:00:00.000Z",
        "metadata": {"scheduledTime": "2026-11-24T10:00:00Z"},
    }
)
OPTS = json.dumps({"attempts": 3, "backoff": {"type": "exponential", "delay": 5000}, "removeOnComplete": 10})
NAME = "crawl-drive-507f1f77bcf86cd799439011"
RESULT = '{"records":12,"skipped":1}'


class Published:
    """Counts what is committed."""

    def __init__(self) -> None:
        self._events = 0.0
        self._wanted = 0
        self._there = asyncio.Event()

    async def reach(self, events: int) -> None:
        self._wanted = events
        await self._there.wait()

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:  # noqa: ARG002 - the protocol's
        if name == "bridge_events_published_total":
            self._events += amount
            if self._wanted and self._events >= self._wanted:
                self._there.set()

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        pass


def fill(url: str, queue: str, jobs: int, *, finished: bool = True, page: int = 500) -> None:
    """Jobs as BullMQ 6 leaves them; `page` of them are added before the first of them runs."""
    client, base = redis.from_url(url), f"bull:{queue}:"
    client.hset(f"{base}meta", mapping={"opts.maxLenEvents": "10000", "version": "bullmq:6.7.0"})
    for first in range(0, jobs, page):
        ids = range(first + 1, min(first + page, jobs) + 1)
        pipe = client.pipeline(transaction=False)
        now = str(int(time.time() * 1000))
        for n in ids:
            hash_: dict[Any, Any] = {
                "name": NAME,
                "data": DATA,
                "opts": OPTS,
                "timestamp": now,
                "delay": 0,
                "priority": 0,
            }
            pipe.hset(f"{base}{n}", mapping=hash_)
            pipe.xadd(f"{base}events", {"event": "added", "jobId": n, "name": NAME})
            pipe.xadd(f"{base}events", {"event": "waiting", "jobId": n})
            if not finished:
                pipe.lpush(f"{base}wait", n)
        for n in ids if finished else ():
            ran: dict[Any, Any] = {"processedOn": now, "finishedOn": now, "ats": 1, "atm": 1, "returnvalue": RESULT}
            pipe.hset(f"{base}{n}", mapping=ran)
            pipe.xadd(f"{base}events", {"event": "active", "jobId": n, "prev": "waiting"})
            pipe.xadd(f"{base}events", {"event": "completed", "jobId": n, "returnvalue": RESULT, "prev": "active"})
        pipe.execute()
    client.close()


async def backlog(setup: Setup, jobs: int) -> None:
    await asyncio.to_thread(fill, setup.redis, setup.queue, jobs)
    published = Published()
    wall, cpu = time.perf_counter(), time.process_time()
    async with running(run, setup.settings(snapshot=False), metrics=published):
        await published.reach(jobs * 4)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(  # noqa: T201 - what this is for
        f"backlog: {jobs * 4 / wall:,.0f} entries/s, {cpu / jobs / 4 * 1e6:.1f} CPU s per million entries"
    )


async def pause(setup: Setup, jobs: int) -> None:
    """Two queues: one big and paused, one busy; both match the bridge's pattern."""
    big, busy = f"{setup.queue}-big", f"{setup.queue}-busy"
    await asyncio.to_thread(fill, setup.redis, big, jobs, finished=False)
    await asyncio.to_thread(fill, setup.redis, busy, 1)
    published, setup.queue = Published(), f"{setup.queue}-*"
    client = redis.asyncio.from_url(setup.redis)
    late_ms: list[float] = []
    told: set[str] = set()
    async with running(run, setup.settings(snapshot=False), metrics=published):
        await published.reach(jobs * 2 + 4)
        watching = asyncio.create_task(watch(setup, busy, late_ms, told))
        await asyncio.sleep(1)
        begun = time.perf_counter()
        pipe = client.pipeline(transaction=True)
        pipe.hset(f"bull:{big}:meta", "paused", 1)
        pipe.xadd(f"bull:{big}:events", {"event": "paused"})
        await pipe.execute()
        while len(told) < jobs:
            await client.xadd(f"bull:{busy}:events", {"event": "active", "jobId": "1", "prev": "waiting"})
            await asyncio.sleep(0.005)
            assert time.perf_counter() - begun < 120, f"{len(told)} of {jobs} told of"
        took = time.perf_counter() - begun
        watching.cancel()
    late_ms.sort()
    p99 = late_ms[int(len(late_ms) * 0.99)]
    print(  # noqa: T201 - what this is for
        f"pause: {jobs:,} waiting jobs told of in {took:.1f} s; other entries p99 {p99:.0f} ms of {len(late_ms)}"
    )
    await client.aclose()


async def compare(setup: Setup, jobs: int) -> None:
    await asyncio.to_thread(fill, setup.redis, setup.queue, jobs, finished=False)
    client, published = redis.asyncio.from_url(setup.redis), Published()
    settings = setup.settings(snapshot=False)
    settings.sources["default"] = settings.sources["default"].model_copy(update={"discover_interval_s": 10.0})
    late_ms: list[float] = []
    producer = AIOKafkaProducer(bootstrap_servers=setup.kafka)
    await producer.start()

    async def busy_s() -> float:
        said: dict[str, Any] = await client.info("cpu")
        return float(said["used_cpu_user"]) + float(said["used_cpu_sys"])

    def is_finished(values: list[dict[str, Any]]) -> bool:
        return any(value["status"] == "finished" for value in values)

    async def live() -> None:
        while True:
            await client.xadd(f"bull:{setup.queue}:events", {"event": "active", "jobId": "1", "prev": "waiting"})
            await asyncio.sleep(0.005)

    async with running(run, settings, metrics=published):
        await published.reach(jobs * 2)
        tasks = [asyncio.create_task(watch(setup, setup.queue, late_ms, set())), asyncio.create_task(live())]
        await asyncio.sleep(1)
        busy, at = await busy_s(), time.perf_counter()
        await asyncio.sleep(5)
        load = (await busy_s() - busy) / (time.perf_counter() - at)
        busy, at, process = await busy_s(), time.perf_counter(), time.process_time()
        late_ms.clear()
        await setup.probe(producer, "", "request", request="bench")
        ended = await setup.health("snapshot", enough=is_finished, timeout_s=300)
        took, process = time.perf_counter() - at, time.process_time() - process
        share = (await busy_s() - busy) / took
        for task in tasks:
            task.cancel()
    late_ms.sort()
    done = ended[-1]
    late = f"live entries p99 {late_ms[int(len(late_ms) * 0.99)]:.0f} ms of {len(late_ms)}"
    redis_s = f"{share - load:.1%} of Redis' time beside the {load:.1%} of these alone"
    print(f"compare: {done['done']:,} jobs in {done['took_ms'] / 1000:.1f} s, {process:.1f} CPU s, {redis_s}; {late}")  # noqa: T201
    await producer.stop()
    await client.aclose()


async def watch(setup: Setup, busy: str, late_ms: list[float], told: set[str]) -> None:
    """How late the busy queue's entries are committed, and which jobs the pause has reached."""
    name = topology.full_name(setup.prefix, topology.EVENTS)
    consumer = AIOKafkaConsumer(bootstrap_servers=setup.kafka, isolation_level="read_committed", fetch_max_wait_ms=50)
    await consumer.start()
    try:
        partitions = [TopicPartition(name, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        while True:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                now = time.time() * 1000
                values = [wire.loads(record.value) for record in records]
                own = [value for value in values if value["queue"] == busy and value["kind"] == "entry"]
                late_ms.extend(now - int(value["stream_id"].split("-")[0]) for value in own)
                told.update(value["job_id"] for value in values if value.get("reason") == "pause")
    finally:
        await consumer.stop()


@contextlib.contextmanager
def servers(kafka: str | None, url: str | None) -> Iterator[tuple[str, str]]:
    """Those given, or a stack of our own."""
    if kafka and url:
        yield kafka, url
        return
    from streams.local import stack  # noqa: PLC0415 - an extra, not needed where servers are given

    with tempfile.TemporaryDirectory() as folder:
        started = stack.up(Path(folder), jvm_heap_mb=512)
        try:
            yield started.bootstrap, started.redis_url
        finally:
            stack.down(Path(folder))


async def bench(kafka: str, url: str, what: list[str], jobs: int) -> None:
    for name in what:
        unique = f"bench{uuid.uuid4().hex[:8]}"
        setup = Setup(kafka, url, unique, unique)
        await setup.make_topics()
        run_one = {"backlog": backlog, "pause": pause, "compare": compare}[name]
        await run_one(setup, jobs if name == "backlog" else 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["backlog", "pause", "compare"])
    parser.add_argument("--kafka")
    parser.add_argument("--redis")
    parser.add_argument("--jobs", type=int, default=75_000)
    options = parser.parse_args()
    with servers(options.kafka, options.redis) as (kafka, url):
        asyncio.run(bench(kafka, url, options.what, options.jobs))


if __name__ == "__main__":
    main()
