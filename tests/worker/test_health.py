"""What a worker takes from `health`: on a real broker, and out of records that are none of ours."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from streams.wire import dumps
from streams.worker.comparisons import KEPT_MS, Comparisons
from streams.worker.health import Follower
from tests.engine.fakes import until
from tests.worker.build import settings
from tests.worker.test_comparisons import snapshot

PARTITIONS = 2


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"5", b"{}", dumps({"type": "snapshot"})])
def test_a_strange_record_is_passed_over_by_each_listener(value):
    heard = []

    def fails(record):
        heard.append(record)
        raise KeyError("type")

    Follower(settings(), Comparisons(), [fails, heard.append]).take(value)
    assert len(heard) in (0, 2)


@pytest.mark.system
@pytest.mark.parametrize("ahead_ms", [0, 3_600_000])
async def test_the_last_minutes_are_read_again_and_the_end_of_events_is_that_after_the_comparison(
    kafka, prefix, topics, monkeypatch, ahead_ms
):
    """Also by a worker whose clock is an hour ahead."""
    monkeypatch.setattr("streams.worker.health.wall_ms", lambda: int(time.time() * 1000) + ahead_ms)
    names = await topics(PARTITIONS)
    found = settings(KAFKA__BOOTSTRAP_SERVERS=kafka, KAFKA__TOPIC_PREFIX=prefix, KAFKA__PARTITIONS=str(PARTITIONS))
    heard: list[Any] = []
    now_ms, comparisons = int(time.time() * 1000), Comparisons()
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        old = dumps({"type": "heartbeat", "source": "s", "queue": "q", "at": 0})
        await producer.send_and_wait(names["health"], old, timestamp_ms=now_ms - KEPT_MS - 60_000)
        for number in range(3):
            await producer.send_and_wait(names["events"], b"{}", partition=number % PARTITIONS)
        await producer.send_and_wait(names["health"], dumps(snapshot("started", at=now_ms)))
        following = asyncio.create_task(Follower(found, comparisons, [heard.append]).follow())
        await until(lambda: heard, 20)
        await producer.send_and_wait(names["health"], dumps(snapshot("finished", at=now_ms)))
        await until(lambda: list(comparisons.due(0)), 20)
        (comparison,) = comparisons.due(1)
        assert comparison.ends == {0: 2, 1: 1}
        assert [record["type"] for record in heard] == ["snapshot", "snapshot"]
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
