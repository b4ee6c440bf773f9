"""Two sources in one bridge: same queue, same job ids, kept apart; and one that is away does not hold up the other."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest
import redis.asyncio
from bullmq import Queue

from streams.local import stack
from tests.commands.support import free_port
from tests.system import oracle
from tests.system.applications import values
from tests.system.support import Line, until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def second_redis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second-redis")
    servers = stack.up(folder, kafka=False)
    yield servers
    stack.down(folder)


class Source:
    """A Redis with an application that works off what is added."""

    def __init__(self, name: str, url: str, queue: str) -> None:
        self.name, self.url, self.queue = name, url, queue
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "tests.system.application", url, queue, "{}", "0"], stdout=subprocess.DEVNULL
        )

    async def add(self, ids: range) -> None:
        queue = Queue(self.queue, {"connection": self.url})
        for number in ids:
            await queue.add("crawl", {"of": self.name}, {"jobId": f"j{number}"})
        await queue.close()

    async def stream_ids(self) -> list[str]:
        client: Any = redis.asyncio.from_url(self.url, decode_responses=True)
        ids = [stream_id for stream_id, _ in await client.xrange(f"bull:{self.queue}:events")]
        await client.aclose()
        return ids

    def stop(self) -> None:
        self.worker.kill()
        self.worker.wait()


@pytest.fixture
def sources(redis_server, second_redis, prefix):
    found = {name: Source(name, url, prefix) for name, url in (("one", redis_server), ("two", second_redis.redis_url))}
    yield found
    for source in found.values():
        source.stop()


@pytest.fixture
async def line(kafka, redis_server, second_redis, prefix, topics, tmp_path):
    await topics()
    line = Line(
        kafka, redis_server, prefix, tmp_path,
        BULLMQ_STREAMS_SOURCES__ONE__URL=redis_server,
        BULLMQ_STREAMS_SOURCES__ONE__QUEUES=json.dumps([prefix]),
        BULLMQ_STREAMS_SOURCES__ONE__DISCOVER_INTERVAL_S="0.2",
        BULLMQ_STREAMS_SOURCES__TWO__URL=second_redis.redis_url,
        BULLMQ_STREAMS_SOURCES__TWO__DISCOVER_INTERVAL_S="0.2",
        BULLMQ_STREAMS_BRIDGE__HTTP_PORT=str(free_port()),
    )  # fmt: skip
    for name in ("URL", "DISCOVER_INTERVAL_S"):
        del line.env[f"BULLMQ_STREAMS_SOURCES__DEFAULT__{name}"]
    yield line
    line.stop_all()


async def completed(line: Line, source: str, count: int) -> None:
    """So many jobs of a source have been completed, each with the data of its own source."""

    async def all_there() -> bool:
        rows = await oracle.rows_of(line.bootstrap, line.prefix)
        own = [row for row in rows.values() if row and row["source"] == source and row["state"] == "completed"]
        assert all(row["data"] == {"of": source} for row in own)
        return len(own) == count

    try:
        await until(all_there, 40, f"{count} jobs of {source} completed")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{line.log_text()}") from None


def missing(line: Line) -> list[str]:
    """What the bridge's readiness names."""
    url = f"http://127.0.0.1:{line.env['BULLMQ_STREAMS_BRIDGE__HTTP_PORT']}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    return list(json.loads(body)["missing"])


async def test_two_sources_are_kept_apart_and_do_not_wait_for_each_other(line, sources, second_redis):
    one, two = sources["one"], sources["two"]
    bridge = line.start("bridge")
    line.start("worker")
    await asyncio.gather(one.add(range(50)), two.add(range(50)))
    await asyncio.gather(completed(line, "one", 50), completed(line, "two", 50))

    bridge.send_signal(signal.SIGKILL)
    await asyncio.gather(one.add(range(50, 100)), two.add(range(50, 100)))
    line.start("bridge")
    await asyncio.gather(completed(line, "one", 100), completed(line, "two", 100))

    second_redis.redis.process.freeze()
    try:
        await one.add(range(100, 150))
        await completed(line, "one", 150)

        async def said() -> bool:
            return await asyncio.to_thread(missing, line) == ["redis"]

        await until(said, 30, "readiness that names redis")
    finally:
        second_redis.redis.process.thaw()
    await two.add(range(100, 150))
    await completed(line, "two", 150)

    async def well() -> bool:
        return await asyncio.to_thread(missing, line) == []

    await until(well, 30, "readiness that names nothing")
    await everything_of_each_is_told_once(line, sources)


async def everything_of_each_is_told_once(line: Line, sources: dict[str, Source]) -> None:
    rows = await oracle.rows_of(line.bootstrap, line.prefix)
    events, transitions = await values(line, "events"), await values(line, "transitions")
    for name, source in sources.items():
        own = [event for event in events if event["source"] == name]
        assert oracle.published_once(own, {source.queue: await source.stream_ids()}) == []
        told = [transition for transition in transitions if transition["source"] == name]
        mine = {key: row for key, row in rows.items() if row and row["source"] == name}
        assert oracle.broken_chains(told, mine) == []
        assert len({(t["job_id"], t["life"]) for t in told}) == len(mine) == 150
