"""Whatever anybody with a login to Redis writes costs one queue, one entry, one job: the queue beside never notices."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from streams import topology, wire
from streams.bridge.outage import Outage
from streams.bridge.run import run
from streams.core.job import escape, job_key, partition_of
from streams.settings import Bridge, Kafka, Settings, Source
from tests.bridge.support import PARTITIONS, Setup, running
from tests.docs.test_schemas import validator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.system

HOSTILE, HEALTHY = "aaa", "zzz"
"""The hostile one comes first in every list that is sorted."""


@dataclass
class Counted:
    """What the bridge says in its metrics."""

    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        key = (name, *labels.values())
        self.values[key] = self.values.get(key, 0) + amount

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        self.values[name, *labels.values()] = value


@dataclass
class Scene:
    """Two queues under a BullMQ prefix of their own, and what the bridge makes of them."""

    setup: Setup
    db: Any
    prefix: str
    jobs: int = 0
    counted: Counted = field(default_factory=Counted)
    outage: Outage = field(default_factory=Outage)

    def key(self, name: str, queue: str = HOSTILE) -> str:
        return f"{self.prefix}:{queue}:{name}"

    def settings(self, url: str | None = None, **bridge: Any) -> Settings:
        source = Source(url=SecretStr(url or self.setup.redis), prefix=self.prefix, discover_interval_s=0.2)
        kafka = Kafka(bootstrap_servers=self.setup.kafka, topic_prefix=self.setup.prefix, partitions=PARTITIONS)
        return Settings(kafka=kafka, sources={"default": source}, bridge=Bridge(**bridge))

    async def job(self, queue: str = HEALTHY) -> str:
        """A job added, as BullMQ does; its id."""
        self.jobs += 1
        name = f"j{self.jobs}"
        pipe = self.db.pipeline()
        pipe.hset(self.key("meta", queue), "version", "bullmq:6.7.0")
        pipe.hset(self.key(name, queue), mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"})
        pipe.xadd(self.key("events", queue), {"event": "added", "jobId": name, "name": "n"})
        pipe.lpush(self.key("wait", queue), name)
        pipe.xadd(self.key("events", queue), {"event": "waiting", "jobId": name})
        await pipe.execute()
        return name

    async def flows(self, queue: str = HEALTHY) -> None:
        """A job added now comes through."""
        job_id = await self.job(queue)

        def there(records: list[Any]) -> bool:
            keys = [record.key for record in records]
            return keys.count(job_key("default", queue, job_id).encode()) >= 2

        for record in await self.setup.read(topology.EVENTS, enough=there, timeout_s=15):
            value = wire.loads(record.value)
            validator("Entry" if value["kind"] == "entry" else "Observation", closed=True).validate(value)

    async def told(self, status: str, queue: str = HOSTILE) -> dict[str, Any]:
        """The record on health that says so, once it is there; one is enough, and there are no more."""

        def told(records: list[Any]) -> list[dict[str, Any]]:
            values = [wire.loads(record.value) for record in records]
            mine = [value for value in values if value["type"] == "refused" and value["queue"] == queue]
            return [value for value in mine if value["status"] == status]

        records = await self.setup.read(topology.HEALTH, enough=lambda r: bool(told(r)), timeout_s=15)
        (value,) = told(records)
        return value

    def refused(self, reason: str) -> float:
        return self.counted.values.get(("bridge_queues_refused", "default", reason), 0)


@pytest.fixture
async def scene(kafka: str, redis_server: str, prefix: str) -> AsyncIterator[Scene]:
    setup = Setup(kafka, redis_server, prefix, "*")
    await setup.make_topics()
    db = redis.asyncio.from_url(redis_server)
    yield Scene(setup, db, f"b{prefix}")
    await db.aclose()


# -- queues -----------------------------------------------------------------------------------------------------

Act = "Callable[[Scene], Awaitable[Any]]"


async def meta_is_text(scene: Scene) -> None:
    await scene.db.set(scene.key("meta"), "1")


async def meta_is_a_list(scene: Scene) -> None:
    await scene.db.delete(scene.key("meta"))
    await scene.db.rpush(scene.key("meta"), "1")


async def mend_meta(scene: Scene) -> None:
    await scene.db.delete(scene.key("meta"))
    await scene.db.hset(scene.key("meta"), "version", "bullmq:6.7.0")


async def _events_become(scene: Scene, make: Callable[[str], Awaitable[Any]]) -> None:
    await scene.db.hset(scene.key("meta"), "version", "bullmq:6.7.0")
    await scene.db.delete(scene.key("events"))
    await make(scene.key("events"))


async def events_are_text(scene: Scene) -> None:
    await _events_become(scene, lambda key: scene.db.set(key, "x"))


async def events_are_a_list(scene: Scene) -> None:
    await _events_become(scene, lambda key: scene.db.rpush(key, "x"))


async def events_are_a_hash(scene: Scene) -> None:
    await _events_become(scene, lambda key: scene.db.hset(key, "x", "y"))


async def events_are_a_sorted_set(scene: Scene) -> None:
    await _events_become(scene, lambda key: scene.db.zadd(key, {"x": 1}))


async def mend_events(scene: Scene) -> None:
    await scene.db.delete(scene.key("events"))


QUEUES = [
    (meta_is_text, mend_meta),
    (meta_is_a_list, mend_meta),
    (events_are_text, mend_events),
    (events_are_a_list, mend_events),
    (events_are_a_hash, mend_events),
    (events_are_a_sorted_set, mend_events),
]


@pytest.mark.parametrize("running_already", [False, True])
@pytest.mark.parametrize(("spoil", "mend"), QUEUES)
async def test_a_queue_of_another_type_is_passed_over_and_read_once_it_is_mended(scene, spoil, mend, running_already):
    if not running_already:
        await spoil(scene)
    async with running(run, scene.settings(), metrics=scene.counted, outage=scene.outage):
        if running_already:
            await scene.flows(HOSTILE)
            await spoil(scene)
        await scene.flows()
        told = await scene.told("refused")
        assert told["reason"] == "wrong_type"
        assert scene.refused("wrong_type") == 1
        assert scene.outage.missing == []
        await scene.flows()
        await mend(scene)
        await scene.told("readmitted")
        await scene.flows(HOSTILE)
        assert scene.refused("wrong_type") == 0


async def test_what_was_read_before_a_stream_was_spoilt_is_published(scene):
    async with running(run, scene.settings()):
        await scene.flows(HOSTILE)
        job_id = await scene.job(HOSTILE)
        await asyncio.sleep(0.3)
        await events_are_text(scene)
        await scene.told("refused")
        key = job_key("default", HOSTILE, job_id).encode()
        await scene.setup.read(topology.EVENTS, enough=lambda r: sum(each.key == key for each in r) == 2)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9\xff", "caf\\xe9\\xff"),
        (b"x" * 5000, "x" * 200 + "…"),
    ],
)
async def test_a_name_that_no_record_can_bear_is_refused(scene, name, shown):
    meta = b"%b:%b:meta" % (scene.prefix.encode(), name)
    await scene.db.hset(meta, "version", "bullmq:6.7.0")
    async with running(run, scene.settings(), metrics=scene.counted):
        await scene.flows()
        told = await scene.told("refused", shown)
        assert (told["reason"], scene.refused("bad_name")) == ("bad_name", 1)
        await scene.db.delete(meta)
        await scene.told("readmitted", shown)
        await scene.flows()


@pytest.mark.parametrize("queue", ["a\nb", "a\x00b", "\x1b[31m", "a/b%", "\u2028", "🦄" * 50, "*", "[a", "{x}"])
async def test_strange_names_are_names(scene, queue, caplog):
    async with running(run, scene.settings()):
        await scene.flows(queue)
        await scene.flows()
    assert not [line for line in caplog.messages if not line.isprintable()]


async def test_a_queue_for_which_the_right_is_missing(scene):
    user = f"u-{scene.prefix}"
    patterns = [f"%R~{scene.prefix}:{HEALTHY}:*", f"%R~{scene.prefix}:{HOSTILE}:meta"]
    commands = ["-@all", "+@read", "+@connection", "+@transaction", "+info", "+time", "+scan"]
    await scene.db.acl_setuser(user, reset=True, enabled=True, passwords=["+secret"])
    await scene.db.execute_command("ACL", "SETUSER", user, *patterns, *commands)
    await scene.job(HOSTILE)
    url = scene.setup.redis.replace("://", f"://{user}:secret@")
    async with running(run, scene.settings(url), metrics=scene.counted, outage=scene.outage):
        await scene.flows()
        assert (await scene.told("refused"))["reason"] == "no_permission"
        assert (scene.refused("no_permission"), scene.outage.missing) == (1, [])
        await scene.db.execute_command("ACL", "SETUSER", user, f"%R~{scene.prefix}:*")
        await scene.told("readmitted")
        await scene.flows(HOSTILE)
        await scene.db.execute_command("ACL", "SETUSER", user, "resetkeys", *patterns)
        await scene.job(HOSTILE)
        await scene.flows()
        await asyncio.sleep(1)
        await scene.flows()
        assert (scene.refused("no_permission"), scene.outage.missing) == (1, [])
    await scene.db.execute_command("ACL", "DELUSER", user)


async def test_a_hundred_queues_that_cannot_be_read_do_not_fill_the_log(scene, caplog):
    for n in range(100):
        await scene.db.set(scene.key("meta", f"h{n}"), "1")
    async with running(run, scene.settings(), metrics=scene.counted):
        await scene.flows()
        await asyncio.sleep(2)
        assert scene.refused("wrong_type") == 100
        await scene.flows()
    assert sum("refused" in message for message in caplog.messages) <= 21


# -- places -----------------------------------------------------------------------------------------------------

PLACES = ["wait", "paused", "active", "delayed", "prioritized", "waiting-children", "completed", "failed"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_place_of_another_type_is_not_counted_and_entries_flow(scene, place):
    await scene.db.hset(scene.key("meta"), "paused", "1")
    await scene.db.hset(scene.key("7"), mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"})
    await scene.db.xadd(scene.key("events"), {"event": "active", "jobId": "7"})
    for other in PLACES:
        if other != place and other not in ("wait", "active", "paused"):
            await scene.db.zadd(scene.key(other), {f"x{other}": 1})
    await scene.db.set(scene.key(place), "x")
    async with running(run, scene.settings()):
        await scene.flows()
        await probe(scene, "7")
        await scene.db.xadd(scene.key("events"), {"event": "paused"})
        await scene.flows()
        key = job_key("default", HOSTILE, "7").encode()
        records = await scene.setup.read(topology.EVENTS, enough=lambda r: any(each.key == key for each in r))
        looks = [wire.loads(each.value) for each in records if each.key == key and b'"look"' in each.value]
        assert not [look for look in looks if look["where"] == place or (look["found"] and look["where"] is None)]
        await scene.db.delete(scene.key(place))
        await scene.flows(HOSTILE)


async def probe(scene: Scene, job_id: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=scene.setup.kafka)
    await producer.start()
    key = job_key("default", HOSTILE, job_id).encode()
    value: dict[str, Any] = {"source": "default", "queue": HOSTILE, "job_id": job_id, "reason": "probe"}
    value["asked_at"] = int(time.time() * 1000)
    name = topology.full_name(scene.setup.prefix, topology.PROBES)
    await producer.send_and_wait(name, wire.dumps(value), key=key, partition=partition_of(key, PARTITIONS))
    await producer.stop()


async def look_at(scene: Scene, job_id: str) -> dict[str, Any]:
    """The first look at a job of the hostile queue; asked for until it is answered, as the worker does."""
    key = job_key("default", HOSTILE, job_id).encode()

    def looks(records: list[Any]) -> list[Any]:
        return [each for each in records if each.key == key and b'"kind":"look"' in each.value]

    for _ in range(5):
        await probe(scene, job_id)
        try:
            records = await scene.setup.read(topology.EVENTS, enough=lambda r: bool(looks(r)), timeout_s=4)
        except AssertionError:
            continue
        value: dict[str, Any] = wire.loads(looks(records)[0].value)
        validator("Observation", closed=True).validate(value)
        return value
    pytest.fail(f"nobody looked at {job_id}")


JOB = {"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"}


async def test_a_place_is_what_was_seen(scene):
    """In the list; in none; in a list too long to be searched; an infinite score; ids like BullMQ 4's markers."""
    waiting = ["0:0", "0:1795544600489", *(f"w{n}" for n in range(20))]
    await scene.db.hset(scene.key("meta"), "version", "bullmq:6.7.0")
    for job_id in ("nowhere", "late", "0:tenant:42", "0:7", "w5"):
        await scene.db.hset(scene.key(job_id), mapping=JOB)
    await scene.db.rpush(scene.key("wait"), *waiting, "0:tenant:42", "0:7")
    await scene.db.zadd(scene.key("delayed"), {"late": float("inf")})
    async with running(run, scene.settings()):
        await scene.flows()
        assert (await look_at(scene, "nowhere"))["where"] is None
        assert (await look_at(scene, "w5"))["where"] == "wait"
        late = await look_at(scene, "late")
        assert (late["where"], late["due_at"]) == ("delayed", 2**63 - 1)
        for job_id in ("0:tenant:42", "0:7"):
            assert (await look_at(scene, job_id))["where"] == "wait"
        gone = await look_at(scene, "0:0")
        assert (gone["found"], gone["where"], gone["reason"]) == (False, None, "probe")
        records = await scene.setup.read(topology.EVENTS, enough=bool)
        marker = job_key("default", HOSTILE, "0:1795544600489").encode()
        assert not [each for each in records if each.key == marker]
        await scene.db.rpush(scene.key("wait"), *(f"y{n}" for n in range(3000)))
        await scene.db.hset(scene.key("z"), mapping=JOB)
        await scene.db.linsert(scene.key("wait"), "AFTER", "y1500", "z")
        assert (await look_at(scene, "z"))["where"] == "wait"


