"""The bridge at a Redis that loses, rewrites and repeats its past: each entry once per history, each job looked at."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis.asyncio
from aiokafka import AIOKafkaProducer

from streams import topology, wire
from streams.bridge.outage import Outage
from streams.bridge.run import run
from streams.local.redis import Redis

from .support import Setup, order, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.system


@dataclass
class Server:
    """One Redis of the test's own, and what the test does to it."""

    server: Redis
    queue: str
    db: redis.asyncio.Redis = field(init=False)

    def __post_init__(self) -> None:
        self.server.start()
        end = time.monotonic() + 20
        while not self.server.is_ready():
            assert time.monotonic() < end
            time.sleep(0.02)
        self.db = redis.asyncio.from_url(self.server.url, decode_responses=True)

    @property
    def url(self) -> str:
        return self.server.url

    def key(self, name: str) -> str:
        return f"bull:{self.queue}:{name}"

    async def add(self, *ids: int, clock: int | None = None, place: str = "wait") -> None:
        """Jobs that wait, as BullMQ adds them: two entries each, by Redis' own clock or by this one."""
        pipe = self.db.pipeline(transaction=True)
        pipe.hset(self.key("meta"), "opts.maxLenEvents", "10000")
        for n in ids:
            pipe.hset(self.key(str(n)), mapping={"name": f"n{n}", "data": "{}", "opts": "{}", "timestamp": "1"})
            pipe.lpush(self.key(place), n)
            at = "*" if clock is None else f"{clock}-*"
            pipe.xadd(self.key("events"), {"event": "added", "jobId": n, "name": "n"}, id=at)
            pipe.xadd(self.key("events"), {"event": "waiting", "jobId": n}, id=at)
        await pipe.execute()

    async def finish(self, *ids: int) -> None:
        """They complete."""
        pipe = self.db.pipeline(transaction=True)
        for n in ids:
            pipe.lrem(self.key("wait"), 0, str(n))
            pipe.zadd(self.key("completed"), {str(n): 1})
            pipe.hset(self.key(str(n)), "finishedOn", "2")
            pipe.xadd(self.key("events"), {"event": "active", "jobId": n, "prev": "waiting"})
            pipe.xadd(self.key("events"), {"event": "completed", "jobId": n, "returnvalue": "1", "prev": "active"})
        await pipe.execute()

    async def obliterate(self) -> None:
        names = [name async for name in self.db.scan_iter(self.key("*"))]
        await self.db.delete(*names)

    async def ids(self) -> list[str]:
        entries: Any = await self.db.xrange(self.key("events"))
        return [stream_id for stream_id, _ in entries]

    async def places(self) -> dict[str, str]:
        waiting: Any = await self.db.lrange(self.key("wait"), 0, -1)
        completed: Any = await self.db.zrange(self.key("completed"), 0, -1)
        return dict.fromkeys(map(str, waiting), "wait") | dict.fromkeys(map(str, completed), "completed")

    async def restart(self, *, saved: bool = False) -> None:
        """Killed, and started again with what its last dump or its log has."""
        if saved:
            await self.db.save()
        await self.db.aclose()
        self.server.process.kill()
        self.__post_init__()

    async def end(self) -> None:
        await self.db.aclose()
        self.server.process.kill()


