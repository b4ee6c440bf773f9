from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.producer import sender

from streams.engine import produce
from streams.engine.tx import Unwritable
from tests.engine.fakes import FakeProducer


def futures() -> produce.Sends:
    return []


def outputs(count, topic="out", partition=0, size=10):
    return [(topic, partition, b"%d" % number, b"v" * size, [], 1) for number in range(count)]


async def test_many_records_are_one_batch():
    producer, sends = FakeProducer(), futures()
    assert await produce.send(producer, outputs(1_000), sends) == 1_000
    assert len(sends) == 1
    assert [key for *_, key, _ in producer.pending] == [b"%d" % number for number in range(1_000)]


async def test_a_full_batch_is_sent_and_the_order_kept():
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    last = await produce.send(producer, outputs(100, size=100), sends)
    assert len(sends) > 10
    assert last is not None
    assert sends[-1].result().offset + last == 100
    assert [key for *_, key, _ in producer.pending] == [b"%d" % number for number in range(100)]


async def test_topics_and_partitions_have_batches_of_their_own():
    producer, sends = FakeProducer(), futures()
    await produce.send(producer, [*outputs(2, "a"), *outputs(2, "b"), *outputs(2, "a", 1), *outputs(1, "a")], sends)
    assert len(sends) == 3
    assert sorted({(topic, partition) for topic, partition, *_ in producer.pending}) == [("a", 0), ("a", 1), ("b", 0)]


async def test_nothing_is_no_batch():
    producer, sends = FakeProducer(), futures()
    assert await produce.send(producer, [], sends) is None
    assert sends == []


class Refusing(FakeProducer):
    def create_batch(self) -> Any:
        return SimpleNamespace(append=lambda **_: None, close=lambda: None, records=[])


async def test_a_record_that_fits_no_batch_is_unwritable():
    with pytest.raises(Unwritable, match="out: a record of 10 bytes is too_large"):
        await produce.send(Refusing(), outputs(1), [])


async def test_every_send_is_looked_at():
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    producer.failures["batch"] = [KafkaTimeoutError()]
    await produce.send(producer, outputs(100, size=100), sends)
    with pytest.raises(KafkaTimeoutError):
        await produce.settle(sends)
    assert all(future.done() for future in sends)


async def test_settled_sends_raise_nothing():
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    await produce.settle([future])


def test_aiokafka_waits_2_ms_between_transactions():
    assert sender.BACKOFF_OVERRIDE == 0.002