# -- entries and hashes -----------------------------------------------------------------------------------------

DEEP = "[" * 300 + "]" * 300
HASHES: dict[str, dict[Any, Any]] = {
    "largest number": {"delay": "1.7976931348623157e+308", "timestamp": "1e20"},
    "number of digits": {"timestamp": "9" * 309, "finishedOn": "9" * 40, "processedOn": "-" + "9" * 40},
    "no numbers": {"timestamp": "soon", "delay": "", "atm": "many", "stc": "x", "priority": "high", "ats": "NaN"},
    "beyond 64 bits": {"priority": str(2**64), "atm": str(2**63), "ats": str(2**70), "delay": str(2**64)},
    "infinite": {"delay": "Infinity", "timestamp": "-inf", "priority": "inf"},
    "deep": {"data": DEEP, "opts": DEEP, "progress": DEEP, "returnvalue": DEEP, "stacktrace": DEEP, "parent": DEEP},
    "deep and no text": {"data": DEEP, "opts": '{"a":' + DEEP + "}", "name": b"\xff"},
    "deeper": {"data": "[" * 5000 + "]" * 5000, "parent": '{"id":"1","a":' * 200 + "1" + "}" * 200},
    "surrogates": {
        "data": r'"\ud800"',
        "name": b"\xed\xa0\x80",
        "opts": r'{"a":"\udfff"}',
        "failedReason": b"\xed\xb0\x80",
    },
    "NUL": {"name": "a\x00b", "data": '"\\u0000"', "failedReason": "\x00"},
    "no UTF-8": {"name": b"\xff\xfe", "data": b'"\xff"', b"\xff\xff": b"\xff", "failedReason": b"\xc3("},
    "no object": {"opts": "[]", "parent": '{"id":7,"queueKey":[]}', "stacktrace": '{"a":1}'},
    "parent of all kinds": {"parent": '{"id":null,"queueKey":7,"queue":{},"id":true}'},
    "long texts": {"failedReason": "é" * 300_000, "stacktrace": wire.dumps(["ü" * 200_000] * 5), "defa": "x" * 99_999},
    "no stacks": {"stacktrace": "x" * 300_000},
    "long number": {"timestamp": "1" * 500_000},
    "too large": {"data": '"' + "x" * 3_000_000 + '"'},
    "larger": {"data": '"' + "x" * 20_000_000 + '"', "returnvalue": '"' + "y" * 3_000_000 + '"'},
    "many fields": {f"f{n}": "x" for n in range(100_000)},
}


