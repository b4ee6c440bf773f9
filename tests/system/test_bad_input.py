"""What nobody should send, between what everybody sends: set aside with origin and reason, and nothing stops."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer
from bullmq import Queue

from streams.core.job import job_key, partition_of
from streams.topology import full_name
from tests.core.build import entry, job, look
from tests.system.oracle import read_all, rows_of
from tests.system.support import Line, until

pytestmark = pytest.mark.system

PARTITIONS = 2
LARGEST_BYTES = 1_040_000
"""Nearly what a broker takes at most by default: 1 MiB with all that the record format adds."""


class Bad(NamedTuple):
    """A record of `events`, and the reason that it is to be set aside for."""

    reason: str
    key: bytes | None
    value: bytes | None


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {other: item for other, item in value.items() if other != name}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


NOW_MS = time.time_ns() // 1_000_000
"""The good jobs are of today: rows of older ones are gone within a second."""
KEY = job_key("s", "q", "bad").encode()
ENTRY = entry("active", 5_000, job(processed_on=5_000), job_id="bad")
LOOK = look("active", 5_000, job(), job_id="bad")
BEYOND_64_BITS = 10**20
WRONG_IN_AN_ENTRY: list[dict[str, Any]] = [
    {"fields": None}, {"fields": []}, {"fields": {"prev": 1}},
    {"stream_id": 5}, {"stream_id": "5"}, {"stream_id": "5-0-0"}, {"stream_id": "9" * 21 + "-0"},
]  # fmt: skip
WRONG_IN_A_HASH: list[dict[str, Any]] = [
    {"attempts_made": "1"}, {"timestamp": 1.5}, {"opts": []}, {"stacktrace": {}}, {"name": 5}, {"failed_reason": []},
    {"finished_on": BEYOND_64_BITS},
]  # fmt: skip
WRONG_IN_A_LOOK: list[dict[str, Any]] = [
    {"where": ["active"]}, {"lock_ttl_ms": "5"}, {"due_at": {}}, {"found": 1}, {"observed_at": -1},
]  # fmt: skip
BAD = [
    Bad("not_json", KEY, None),
    Bad("not_json", KEY, b""),
    Bad("not_json", KEY, b"{"),
    Bad("not_json", KEY, b"\xff\xfe\x00"),
    Bad("not_json", KEY, raw({**ENTRY, "job": None}).replace(b"null", b"NaN")),
    Bad("not_json", KEY, b"[" * 100_000),
    Bad("not_json", None, b"x" * LARGEST_BYTES),
    Bad("not_json", b"k" * 300_000, b"x" * 700_000),
    Bad("not_json", b"k" * LARGEST_BYTES, b"x"),
    *[Bad("not_object", KEY, value) for value in (b"[]", b"null", b'"text"', b"1", raw(nested(900)))],
    *[Bad("missing_field", KEY, raw(without(ENTRY, name))) for name in ("source", "job_id", "event", "fields")],
    *[Bad("missing_field", KEY, raw(without(LOOK, name))) for name in ("observed_at", "found", "stream_id")],
    *[Bad("wrong_type", KEY, raw({**ENTRY, **wrong})) for wrong in WRONG_IN_AN_ENTRY],
    *[Bad("wrong_type", KEY, raw({**ENTRY, "job": {**job(), **wrong}})) for wrong in WRONG_IN_A_HASH],
    *[Bad("wrong_type", KEY, raw({**LOOK, **wrong})) for wrong in WRONG_IN_A_LOOK],
    Bad("wrong_type", KEY, raw({**ENTRY, "stream_id": "99999999999999999999-0"})),
    *[Bad("bad_key", key, raw(ENTRY)) for key in (None, b"", b"s/q/other", b"\xff\xff", b"k" * 100_000)],
]  # fmt: skip
STRANGE = [
    (job_key("s", "q", "large").encode(), raw(entry("active", NOW_MS, job(data="x" * 1_000_000), job_id="large"))),
    # Nothing to complain about, and no row of theirs is expected.
    (job_key("s", "q", "").encode(), raw(entry("paused", 5_000, job_id="", unknown={"a": [1]}))),
    (job_key("s", "q", "far").encode(), raw(entry("active", 10**17, job_id="far"))),
    (
        job_key("s", "q", "deep").encode(),
        raw(entry("completed", NOW_MS, job_id="deep", fields={"returnvalue": "[" * 50_000})),
    ),
]


@pytest.fixture
async def line(kafka, redis_server, prefix, topics, tmp_path):
    line = Line(
        kafka, redis_server, prefix, tmp_path,
        BULLMQ_STREAMS_KAFKA__PARTITIONS=str(PARTITIONS),
        BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES=json.dumps([f"{prefix}*"]),
    )  # fmt: skip
    await topics(PARTITIONS)
    yield line
    line.stop_all()


async def dead_letters(line: Line) -> list[Any]:
    return await read_all(line.bootstrap, full_name(line.prefix, "dead-letters"))


async def rows(line: Line) -> dict[str, Any]:
    return await rows_of(line.bootstrap, line.prefix)


def headers_of(record: Any) -> dict[str, str]:
    return {name: text.decode() for name, text in record.headers}


class TestForgedEvents:
    def good(self, number: int, event: str, ms: int, **more: Any) -> tuple[bytes, bytes]:
        value = entry(event, ms, job(**more), job_id=f"good-{number}", fields={"returnvalue": str(number)})
        return job_key("s", "q", value["job_id"]).encode(), raw(value)

    async def produce(self, line: Line) -> list[Any]:
        """On each partition every bad record between two of one good job; gives where the bad ones stand."""
        producer = AIOKafkaProducer(bootstrap_servers=line.bootstrap, max_request_size=2_000_000)
        await producer.start()
        topic, found = full_name(line.prefix, "events"), []
        try:
            for number, bad in enumerate([*BAD, *STRANGE]):
                key, value = self.good(number, "active", NOW_MS, processed_on=NOW_MS)
                partition = partition_of(key, PARTITIONS)
                await producer.send(topic, value, key, partition)
                sent = await producer.send_and_wait(topic, bad[-1], bad[-2], partition)
                if isinstance(bad, Bad):
                    found.append((bad, sent))
                key, value = self.good(number, "completed", NOW_MS + 1, processed_on=NOW_MS, finished_on=NOW_MS + 1)
                await producer.send(topic, value, key, partition)
        finally:
            await producer.stop()
        return found

    async def test_each_is_set_aside_and_the_others_are_folded(self, line):
        sent = await self.produce(line)
        worker = line.start("worker")

        wanted = {job_key("s", "q", f"good-{number}") for number in range(len(BAD) + len(STRANGE))}
        missing: set[str] = set()

        async def all_folded() -> bool:
            assert worker.poll() is None, line.log_text()
            found = await rows(line)
            missing.clear()
            missing.update(key for key in wanted if (found.get(key) or {}).get("state") != "completed")
            return not missing

        try:
            await until(all_folded, 60, "all good jobs completed")
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(missing)}\n{line.log_text()}") from None
        await self.bad_ones_are_set_aside(line, sent)
        await self.rows_are_of_good_jobs(line)
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(35) == 0, line.log_text()

    async def bad_ones_are_set_aside(self, line: Line, sent: list[Any]) -> None:
        letters = {}
        for letter in await dead_letters(line):
            headers = headers_of(letter)
            assert headers["dlq_topic"] == full_name(line.prefix, "events")
            letters[int(headers["dlq_partition"]), int(headers["dlq_offset"])] = letter, headers
        assert letters.keys() == {(at.partition, at.offset) for _, at in sent}
        for bad, at in sent:
            self.is_letter_of(bad, *letters[at.partition, at.offset])

    def is_letter_of(self, bad: Bad, letter: Any, headers: dict[str, str]) -> None:
        assert headers["dlq_reason"] == bad.reason, (bad.key and bad.key[:50], bad.value and bad.value[:200], headers)
        assert headers["dlq_error"]
        assert int(headers["dlq_at"]) > 0
        assert (letter.key, letter.value) == (bad.key, bad.value)
        assert "dlq_length" not in headers

    async def rows_are_of_good_jobs(self, line: Line) -> None:
        found = await rows(line)
        numbers = range(len(BAD) + len(STRANGE))
        strange = {job_key("s", "q", job_id) for job_id in ("far", "deep", "large")}
        assert set(found) == {job_key("s", "q", f"good-{number}") for number in numbers} | strange
        for number in numbers:
            row = found[job_key("s", "q", f"good-{number}")]
            assert (row["state"], row["return_value"], row["seq"]) == ("completed", number, 2)
        assert found[job_key("s", "q", "far")]["since"] == 10**17
        assert found[job_key("s", "q", "deep")]["return_value"] == "[" * 50_000
        assert found[job_key("s", "q", "large")]["data"] == "x" * 1_000_000


class TestLargeJobs:
    @pytest.fixture
    async def queue(self, line, prefix):
        queue = Queue(prefix, {"connection": line.redis_url})
        line.start("bridge")
        line.start("worker")
        yield queue
        await queue.close()

    async def row(self, line: Line, queue: Queue, job_id: str, **wanted: Any) -> dict[str, Any]:
        """The job's row, once it has these values."""
        key = job_key("default", queue.name, job_id)

        async def there() -> dict[str, Any] | None:
            assert all(process.poll() is None for process in line.processes), line.log_text()
            row: dict[str, Any] = (await rows(line)).get(key) or {}
            return row if row and all(row[name] == value for name, value in wanted.items()) else None

        found: dict[str, Any] = await until(there, 60, f"{job_id} with {wanted}")
        return found

    async def too_large(self, line: Line, count: int) -> list[Any]:
        async def there() -> list[Any] | None:
            found = [letter for letter in await dead_letters(line) if letter.value is not None]
            return found if len(found) >= count else None

        found: list[Any] = await until(there, 60, f"{count} dead letters")
        assert {headers_of(letter)["dlq_reason"] for letter in found} == {"too_large"}
        return found

    async def test_a_job_whose_data_kafka_cannot_take(self, line, queue):
        large = await queue.add("large", {"text": "x" * 1_200_000})
        small = await queue.add("small", {"n": 1})
        row = await self.row(line, queue, large.id, state="waiting")
        assert (row["data"], row["enriched"]) == (None, False)
        assert (await self.row(line, queue, small.id, state="waiting"))["data"] == {"n": 1}
        letter = (await self.too_large(line, 1))[0]
        headers = headers_of(letter)
        assert letter.key.decode() == job_key("default", queue.name, large.id)
        assert headers["dlq_stream"] == f"bull:{queue.name}:events"
        assert headers["dlq_stream_id"]
        assert json.loads(letter.value)["jobId"] == large.id

    async def test_a_job_whose_row_grows_too_large_goes_on_without_its_data(self, line, queue):
        """Data and progress fit into records of their own, and not into one row."""
        large = await queue.add("large", {"text": "x" * 850_000})
        await self.row(line, queue, large.id, state="waiting")
        await large.updateProgress({"text": "y" * 250_000})
        row = await self.row(line, queue, large.id, progress={"text": "y" * 250_000})
        assert row["data"] is None
        assert "data" in row["estimated"]
        assert await dead_letters(line) == []
        await large.updateProgress(50)
        await self.row(line, queue, large.id, progress=50)
        await queue.remove(large.id)

        async def gone() -> bool:
            return (await rows(line))[job_key("default", queue.name, large.id)] is None

        await until(gone, 60, "a tombstone")