@dataclass
class Line:
    """A bridge, its Redis, and what came out."""

    setup: Setup
    source: Server

    async def events(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """All of events, checked: in the contract's order by key, each entry once in its history."""

        def of(records: list[Any]) -> list[dict[str, Any]]:
            return [wire.loads(record.value) for record in records]

        records = await self.setup.read(topology.EVENTS, enough=lambda records: enough(of(records)))
        values = of(records)
        by_key: dict[str, list[dict[str, Any]]] = {}
        for value in values:
            by_key.setdefault(value["job_id"], []).append(value)
        for own in by_key.values():
            assert [order(value) for value in own] == sorted(order(value) for value in own)
        twice = Counter((value["epoch"], value["stream_id"]) for value in values if value["kind"] == "entry")
        assert set(twice.values()) <= {1}, [at for at, count in twice.items() if count > 1]
        ce_ids = Counter(dict(record.headers)["ce_id"] for record in records)
        assert set(ce_ids.values()) == {1}
        return values

    async def gaps(self, count: int = 1) -> list[dict[str, Any]]:
        return await self.setup.health("gap", enough=lambda gaps: len(gaps) >= count)

    async def compared(self, reason: str) -> dict[str, Any]:
        """The end of the comparison that was begun for this reason."""

        def ended(values: list[dict[str, Any]]) -> bool:
            return any((value["status"], value["reason"]) == ("finished", reason) for value in values)

        values = await self.setup.health("snapshot", enough=ended)
        return [value for value in values if (value["status"], value["reason"]) == ("finished", reason)][-1]

    async def is_calm(self) -> None:
        """Nothing but heartbeats has been told."""
        values = [wire.loads(record.value) for record in await self.setup.all(topology.HEALTH)]
        assert [value for value in values if value["type"] != "heartbeat"] == []

    async def entries(self, count: int, epoch: int = 0) -> list[str]:
        """Ids of so many entries of a history."""
        own = await self.events(lambda values: len(_of(values, epoch)) >= count)
        return _of(own, epoch)

    async def is_true(self, epoch: int) -> None:
        """The last look at each job, in this history, says where it is now."""
        places = await self.source.places()

        def looked(values: list[dict[str, Any]]) -> dict[str, str | None]:
            looks = [value for value in values if value["kind"] == "look" and value["epoch"] == epoch]
            return {look["job_id"]: look["where"] for look in looks if look["found"]}

        values = await self.events(lambda values: looked(values).keys() >= places.keys())
        assert {job_id: where for job_id, where in looked(values).items() if job_id in places} == places


def _of(values: list[dict[str, Any]], epoch: int) -> list[str]:
    return sorted(v["stream_id"] for v in values if v["kind"] == "entry" and v["epoch"] == epoch)


@contextlib.asynccontextmanager
async def server(directory: Path, queue: str, *options: str) -> AsyncIterator[Server]:
    own = Server(Redis(directory, options=options), queue)
    try:
        yield own
    finally:
        await own.end()


@pytest.fixture
async def line(kafka: str, prefix: str, tmp_path: Path) -> AsyncIterator[Line]:
    async with server(tmp_path / "a", f"q-{prefix}") as source:
        setup = Setup(kafka, source.url, prefix, source.queue)
        await setup.make_topics()
        yield Line(setup, source)


async def test_a_restart_with_all_its_data_goes_on_as_if_nothing_had_happened(kafka, prefix, tmp_path):
    async with server(tmp_path / "a", "q", "--appendonly", "yes", "--appendfsync", "always") as source:
        line = Line(Setup(kafka, source.url, prefix, "q"), source)
        await line.setup.make_topics()
        async with running(run, line.setup.settings(snapshot=False)):
            await source.add(*range(50))
            await line.entries(100)
            await source.restart()
            await source.add(*range(50, 60))
            assert await line.entries(120) == sorted(await source.ids())
        await line.is_calm()


@pytest.mark.parametrize("while_running", [True, False])
async def test_a_restart_with_older_data_is_another_history(line, while_running):
    source = line.source
    await source.add(*range(20))
    if while_running:
        async with running(run, line.setup.settings(snapshot=False)):
            await line.entries(40)
            await source.db.save()
            await source.finish(*range(10))
            await line.entries(60)
            await source.restart()
            await source.add(*range(100, 105))
            await _undone(line)
    else:
        async with running(run, line.setup.settings(snapshot=False)):
            await line.entries(40)
            await source.db.save()
            await source.finish(*range(10))
            await line.entries(60)
        await source.restart()
        await source.add(*range(100, 105))
        async with running(run, line.setup.settings(snapshot=False)):
            await _undone(line)


async def _undone(line: Line) -> None:
    (gap,) = await line.gaps()
    assert (gap["cause"], gap["lost"], gap["undone"], gap["epoch"]) == ("failover", None, 20, 0)
    ids = await line.source.ids()
    assert gap["from_id"] == ids[39]
    assert await line.entries(10, epoch=1) == sorted(ids[40:])
    done = await line.compared("failover")
    assert done["done"] == 25
    await line.is_true(1)
    began = await line.setup.health("snapshot", enough=bool)
    assert (began[0]["status"], began[0]["epoch"], began[0]["reason"]) == ("started", 1, "failover")


async def test_no_data_at_all_ends_the_history_and_its_jobs(line):
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(20))
        await line.entries(40)
        await line.source.restart()
        gap = (await line.gaps())[0]
        assert (gap["cause"], gap["from_id"]) == ("failover", "0-0")
        await line.source.add(1, 2)
        assert await line.entries(4, epoch=1) == sorted(await line.source.ids())
        await line.compared("failover")