@pytest.mark.parametrize("kind", HASHES)
async def test_a_hash_costs_its_job_at_most_and_its_records_are_as_published(scene, kind):
    job = {"name": "n", "data": "{}", "opts": "{}", "timestamp": "1", **HASHES[kind]}
    await scene.db.hset(scene.key("h"), mapping=job)
    for event in ("added", "waiting", "active", "failed"):
        await scene.db.xadd(scene.key("events"), {"event": event, "jobId": "h"})
    await scene.db.zadd(scene.key("failed"), {"h": 1})
    async with running(run, scene.settings()):
        await scene.flows(HOSTILE)  # behind it, and each record is held against its schema
        await scene.flows()
        value = await look_at(scene, "h")
        assert (value["found"], value["where"]) == (True, "failed")
        whole = kind not in ("too large", "larger")
        assert value["enriched"] is whole
        assert value["job"]["name"]
        if not whole:
            assert "job.data" in value["cut"]
        if kind == "long texts":
            texts = [value["job"]["failed_reason"], value["job"]["deferred_failure"], *value["job"]["stacktrace"]]
            assert all(len(text.encode()) <= 65_536 for text in texts)
            assert value["job"]["failed_reason"].endswith("… (600000 bytes)")
            assert [text.endswith("… (400000 bytes)") for text in texts[2:]] == [True] * 5
            assert set(value["cut"]) == {
                "job.failed_reason", "job.deferred_failure", *(f"job.stacktrace[{n}]" for n in range(5))
            }  # fmt: skip


