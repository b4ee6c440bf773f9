"""Kafka or Redis away for a while: nothing that was read is lost or doubled, and a stop stays bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from bullmq import Queue

from streams.bridge.outage import Outage
from streams.bridge.run import run
from streams.local import stack
from streams.local.errors import LocalStackError
from tests.port import working

from .support import Setup, running, terminate
from .test_system import key, stream_ids, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Servers]:
    """Servers of this module alone: they are frozen and killed."""
    folder: Path = tmp_path_factory.mktemp("outages")
    yield stack.up(folder)
    stack.down(folder)


@pytest.fixture
async def setup(servers: stack.Servers, prefix: str) -> AsyncIterator[Setup]:
    setup = Setup(servers.bootstrap, servers.redis_url, prefix, f"q-{prefix}")
    await setup.make_topics()
    yield setup
    for server in (servers.kafka, servers.redis):
        if server is not None:
            server.process.thaw()
    setup.end()


@pytest.fixture
async def db(servers: stack.Servers) -> AsyncIterator[Any]:
    client = redis.asyncio.from_url(servers.redis_url, decode_responses=True)
    yield client
    await client.aclose()


def up_again(servers: stack.Servers) -> None:
    """On the same ports, once the system lets go of them."""
    for _ in range(60):
        with contextlib.suppress(LocalStackError):
            stack.up(servers.directory)
            return
        time.sleep(1)
    pytest.fail("the servers did not come back")


class Load:
    """Jobs written all the time; of their entries Redis keeps only the newest."""

    def __init__(self, setup: Setup, db: Any, *, keep: int) -> None:
        self._setup, self._db, self._keep = setup, db, keep
        self.written: list[str] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        n = 0
        while not self._stop.is_set():
            await write(self._db, self._setup, range(n, n + 10))
            n += 10
            self.written = sorted({*self.written, *(await stream_ids(self._db, self._setup))})
            await self._db.xtrim(key(self._setup, "events"), maxlen=self._keep, approximate=False)
            await asyncio.sleep(0.05)

    async def end(self, task: asyncio.Task[None]) -> list[str]:
        self._stop.set()
        await task
        return self.written


async def test_kafka_frozen_while_redis_trims(setup, db, servers):
    """What Redis trims during the outage had been read before."""
    outage = Outage()
    await write(db, setup, range(1))
    async with running(run, setup.settings(snapshot=False), outage=outage):
        await setup.events(4)
        load = Load(setup, db, keep=200)
        loading = asyncio.create_task(load.run())
        await asyncio.sleep(1)
        servers.kafka.process.freeze()
        await asyncio.sleep(7)
        assert outage.missing == ["kafka"]
        servers.kafka.process.thaw()
        await asyncio.sleep(1)
        written = await load.end(loading)
        events = await setup.events(len(written))
        assert outage.missing == []
    assert sorted(event["stream_id"] for event in events) == sorted(written)
    assert len(written) > 1000


async def test_jobs_removed_while_kafka_was_away_are_known_all_the_same(setup, servers):
    """Their hashes are read as they are added, though their turn comes when they are long gone."""
    queue = Queue(setup.queue, {"connection": setup.redis})

    async def work(job: Any, token: str) -> int:  # noqa: ARG001
        return 1

    async with running(run, setup.settings(snapshot=False)):
        await queue.add("first", {})
        await setup.events(2)
        servers.kafka.process.freeze()
        for _ in range(8):  # far more than one turn takes
            jobs = [{"name": "n", "data": {"n": n}, "opts": {"removeOnComplete": True}} for n in range(1000)]
            await queue.addBulk(jobs)
            await asyncio.sleep(0.3)
        async with working(setup.queue, work, setup.redis, concurrency=100):
            await asyncio.sleep(8)
            servers.kafka.process.thaw()
            events = await setup.events(2 + 8000 * 2 + 5000)
    added = [event for event in events if event["event"] == "added"]
    assert sum(event["enriched"] for event in added) == len(added) == 8001
    await queue.close()


async def test_a_stop_without_kafka_is_bounded_and_loses_nothing(setup, db, servers):
    process = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    await write(db, setup, range(100))
    await setup.events(400)
    servers.kafka.process.freeze()
    await write(db, setup, range(100, 200))
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    code = await asyncio.to_thread(terminate, process)
    assert (code, time.monotonic() - begun < 30) == (0, True)
    servers.kafka.process.thaw()
    async with running(run, setup.settings(snapshot=False)):
        events = await setup.events(800)
    assert sorted(event["stream_id"] for event in events) == sorted(await stream_ids(db, setup))


async def test_redis_frozen_and_back(setup, db, servers):
    outage = Outage()
    assert outage.missing == []
    async with running(run, setup.settings(snapshot=False), outage=outage):
        await write(db, setup, range(100))
        await setup.events(400)
        servers.redis.process.freeze()
        await asyncio.sleep(13)
        assert outage.missing == ["redis"]
        servers.redis.process.thaw()
        await write(db, setup, range(100, 120))
        events = await setup.events(480)
        assert outage.missing == []
    assert sorted(event["stream_id"] for event in events) == sorted(await stream_ids(db, setup))


async def test_topics_missing_is_said_and_waited_for(servers, prefix):
    setup, outage, stop = Setup(servers.bootstrap, servers.redis_url, prefix, "q"), Outage(), asyncio.Event()
    task = asyncio.create_task(run(setup.settings(), stop=stop, outage=outage))
    await asyncio.sleep(2)
    assert outage.missing == ["kafka", "redis", "topics"]
    await setup.make_topics()
    for _ in range(100):
        await asyncio.sleep(0.1)
        if not outage.missing:
            break
    assert outage.missing == []
    stop.set()
    assert await task == 0


async def test_stop_before_anything_answers():
    setup, stop = Setup("127.0.0.1:1", "redis://127.0.0.1:1/0", "p", "q"), asyncio.Event()
    outage = Outage()
    task = asyncio.create_task(run(setup.settings(), stop=stop, outage=outage))
    await asyncio.sleep(1)
    assert outage.missing == ["kafka", "redis"]
    stop.set()
    assert await asyncio.wait_for(task, 10) == 0


@pytest.mark.slow
async def test_servers_killed_and_started_again(setup, db, servers):
    process = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    await write(db, setup, range(100))
    await setup.events(400)
    servers.kafka.process.kill()
    await write(db, setup, range(100, 200))
    await asyncio.sleep(1)
    await asyncio.to_thread(up_again, servers)
    before = await stream_ids(db, setup)
    await setup.events(800, timeout_s=60)
    servers.redis.process.kill()  # nothing is kept on disk: the streams are gone
    await asyncio.to_thread(up_again, servers)
    await db.connection_pool.disconnect()
    await write(db, setup, range(10))
    events = await setup.events(840, timeout_s=60)
    assert sorted(event["stream_id"] for event in events) == sorted([*before, *(await stream_ids(db, setup))])
    assert await asyncio.to_thread(terminate, process) == 0
