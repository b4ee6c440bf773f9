"""Topics that take less than Kafka's default, from the start or from one moment to the next: the worker goes on."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.core.job import job_key, partition_of
from streams.topology import full_name
from tests.core.build import entry, job
from tests.system.oracle import read_all, rows_of
from tests.system.support import Line, until

pytestmark = pytest.mark.system

PARTITIONS = 2
SMALL = 262_144
NOW_MS = time.time_ns() // 1_000_000
"""Rows of old jobs are gone within a second."""


@pytest.fixture
async def line(kafka, redis_server, prefix, topics, tmp_path):
    line = Line(kafka, redis_server, prefix, tmp_path, BULLMQ_STREAMS_KAFKA__PARTITIONS=str(PARTITIONS))
    await topics(PARTITIONS)
    yield line
    line.stop_all()


async def limit(line: Line, size_bytes: int, *topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=line.bootstrap)
    await admin.start()
    try:
        for topic in topics:
            config = {"max.message.bytes": str(size_bytes)}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, full_name(line.prefix, topic), config)])
    finally:
        await admin.close()


async def send(line: Line, *values: Any) -> None:
    """Events, or raw records for partition 0; of any size that the topic takes."""
    producer = AIOKafkaProducer(bootstrap_servers=line.bootstrap, max_request_size=9_000_000, acks="all")
    await producer.start()
    try:
        for value in values:
            key = b"raw" if isinstance(value, bytes) else job_key("s", "q", value["job_id"]).encode()
            partition = 0 if isinstance(value, bytes) else partition_of(key, PARTITIONS)
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            await producer.send_and_wait(full_name(line.prefix, "events"), raw, key, partition)
    finally:
        await producer.stop()


def life(job_id: str, size_bytes: int) -> list[Any]:
    more = {"data": "x" * size_bytes}
    return [
        entry("active", NOW_MS, job(**more, processed_on=NOW_MS, attempts_started=1), job_id=job_id),
        entry("failed", NOW_MS + 1, job(**more, finished_on=NOW_MS + 1), fields={"failedReason": "no"}, job_id=job_id),
    ]


async def failed_row(line: Line, job_id: str) -> Any:
    key = job_key("s", "q", job_id)

    async def there() -> Any:
        assert all(process.poll() is None for process in line.processes), line.log_text()
        row = (await rows_of(line.bootstrap, line.prefix)).get(key)
        return row if row and row["state"] == "failed" else None

    try:
        return await until(there, 60, f"{job_id} has failed")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{line.log_text()}") from None


async def dead_letters(line: Line) -> list[Any]:
    return await read_all(line.bootstrap, full_name(line.prefix, "dead-letters"))


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("when", ["at the start", "while it runs"])
async def test_topics_that_take_256_kb(line, when, delivery):
    line.env["BULLMQ_STREAMS_DELIVERY"] = delivery
    small = ("status", "alerts", "transitions", "dead-letters")
    if when == "at the start":
        await limit(line, SMALL, *small)
    line.start("worker")
    await send(line, *life("before", 100))
    await failed_row(line, "before")
    if when == "while it runs":
        await limit(line, SMALL, *small)
        await asyncio.sleep(1)
    await send(line, *life("large", 300_000), b"no json" + b"x" * 300_000, *life("after", 200_000))
    large, after = await failed_row(line, "large"), await failed_row(line, "after")
    assert large["data"] is None
    assert "data" in large["estimated"]
    assert len(after["data"]) == 200_000
    (letter,) = await dead_letters(line)
    headers = {name: text.decode() for name, text in letter.headers}
    assert (headers["dlq_reason"], headers["dlq_length"]) == ("not_json", "300007")
    assert SMALL - 1_000 < len(letter.value) < SMALL
    alerts = [json.loads(record.value) for record in await read_all(line.bootstrap, full_name(line.prefix, "alerts"))]
    assert {alert["job"]["id"] for alert in alerts} == {"before", "large", "after"}


async def test_topics_that_take_more_get_it(line):
    await limit(line, 6_000_000, "events", "status", "alerts", "dead-letters")
    line.start("worker")
    await send(line, *life("small", 10), b"no json" + b"x" * 4_000_000, *life("large", 3_000_000), *life("last", 10))
    assert len((await failed_row(line, "large"))["data"]) == 3_000_000
    await failed_row(line, "last")
    (letter,) = await dead_letters(line)
    assert len(letter.value) == 4_000_007