ENTRIES: dict[str, dict[Any, Any]] = {
    "an event of ours": {"event": "observed", "jobId": "e", "found": "true"},
    "no event": {"x": "y"},
    "an empty event": {"event": "", "jobId": "e"},
    "no text": {"event": b"\xff", "jobId": b"\xff", b"\xff": b"\xff"},
    "surrogates and NUL": {"event": "a\x00b", "jobId": "e\n", "x": b"\xed\xa0\x80"},
    "a long id": {"event": "waiting", "jobId": "x" * 2_000_000},
    "a long event": {"event": "x" * 2_000_000, "jobId": "e"},
    "a long field's name": {"event": "active", "jobId": "e", "x" * 2_000_000: "y"},
    "a long error": {"event": "failed", "jobId": "e", "failedReason": "é" * 300_000},
    "many fields": {"event": "completed", "jobId": "e", **{f"f{n}": "x" for n in range(100_000)}},
    "names twice": {"event": "waiting", "jobId": "e", "prev": "x"},
}


@pytest.mark.parametrize("kind", ENTRIES)
async def test_an_entry_costs_itself_at_most(scene, kind):
    for fields in (ENTRIES[kind], ENTRIES[kind]):
        await scene.db.xadd(scene.key("events"), fields)
    async with running(run, scene.settings()):
        await scene.flows(HOSTILE)
        await scene.flows()
        await scene.db.xadd(scene.key("events"), ENTRIES[kind])
        await scene.flows(HOSTILE)
        events = [wire.loads(r.value) for r in await scene.setup.read(topology.EVENTS, enough=bool)]
    if kind == "an event of ours":
        told = [event for event in events if event["event"] == "observed" and event["job_id"] == "e"]
        assert [(event["kind"], event["fields"]) for event in told] == [("entry", {"found": "true"})] * 3
    if kind == "a long error":
        told = [event for event in events if event["job_id"] == "e"]
        assert [event["cut"] for event in told] == [["fields.failedReason"]] * 3
        assert all(event["fields"]["failedReason"].endswith("… (600000 bytes)") for event in told)