async def test_flushall_is_told_and_questions_about_what_is_gone_are_answered(line):
    async with producing(line) as producer:
        async with running(run, line.setup.settings(snapshot=False)):
            await line.source.add(*range(20))
            await line.entries(40)
            await line.source.db.flushall()
            gap = (await line.gaps())[0]
            assert (gap["cause"], gap["epoch"]) == ("reset", 0)
            await line.compared("gap")
            await asyncio.sleep(1)  # it is forgotten by now: the question has it opened again
            await gone(line, producer, "7", epoch=1)
        async with running(run, line.setup.settings(snapshot=False)):
            await line.entries(40)
            await gone(line, producer, "8", epoch=1)
            await line.source.add(1, 2)
            assert await line.entries(4, epoch=1) == sorted(await line.source.ids())


async def gone(line: Line, producer: AIOKafkaProducer, job_id: str, epoch: int) -> None:
    """Asked about until it is answered, as the worker asks."""

    async def asking() -> None:
        while True:
            await line.setup.probe(producer, job_id, "verify")
            await asyncio.sleep(0.5)

    def looks(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [value for value in values if value["job_id"] == job_id and value["kind"] == "look"]

    task = asyncio.create_task(asking())
    look = looks(await line.events(lambda values: bool(looks(values))))[0]
    task.cancel()
    assert (look["epoch"], look["found"], look["job"]) == (epoch, False, None)


@contextlib.asynccontextmanager
async def producing(line: Line) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=line.setup.kafka)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def test_a_queue_that_was_flushed_while_nobody_looked_ends_too(line):
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(20))
        await line.entries(40)
    await line.source.db.flushall()
    async with running(run, line.setup.settings(snapshot=False)):
        gap = (await line.gaps())[0]
        assert gap["cause"] == "reset"
        await line.compared("gap")


@pytest.mark.parametrize("ids", ["larger", "smaller"])
@pytest.mark.parametrize("while_running", [True, False])
async def test_deleted_and_begun_anew(line, ids, while_running):
    first, second = (1000, 2000) if ids == "larger" else (2000, 1000)

    async def anew() -> None:
        await line.source.obliterate()
        for n in (1, 2, 3):
            await line.source.add(n, clock=second + n)

    async def told() -> None:
        (gap,) = await line.gaps()
        assert (gap["cause"], gap["epoch"], gap["lost"]) == ("reset", 0, None)
        assert await line.entries(6, epoch=1) == sorted(await line.source.ids())
        await line.compared("gap")
        await line.is_true(1)
        await line.source.add(9, clock=second + 9)
        assert await line.entries(8, epoch=1) == sorted(await line.source.ids())

    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(20), clock=first)
        await line.entries(40)
        if while_running:
            await anew()
            await told()
    if not while_running:
        await anew()
        async with running(run, line.setup.settings(snapshot=False)):
            await told()


async def test_ids_from_the_far_future_make_nothing_unreadable(line):
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(5))
        await line.entries(10)
        await line.source.db.execute_command("XSETID", line.source.key("events"), "9999999999999-0")
        await line.source.add(*range(5, 8))
        assert len(await line.entries(16)) == 16
        await line.source.obliterate()
        await line.source.add(1, 2)
        assert await line.entries(4, epoch=1) == sorted(await line.source.ids())
        await line.is_true(1)


