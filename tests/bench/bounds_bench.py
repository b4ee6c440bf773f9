"""Measure what the bridge holds: `python -m tests.bench.bounds_bench [--kafka HOST:PORT --redis URL] [KIND]…`.

KIND: `large` 5,000 jobs of 100 kB waiting, `huge` 300 of 5 MB, `many` 5,000 queues of 20 jobs. For each: how long the
first start takes until all is published, the most memory of the bridge, how much Redis' rises by being read, and, of
`many`, what both take at rest. The bridge is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import Any, Final

import redis
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import topology
from tests.bench.bridge_bench import servers
from tests.bridge.support import PARTITIONS, Setup

REST_S: Final = 30
KINDS: Final = {"large": (1, 5_000, 100_000), "huge": (1, 300, 5_000_000), "many": (5_000, 20, 200)}
"""Queues, jobs in each, bytes of data of each."""


def fill(url: str, prefix: str, queues: int, jobs: int, size_bytes: int) -> int:
    """Waiting jobs; how many records they lead to: two entries and a look of the snapshot."""
    client = redis.from_url(url)
    data = f'"{"x" * size_bytes}"'
    for q in range(queues):
        base = f"{prefix}:q{q}:"
        pipe = client.pipeline(transaction=False)
        pipe.hset(f"{base}meta", "version", "bullmq:6.7.0")
        for n in range(jobs):
            hash_: dict[Any, Any] = {"name": "n", "data": data, "opts": "{}", "timestamp": int(time.time() * 1000)}
            pipe.hset(f"{base}{n}", mapping=hash_)
            pipe.xadd(f"{base}events", {"event": "added", "jobId": n, "name": "n"})
            pipe.lpush(f"{base}wait", n)
            pipe.xadd(f"{base}events", {"event": "waiting", "jobId": n})
            if len(pipe) * size_bytes > 50_000_000:
                pipe.execute()
        pipe.execute()
    client.close()
    return queues * jobs * 3


def rss(pid: int, what: str = "VmHWM") -> int:
    """MB of a process."""
    with Path(f"/proc/{pid}/status").open() as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(what))


def cpu_s(pid: int) -> float:
    with Path(f"/proc/{pid}/stat").open() as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(kafka: str, url: str, kind: str) -> None:
    queues, jobs, size_bytes = KINDS[kind]
    prefix = f"bench{uuid.uuid4().hex[:8]}"
    setup = Setup(kafka, url, prefix, "*")
    await setup.make_topics()
    client = redis.from_url(url, decode_responses=True)
    client.flushdb()
    entries = await asyncio.to_thread(fill, url, prefix, queues, jobs, size_bytes)
    client.config_resetstat()
    before, redis_pid = client.info("memory")["used_memory"], client.info("server")["process_id"]
    peak = [before]
    begun = time.perf_counter()
    process = setup.start(
        BULLMQ_STREAMS_SOURCES__DEFAULT__PREFIX=prefix, BULLMQ_STREAMS_SOURCES__DEFAULT__DISCOVER_INTERVAL_S="10"
    )
    counting = asyncio.create_task(count_events(setup, entries))
    while not counting.done():
        peak.append(client.info("memory")["used_memory"])
        assert process.poll() is None
        await asyncio.sleep(0.01)
    took = time.perf_counter() - begun
    rise_mb = (max(peak) - before) / 1e6
    said = (
        f"{kind}: {entries:,} records in {took:.0f} s; bridge {rss(process.pid)} MB at most, Redis + {rise_mb:.1f} MB"
    )
    if kind == "many":
        await asyncio.sleep(15)
        mine, its = cpu_s(process.pid), cpu_s(redis_pid)
        await asyncio.sleep(REST_S)
        mine, its = cpu_s(process.pid) - mine, cpu_s(redis_pid) - its
        said += f"; at rest bridge {mine / REST_S:.1%} of a core, Redis {its / REST_S:.1%}"
    print(said, flush=True)  # noqa: T201 - what this is for
    process.terminate()
    process.wait(30)
    client.close()


async def count_events(setup: Setup, wanted: int) -> None:
    name = topology.full_name(setup.prefix, topology.EVENTS)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=setup.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, p) for p in range(PARTITIONS)])
        seen = 0
        while seen < wanted:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                seen += len(records)
    finally:
        await consumer.stop()


async def bench(kafka: str, url: str, what: list[str]) -> None:
    for kind in what:
        await measure(kafka, url, kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=list(KINDS))
    parser.add_argument("--kafka")
    parser.add_argument("--redis")
    options = parser.parse_args()
    with servers(options.kafka, options.redis) as (kafka, url):
        asyncio.run(bench(kafka, url, options.what))


if __name__ == "__main__":
    main()