async def test_an_entry_that_fits_nowhere_but_among_the_dead_letters_is_there_whole(scene):
    large = {"event": "completed", "jobId": "e", "returnvalue": "x" * 1_000_000}
    await scene.db.xadd(scene.key("events"), large)
    await scene.db.xadd(scene.key("events"), {**large, "returnvalue": '"' * 600_000})
    async with running(run, scene.settings()):
        await scene.flows(HOSTILE)
        key = job_key("default", HOSTILE, "e").encode()
        events = await scene.setup.read(topology.EVENTS, enough=lambda r: sum(each.key == key for each in r) == 2)
        first, second = [wire.loads(each.value) for each in events if each.key == key]
        assert first["fields"]["returnvalue"] == large["returnvalue"]
        assert second["fields"] == {}


async def test_attempts_used_up_are_told_with_the_failure(scene):
    async with running(run, scene.settings()):
        pipe = scene.db.pipeline()
        pipe.hset(scene.key("meta"), "version", "bullmq:6.7.0")
        for n, made in enumerate(("3", "x")):
            pipe.xadd(scene.key("events"), {"event": "failed", "jobId": f"f{n}", "failedReason": "boom"})
            pipe.xadd(scene.key("events"), {"event": "retries-exhausted", "jobId": f"f{n}", "attemptsMade": made})
        pipe.xadd(scene.key("events"), {"event": "failed", "jobId": "f2", "failedReason": "boom"})
        await pipe.execute()
        await scene.flows(HOSTILE)
        events = [wire.loads(r.value) for r in await scene.setup.read(topology.EVENTS, enough=bool)]
    told = {event["job_id"]: event.get("exhausted") for event in events if event["event"] == "failed"}
    assert told == {"f0": 3, "f1": None, "f2": None}


def test_names_of_this_file_sort_as_they_say():
    assert escape(HOSTILE) < escape(HEALTHY)