async def test_entries_that_cannot_be_read_are_counted_and_their_jobs_found_by_looking(line):
    """A stream that is kept empty, as with `maxLen: 0`."""
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(5))
        await line.entries(10)
        pipe = line.source.db.pipeline(transaction=True)
        for n in range(5, 25):
            pipe.hset(line.source.key(str(n)), mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"})
            pipe.lpush(line.source.key("wait"), n)
            added = {"event": "added", "jobId": n, "name": "n"}
            pipe.xadd(line.source.key("events"), added, maxlen=0, approximate=False)
        await pipe.execute()
        (gap,) = await line.gaps()
        assert (gap["cause"], gap["lost"], gap["epoch"]) == ("trimmed", 20, 0)
        await line.compared("gap")
        await line.is_true(0)
        await line.source.add(99)
        assert len(await line.entries(12)) == 12
    heartbeats = await line.setup.health("heartbeat", enough=bool)
    assert {beat["epoch"] for beat in heartbeats} == {0}


async def follow(replica: Server, master: Server) -> None:
    """It follows, and has all there is."""
    await replica.db.execute_command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    await master.db.execute_command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    await replica.db.execute_command("REPLICAOF", "127.0.0.1", str(master.server.port))
    await caught_up(replica, master)


async def caught_up(replica: Server, master: Server) -> None:
    end = time.monotonic() + 20
    while True:
        said, own = await replica.db.info("replication"), await master.db.info("replication")
        linked = said["role"] == "slave" and said["master_link_status"] == "up"
        if linked and said["slave_repl_offset"] >= own["master_repl_offset"]:
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


class Address:
    """One port that leads to whichever server is the master, as a managed service's name does."""

    def __init__(self) -> None:
        self.port = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.own = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        for writer in list(self._connections):
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        self._connections |= {writer, there_writer}
        for source, target in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()
        self._connections.discard(target)


@pytest.mark.parametrize("notice", ["closed", "open"])
async def test_a_lagging_replica_is_promoted(kafka, prefix, tmp_path, notice):
    """`closed`: the connections end with the old master; `open`: it goes on answering, as a replica of the new one."""
    async with (
        Address() as address,
        server(tmp_path / "a", "q") as old,
        server(tmp_path / "b", "q") as new,
    ):
        address.port = old.server.port
        line = Line(Setup(kafka, f"redis://127.0.0.1:{address.own}/0", prefix, "q"), new)
        await line.setup.make_topics()
        async with running(run, line.setup.settings(snapshot=False)):
            await old.add(*range(20))
            await line.entries(40)
            await follow(new, old)
            await old.add(20)
            await line.entries(42)
            await caught_up(new, old)
            await new.db.execute_command("REPLICAOF", "127.0.0.1", "1")  # it keeps what it has, and lags from here on
            await old.finish(*range(10))
            await old.add(*range(21, 31))
            await line.entries(82)
            await new.db.execute_command("REPLICAOF", "NO", "ONE")
            address.port = new.server.port
            if notice == "closed":
                await address.cut()
            else:
                await old.db.execute_command("REPLICAOF", "127.0.0.1", str(new.server.port))
            await new.add(*range(21, 26))  # the ids again, to other jobs
            (gap,) = await line.gaps()
            assert (gap["cause"], gap["undone"], gap["epoch"]) == ("failover", 40, 0)
            ids = await new.ids()
            assert gap["from_id"] == ids[41]
            assert await line.entries(10, epoch=1) == sorted(ids[42:])
            await line.compared("failover")
            await line.is_true(1)


async def test_a_clean_promotion_costs_nothing(kafka, prefix, tmp_path):
    async with (
        Address() as address,
        server(tmp_path / "a", "q") as old,
        server(tmp_path / "b", "q") as new,
    ):
        address.port = old.server.port
        line = Line(Setup(kafka, f"redis://127.0.0.1:{address.own}/0", prefix, "q"), new)
        await line.setup.make_topics()
        async with running(run, line.setup.settings(snapshot=False)):
            await old.add(*range(20))
            await line.entries(40)
            await follow(new, old)
            await old.add(20)
            await line.entries(42)
            await caught_up(new, old)
            await asyncio.sleep(0.5)  # for the replication offset to be known, of which nothing is told
            await new.db.execute_command("REPLICAOF", "NO", "ONE")
            # trimmed past the position before anybody looks: only the replication ids tell that nothing is undone
            await new.add(*range(30, 40))
            await new.db.xtrim("bull:q:events", maxlen=5, approximate=False)
            address.port = new.server.port
            await address.cut()
            (gap,) = await line.gaps()
            assert (gap["cause"], gap["lost"], gap["epoch"]) == ("trimmed", 15, 0)
            assert len(await line.entries(47)) == 47
            await line.compared("gap")


async def test_a_first_replica_changes_nothing(line, tmp_path):
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(20))
        await line.entries(40)
        async with server(tmp_path / "b", line.source.queue) as replica:
            await follow(replica, line.source)
            await line.source.add(20)
            await line.entries(42)
    async with running(run, line.setup.settings(snapshot=False)):
        await line.source.add(21)
        assert len(await line.entries(44)) == 44
    await line.is_calm()


