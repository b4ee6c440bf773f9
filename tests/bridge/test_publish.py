"""Which of two bridges with one id goes on: the one that started last, whatever error the other meets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IncompatibleBrokerVersion, ProducerFenced, UnknownError

from streams import topology
from streams.bridge import fence, publish
from streams.bridge.checkpoint import Checkpoint, key_of
from streams.bridge.encode import Record
from streams.bridge.fence import Holder, holder
from streams.bridge.outage import Outage
from streams.bridge.publish import Chunk, FencedError, Publisher

from .support import Setup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.system


@pytest.fixture
async def setup(kafka: str, prefix: str) -> Setup:
    setup = Setup(kafka, "redis://127.0.0.1:1/0", prefix, "q")
    await setup.make_topics()
    return setup


@pytest.fixture
async def publisher(setup: Setup) -> AsyncIterator[Publisher]:
    publisher = Publisher(setup.settings(), Outage())
    await publisher.start()
    yield publisher
    await publisher.close()


def chunk(number: int) -> Chunk:
    key = key_of("bridge", "default", "q")
    record = Record(topology.HEALTH, 0, b"k", b"%d" % number, number, [])
    return Chunk([record], {key: Checkpoint("default", "q", f"{number}-0", number, "r", False, "done", number)})


async def newer(setup: Setup) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(bootstrap_servers=setup.kafka, transactional_id=f"{setup.prefix}.bridge")
    await producer.start()
    return producer


async def unknown(*_: Any) -> None:
    """What the broker answers to an end of transaction that meets a takeover half way."""
    raise UnknownError


async def test_an_unknown_error_after_a_takeover_leaves_the_newer_one_in_place(setup, publisher, monkeypatch):
    await publisher._publish(chunk(1))
    others = []

    async def taken_over() -> None:
        others.append(await newer(setup))
        raise UnknownError

    monkeypatch.setattr(publisher._producer, "commit_transaction", taken_over)
    with pytest.raises(FencedError):
        await publisher._publish(chunk(2))
    (other,) = others
    await other.begin_transaction()
    await other.send_and_wait(topology.full_name(setup.prefix, topology.HEALTH), b"of the newer", partition=0)
    await other.commit_transaction()
    records = await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 2)
    assert [record.value for record in records] == [b"1", b"of the newer"]
    await other.stop()


async def test_an_unknown_error_without_a_takeover_is_tried_again_and_written_once(setup, publisher, monkeypatch):
    monkeypatch.setattr(publisher._producer, "commit_transaction", unknown)
    await publisher._publish(chunk(1))
    await publisher._publish(chunk(2))
    records = await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 2)
    assert [record.value for record in records] == [b"1", b"2"]


async def test_a_transaction_that_the_broker_ended_itself_is_no_takeover(setup, monkeypatch):
    """A broker or a bridge that stood still for longer than the transaction's timeout: the end of it is refused."""
    monkeypatch.setattr(publish, "_TRANSACTION_TIMEOUT_S", 2.0)
    publisher = Publisher(setup.settings(), Outage())
    await publisher.start()
    commit, ends = publisher._producer.commit_transaction, []

    async def once_it_is_ended() -> None:
        held = publisher._held
        assert held is not None
        for _ in range(150):
            now = await holder(publisher._producer.client, f"{setup.prefix}.bridge")
            if now is None or now[:2] != held[:2]:
                break
            await asyncio.sleep(0.2)
        try:
            await commit()
        except Exception as error:
            ends.append(type(error))
            raise

    monkeypatch.setattr(publisher._producer, "commit_transaction", once_it_is_ended)
    await publisher._publish(chunk(1))
    await publisher.close()
    assert ends == [ProducerFenced]
    assert len(await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 1)) == 1


async def test_a_bridge_that_stood_still_while_another_took_over_ends_and_leaves_it_in_place(setup, monkeypatch):
    """Its transaction has expired, which looks the same to it."""
    monkeypatch.setattr(publish, "_TRANSACTION_TIMEOUT_S", 1.0)
    publisher = Publisher(setup.settings(), Outage())
    await publisher.start()
    commit, others = publisher._producer.commit_transaction, []

    async def too_late() -> None:
        await asyncio.sleep(1.2)
        others.append(await newer(setup))
        await commit()

    monkeypatch.setattr(publisher._producer, "commit_transaction", too_late)
    with pytest.raises(FencedError):
        await publisher._publish(chunk(1))
    (other,) = others
    await other.begin_transaction()
    await other.send_and_wait(topology.full_name(setup.prefix, topology.HEALTH), b"of the newer", partition=0)
    await other.commit_transaction()
    records = await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 1)
    assert [record.value for record in records] == [b"of the newer"]
    await other.stop()


@pytest.mark.parametrize(
    ("now", "taken"),
    [
        (Holder(7, 3, "Empty"), False),
        (Holder(7, 3, "Ongoing"), False),
        (Holder(7, 4, "CompleteAbort"), False),
        (Holder(7, 4, "PrepareAbort"), False),
        (Holder(7, 4, "PrepareEpochFence"), False),
        (Holder(7, 4, "Empty"), True),
        (Holder(7, 4, "Ongoing"), True),
        (Holder(7, 5, "CompleteAbort"), True),
        (Holder(8, 0, "CompleteAbort"), True),
    ],
)
def test_what_the_broker_ended_itself_is_told_from_a_takeover(now, taken):
    assert now.took_over_from(Holder(7, 3, "Ongoing")) is taken


async def test_a_start_that_failed_half_way_is_not_taken_for_a_takeover(setup, publisher, monkeypatch):
    """The broker counts the epoch up for it, and nobody else is there."""
    failures = iter([UnknownError])
    start = AIOKafkaProducer.start

    async def starts_and_fails(self):
        await start(self)
        for error in failures:
            raise error

    monkeypatch.setattr(AIOKafkaProducer, "start", starts_and_fails)
    monkeypatch.setattr(publisher._producer, "commit_transaction", unknown)
    await publisher._publish(chunk(1))
    assert list(failures) == []
    assert len(await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 1)) == 1


async def test_each_that_opens_the_id_is_another_holder(setup):
    first = await newer(setup)
    before = await holder(first.client, f"{setup.prefix}.bridge")
    second = await newer(setup)
    after = await holder(first.client, f"{setup.prefix}.bridge")
    assert before is not None
    assert after == Holder(before.producer_id, before.epoch + 1, "Empty")
    assert await holder(second.client, f"{setup.prefix}.nobody") is None
    await first.stop()
    await second.stop()


async def test_a_broker_that_cannot_say_who_is_believed_to_have_no_other(setup, publisher, monkeypatch):
    """Kafka before 3.0."""

    class Unknown:
        def __init__(self, *_: Any) -> None:
            raise IncompatibleBrokerVersion

    monkeypatch.setattr(fence, "_DescribeTransactions", Unknown)
    assert await holder(publisher._producer.client, f"{setup.prefix}.bridge") is None
    monkeypatch.setattr(publisher._producer, "commit_transaction", unknown)
    await publisher._publish(chunk(1))
    assert len(await setup.read(topology.HEALTH, enough=lambda r: len(r) >= 1)) == 1
