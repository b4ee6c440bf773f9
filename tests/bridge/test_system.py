"""The bridge on a real Redis and a real Kafka."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from aiokafka import AIOKafkaProducer
from bullmq import Queue

from streams import telemetry, topology, wire
from streams.bridge import bullmq
from streams.bridge.run import run
from streams.clock import wall_ms
from tests.port import working

from .support import Setup, order, running, terminate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.system


@pytest.fixture
async def setup(kafka: str, redis_server: str, prefix: str) -> AsyncIterator[Setup]:
    setup = Setup(kafka, redis_server, prefix, f"q-{prefix}")
    await setup.make_topics()
    yield setup
    setup.end()


@pytest.fixture
async def db(redis_server: str) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(redis_server, decode_responses=True)
    yield client
    await client.aclose()


def key(setup: Setup, name: str) -> str:
    return f"bull:{setup.queue}:{name}"


async def write(db: redis.asyncio.Redis, setup: Setup, ids: range, *, keep: bool = True) -> None:
    """Jobs as BullMQ leaves them: four entries each, and the hash."""
    pipe = db.pipeline(transaction=False)
    pipe.hset(key(setup, "meta"), "opts.maxLenEvents", "10000")
    for n in ids:
        if keep:
            hash_: Any = {"name": "n", "data": "{}", "opts": "{}", "timestamp": "1", "finishedOn": "2"}
            pipe.hset(key(setup, str(n)), mapping=hash_)
        pipe.xadd(key(setup, "events"), {"event": "added", "jobId": n, "name": "n"})
        pipe.xadd(key(setup, "events"), {"event": "waiting", "jobId": n})
        pipe.xadd(key(setup, "events"), {"event": "active", "jobId": n, "prev": "waiting"})
        pipe.xadd(key(setup, "events"), {"event": "completed", "jobId": n, "returnvalue": "null", "prev": "active"})
    await pipe.execute()


async def stream_ids(db: redis.asyncio.Redis, setup: Setup) -> list[str]:
    entries: Any = await db.xrange(key(setup, "events"))
    return [stream_id for stream_id, _ in entries]


async def test_each_entry_once_after_kills_in_mid_load(setup, db):
    process = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    stopped = asyncio.Event()

    async def load() -> None:
        n = 0
        while not stopped.is_set():
            await write(db, setup, range(n, n + 50))
            n += 50
            await asyncio.sleep(0.02)

    loading = asyncio.create_task(load())
    rng = random.Random(7)
    for number in range(6):
        await asyncio.sleep(rng.uniform(1.2, 2.2))
        if number % 3 == 2:
            assert await asyncio.to_thread(terminate, process) == 0
        else:
            process.kill()
            process.wait()
        process = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    stopped.set()
    await loading
    wanted = await stream_ids(db, setup)
    events = await setup.events(len(wanted))
    assert await asyncio.to_thread(terminate, process) == 0
    assert len(wanted) > 10_000
    assert sorted(event["stream_id"] for event in events) == sorted(wanted)
    per_key: dict[str, list] = {}
    for event in events:
        per_key.setdefault(event["job_id"], []).append(event)
    assert all([order(e) for e in each] == sorted(order(e) for e in each) for each in per_key.values())
    assert all(event["enriched"] for event in events)


async def test_a_look_stands_between_the_right_entries_under_load(setup, db):
    """One job goes round and round; at each look the entry before must say what the look saw."""
    places = {"waiting": "wait", "active": "active", "completed": "completed"}
    await db.hset(key(setup, "meta"), "opts.maxLenEvents", "10000")
    hash_ = {"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"}
    await db.hset(key(setup, "7"), mapping=hash_)
    stopped = asyncio.Event()

    async def cycle() -> None:
        n = 0
        while not stopped.is_set():
            n += 1
            pipe = db.pipeline(transaction=True)
            pipe.zrem(key(setup, "completed"), "7").lpush(key(setup, "wait"), "7")
            pipe.xadd(key(setup, "events"), {"event": "waiting", "jobId": "7", "prev": "completed"})
            await pipe.execute()
            pipe = db.pipeline(transaction=True)
            pipe.lrem(key(setup, "wait"), 0, "7").lpush(key(setup, "active"), "7")
            pipe.xadd(key(setup, "events"), {"event": "active", "jobId": "7", "prev": "waiting"})
            await pipe.execute()
            pipe = db.pipeline(transaction=True)
            pipe.lrem(key(setup, "active"), 0, "7").zadd(key(setup, "completed"), {"7": n})
            pipe.xadd(key(setup, "events"), {"event": "completed", "jobId": "7", "returnvalue": "1"})
            await pipe.execute()

    producer = AIOKafkaProducer(bootstrap_servers=setup.kafka)
    await producer.start()
    async with running(run, setup.settings(snapshot=False)):
        await asyncio.sleep(1.0)
        cycling = asyncio.create_task(cycle())
        end = time.monotonic() + 6
        while time.monotonic() < end:
            await setup.probe(producer, "7")
            await asyncio.sleep(0.005)
        stopped.set()
        await cycling
        count = await db.xlen(key(setup, "events"))
        events = await setup.events(count + 50)
    await producer.stop()
    events = [event for event in events if event["job_id"] == "7"]
    assert [order(event) for event in events] == sorted(order(event) for event in events)
    last, looks = None, 0
    for event in events:
        if event["event"] != "observed":
            last = event
        elif last is not None:
            looks += 1
            assert event["where"] == places[last["event"]], (last, event)
            assert event["stream_id"] == last["stream_id"]
    assert looks >= 50


async def test_pause_and_resume_reach_every_waiting_job(setup):
    queue = Queue(setup.queue, {"connection": setup.redis})
    jobs = [{"name": "n", "data": {}, "opts": {"priority": n % 2}} for n in range(2500)]
    await queue.addBulk(jobs)
    async with running(run, setup.settings(snapshot=False)):
        await setup.events(5000)
        await queue.pause()
        late = await queue.add("late", {})
        events = await setup.events(5000 + 2500 + 3)
        told = {e["job_id"] for e in events if e.get("reason") == "pause" and e["queue_paused"] and e["where"]}
        assert told >= {str(n) for n in range(1, 2501)}
        assert [e["queue_paused"] for e in events if e["job_id"] == late.id][:2] == [True, True]
        await queue.resume()
        events = await setup.events(5000 + 2500 + 4 + 2501)
    told = {e["job_id"] for e in events if e.get("reason") == "resume" and not e["queue_paused"]}
    assert told == {str(n) for n in range(1, 2502)}
    await queue.close()


async def test_snapshot_of_jobs_already_there_while_entries_flow(setup, db):
    queue = Queue(setup.queue, {"connection": setup.redis})
    kinds = [{}, {"priority": 2}, {"delay": 60_000}]
    await queue.addBulk([{"name": "n", "data": {"n": n}, "opts": kinds[n % 3]} for n in range(1500)])
    await db.xtrim(key(setup, "events"), 0)
    async with running(run, setup.settings()):
        for n in range(50):
            await queue.add("flow", {"n": n})
        ended = await setup.read(topology.HEALTH, enough=lambda r: any(b'"finished"' in each.value for each in r))
        events = await setup.events(1500 + 100)
    looks = {e["job_id"]: e for e in events if e.get("reason") == "snapshot"}
    assert looks.keys() >= {str(n) for n in range(1, 1501)}
    for n in range(1500):
        look = looks[str(n + 1)]
        assert look["where"] == ("wait", "prioritized", "delayed")[n % 3]
        assert look["job"]["data"] == {"n": n}
        assert (look["due_at"] is not None) == (n % 3 == 2)
    health = [wire.loads(record.value) for record in ended]
    assert next(each["status"] for each in health if each["type"] == "snapshot") == "started"
    assert health[-1]["done"] >= 1500
    checkpoint = await setup.read(
        topology.CHECKPOINTS, enough=lambda r: b'"snapshot":"done"' in ((r and r[-1].value) or b"")
    )
    assert checkpoint[-1].key == f"bridge/default/{setup.queue}".encode()
    await queue.close()


async def test_what_redis_trimmed_unread_is_a_gap(setup, db):
    await write(db, setup, range(100))
    async with running(run, setup.settings(snapshot=False)):
        await setup.events(400)
    await write(db, setup, range(100, 300))
    await db.xtrim(key(setup, "events"), maxlen=150, approximate=False)
    kept = await stream_ids(db, setup)
    async with running(run, setup.settings(snapshot=False)):
        events = await setup.events(400 + 150)
        health = await setup.read(topology.HEALTH, enough=lambda r: any(b'"gap"' in each.value for each in r))
        await asyncio.sleep(0.5)
    assert [event["stream_id"] for event in sorted(events, key=order)[400:]] == kept
    gaps = [value for value in (wire.loads(record.value) for record in health) if value["type"] == "gap"]
    assert [(gap["lost"], gap["cause"]) for gap in gaps] == [(650, "trimmed")]


async def test_removed_on_complete_jobs_keep_name_data_and_options(setup):
    queue = Queue(setup.queue, {"connection": setup.redis})

    async def work(job: Any, token: str) -> int:  # noqa: ARG001
        return 1

    async with running(run, setup.settings(snapshot=False)):
        jobs = [{"name": "n", "data": {"n": n}, "opts": {"removeOnComplete": True}} for n in range(300)]
        await queue.addBulk(jobs)
        await setup.events(600)
        async with working(setup.queue, work, setup.redis):
            events = await setup.events(1200)
    added = [event for event in events if event["event"] == "added"]
    assert [event["job"]["data"]["n"] for event in sorted(added, key=order)] == list(range(300))
    completed = [event for event in events if event["event"] == "completed"]
    assert len(completed) == 300
    assert not any(event["enriched"] or event["job"] for event in completed)
    await queue.close()


async def test_a_second_bridge_with_the_id_ends_the_first(setup, db):
    await write(db, setup, range(10))
    first = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    await setup.events(40)
    second = setup.start(BULLMQ_STREAMS_BRIDGE__SNAPSHOT="false")
    n = 10
    while first.poll() is None and n < 2000:
        await write(db, setup, range(n, n + 10))
        n += 10
        await asyncio.sleep(0.1)
    assert first.returncode == 1
    events = await setup.events(n * 4)
    assert sorted(e["stream_id"] for e in events) == sorted(await stream_ids(db, setup))
    assert await asyncio.to_thread(terminate, second) == 0


async def test_bad_input_is_set_aside_and_stops_nothing(setup, db):
    raw = redis.asyncio.from_url(setup.redis)
    name = key(setup, "events")
    await write(db, setup, range(1))
    await raw.xadd(name, {"jobId": "1", "x": "y"})
    await raw.xadd(name, {"event": "completed", "jobId": "2", "returnvalue": b"\xff\xfe"})
    await raw.xadd(name, {"event": "completed", "jobId": b"\xc3(", "returnvalue": "1"})
    await raw.xadd(name, {"event": "completed", "jobId": "3", "returnvalue": '"' + "x" * 2_000_000 + '"'})
    await raw.xadd(name, {"event": "my-own", "a": "b"})
    await raw.xadd(name, {"event": "x" * 1_000_000, "jobId": "y" * 1_000_000})
    await raw.hset(key(setup, "4"), mapping={"timestamp": "9" * 40, "opts": "{", "data": b"\xff", "name": b"\xff"})
    await raw.xadd(name, {"event": "active", "jobId": "4"})
    await raw.set(key(setup, "5"), "no hash")
    await raw.xadd(name, {"event": "waiting", "jobId": "5"})
    await raw.xadd(name, {"event": "drained"})
    async with running(run, setup.settings(snapshot=False)):
        events = await setup.events(4 + 7)
        dead = await setup.read(topology.DEAD_LETTERS, enough=lambda r: len(r) >= 5)
    reasons = sorted(dict(record.headers)["dlq_reason"] for record in dead)
    assert reasons == [b"missing_field", b"too_large", b"too_large", b"wrong_type", b"wrong_type"]
    by_job = {event["job_id"]: event for event in events}
    assert by_job["3"]["fields"] == {}
    assert by_job["2"]["fields"] == {"returnvalue": "\ufffd\ufffd"}
    assert by_job["4"]["job"]["name"] == "\ufffd"
    assert by_job["5"]["enriched"] is False
    assert {"my-own", "drained"} <= {event["event"] for event in events}
    large = [record for record in dead if dict(record.headers)["dlq_reason"] == b"too_large"]
    assert all(int(dict(record.headers)["dlq_length"]) > 900_000 for record in large)
    await raw.aclose()


async def test_a_user_with_the_documented_rights_suffices(setup, db):
    rights = (
        "+xread +xrange +xrevrange +xlen +xinfo|stream +hgetall +hstrlen +hmget +hget +lpos +lrange +llen +zscore "
        "+zrange +zcard +smembers +sismember +pttl +exists +type +scan +time +multi +exec +discard +info +role +ping "
        "+hello +auth +client|setname +client|id +select +acl|whoami"
    )
    user = f"u-{setup.prefix}"
    await db.execute_command(
        "ACL", "SETUSER", user, "on", ">secret", "resetkeys", "resetchannels", "%R~bull:*", "-@all", *rights.split()
    )
    queue = Queue(setup.queue, {"connection": setup.redis})
    await queue.addBulk([{"name": "n", "data": {}, "opts": {"priority": n % 2}} for n in range(20)])
    limited = Setup(setup.kafka, setup.redis.replace("://", f"://{user}:secret@"), setup.prefix, setup.queue)
    async with running(run, limited.settings()):
        await setup.events(40 + 20)
        await queue.pause()
        await setup.events(40 + 20 + 21)
    await queue.close()
    await db.execute_command("ACL", "DELUSER", user)


async def test_at_least_once_delivers_everything(setup, db):
    await write(db, setup, range(50))
    async with running(run, setup.settings(snapshot=False, delivery="at_least_once")):
        await setup.events(200)
    await write(db, setup, range(50, 60))
    async with running(run, setup.settings(snapshot=False, delivery="at_least_once")):
        events = await setup.events(240)
    assert [e["stream_id"] for e in sorted(events, key=order)] == await stream_ids(db, setup)


async def test_entries_only(setup, db):
    await write(db, setup, range(5))
    async with running(run, setup.settings(snapshot=False, enrich=False)):
        events = await setup.events(20)
    assert not any(event["enriched"] or event["job"] for event in events)


async def test_start_at_the_end(setup, db):
    await write(db, setup, range(5))
    async with running(run, setup.settings(snapshot=False, start="end")):
        await setup.read(topology.CHECKPOINTS, enough=bool)
        await write(db, setup, range(5, 8))
        events = await setup.events(12)
    assert [e["stream_id"] for e in sorted(events, key=order)] == (await stream_ids(db, setup))[20:]


async def test_a_queue_that_appears_while_running_is_read(setup, db):
    async with running(run, setup.settings()):
        await asyncio.sleep(1)
        await db.hset(f"bull:{setup.queue}:x:meta", "version", "bullmq:6.7.0")
        await write(db, setup, range(5))
        events = await setup.events(20)
    assert {event["queue"] for event in events} == {setup.queue}


class Skews:
    """What is said of clocks."""

    def __init__(self) -> None:
        self.said: dict[str, float] = {}

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        pass

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        if name == "clock_skew_seconds":
            self.said[labels["between"]] = value


@pytest.mark.errors_expected
async def test_a_queue_is_heard_of_at_once_and_how_far_redis_clock_is_ahead(setup, db, monkeypatch):
    await write(db, setup, range(3))
    skews = Skews()
    monkeypatch.setattr("streams.bridge.source.wall_ms", lambda: wall_ms() - 3_600_000)
    begun = time.monotonic()
    async with running(run, setup.settings(), metrics=skews):
        (heartbeat, *_) = await setup.health("heartbeat", enough=lambda found: len(found) >= 1)
    assert time.monotonic() - begun < 9
    assert heartbeat["counts"].keys() >= {"wait", "active"}
    assert skews.said == {"redis-bridge/default": pytest.approx(3_600, abs=2)}


async def test_a_queue_that_is_gone_is_forgotten_everywhere(setup, db):
    """Names come and go: neither a series nor a heartbeat is left of one."""
    metrics = telemetry.Metrics("bridge")
    await write(db, setup, range(3))
    async with running(run, setup.settings(), metrics=metrics):
        await setup.health("heartbeat", enough=lambda found: len(found) >= 1)
        assert setup.queue in metrics.render().decode()
        await db.delete(*[name async for name in db.scan_iter(match=f"bull:{setup.queue}:*")])
        for _ in range(100):
            if setup.queue not in metrics.render().decode():
                break
            await asyncio.sleep(0.1)
        assert setup.queue not in metrics.render().decode()
        heartbeats = len(await setup.health("heartbeat", enough=lambda found: len(found) >= 1))
        await write(db, setup, range(3, 6))
        found = await setup.health("heartbeat", enough=lambda found: len(found) > heartbeats)
    assert [beat["counts"]["wait"] for beat in found[heartbeats:]] == [0]
    assert setup.queue in metrics.render().decode()


async def test_a_stream_deleted_as_obliterate_does_is_a_reset_and_reading_goes_on(setup, db):
    async with running(run, setup.settings(snapshot=False)):
        await write(db, setup, range(5))
        await setup.events(20)
        await db.delete(*[name async for name in db.scan_iter(key(setup, "*"))])
        await write(db, setup, range(2))
        events = await setup.events(28)
        health = await setup.read(topology.HEALTH, enough=lambda r: any(b'"gap"' in each.value for each in r))
    assert [e["stream_id"] for e in sorted(events, key=order)][20:] == await stream_ids(db, setup)
    gaps = [value for value in (wire.loads(record.value) for record in health) if value["type"] == "gap"]
    assert [(gap["cause"], gap["lost"]) for gap in gaps] == [("reset", None)]


def test_places_are_those_of_the_contract():
    assert set(bullmq.PLACES) == set(bullmq.LISTS) | set(bullmq.ZSETS)