async def test_a_replica_is_not_read_unless_it_is_allowed(line, tmp_path):
    await line.source.add(*range(5))
    async with server(tmp_path / "b", line.source.queue) as replica, producing(line) as producer:
        await follow(replica, line.source)
        setup = Setup(line.setup.kafka, replica.url, line.setup.prefix, line.setup.queue)
        outage = Outage()
        async with running(run, setup.settings(snapshot=False), outage=outage):
            await until(lambda: outage.missing == ["replica"])
            settings = setup.settings(snapshot=False)
        allowed = settings.sources["default"].model_copy(update={"allow_replica": True})
        settings = settings.model_copy(update={"sources": {"default": allowed}})
        async with running(run, settings):
            await line.entries(10)
            await line.setup.probe(producer, "3")
            values = await line.events(lambda values: any(v["kind"] == "look" for v in values))
            (look,) = [v for v in values if v["kind"] == "look"]
            assert (look["replica"], look["where"]) == (True, "wait")


async def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_a_comparison_on_request_is_told_under_its_id_and_repeats_are_echoed(line):
    async with producing(line) as producer, running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(2500))
        await line.entries(5000)
        for request in ("aa", "aa", "bb"):
            await line.setup.probe(producer, "", "request", request=request)
        values = await line.setup.health(
            "snapshot", enough=lambda values: sum(value["status"] == "finished" for value in values) >= 2
        )
        ended = {value["request"]: value for value in values if value["status"] == "finished"}
        assert ended.keys() == {"aa", "bb"}
        assert all(value["done"] >= 2500 and value["took_ms"] >= 0 for value in ended.values())
        started = [value for value in values if value["status"] == "started"]
        assert {value["request"] for value in started} == {"aa", "bb"}
        events = await line.events(lambda values: any(value["kind"] == "look" for value in values))
        looks = [value for value in events if value["kind"] == "look"]
        assert {value["request"] for value in looks} <= {"aa", "bb"}
        begin = min(order({**value, "kind": "look"}) for value in started)
        assert all(order(value) >= begin for value in looks)
        await line.is_true(0)


async def test_thousands_of_jobs_that_are_gone_are_told_at_once(line):
    async with producing(line) as producer, running(run, line.setup.settings(snapshot=False)):
        await line.source.add(*range(3000))
        await line.entries(6000)
        await line.source.db.delete(line.source.key("wait"), *(line.source.key(str(n)) for n in range(2990)))
        for n in range(3000):
            await line.setup.probe(producer, str(n), "verify")

        def answered(values: list[dict[str, Any]]) -> bool:
            return len({v["job_id"] for v in values if v["kind"] == "look"}) >= 3000

        values = await line.events(answered)
        found = {v["job_id"]: v["found"] for v in values if v["kind"] == "look"}
        assert {job_id for job_id, there in found.items() if there} == {str(n) for n in range(2990, 3000)}
