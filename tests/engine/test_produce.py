from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.producer import sender
from aiokafka.producer.transaction_manager import TransactionManager

from streams.engine import produce
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
    assert sends[-1].future.result().offset + last == 100
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


async def test_a_record_that_is_larger_than_a_batch_goes_alone():
    """aiokafka's builder takes the first record whatever its size: the guard is against its no longer doing so."""
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    small, large = outputs(2), outputs(1, size=5_000)
    await produce.send(producer, [small[0], large[0], small[1]], sends)
    assert [sent.size_bytes > 1_000 for sent in sends] == [False, True, False]
    assert [len(value or b"") for *_, value in producer.pending] == [10, 5_000, 10]


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), RecordListTooLargeError()])
async def test_a_refusal_for_its_size_says_what_was_refused(error):
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    await produce.send(producer, outputs(1), sends)
    producer.failures["batch"] = [error]
    await produce.send(producer, outputs(1, topic="other", size=5_000), sends)
    with pytest.raises(produce.BatchRefusedError, match="other refuses a batch of") as caught:
        await produce.settle(sends, producer)
    assert (caught.value.topic, caught.value.size_bytes) == ("other", sends[1].size_bytes)


async def test_after_a_refusal_records_are_numbered_on_from_what_was_taken():
    """Three batches to one partition, of which the second is refused, and the third with it; one to another."""
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    producer.limit_bytes = 1_500
    sizes = [100, 5_000, 100]
    batches = [(*outputs(1, size=size)[0][:3], b"v" * size, [], 1) for size in sizes]
    await produce.send(producer, [*batches, *outputs(3, topic="other")], sends)
    assert len(sends) == 4
    with pytest.raises(produce.BatchRefusedError):
        await produce.settle(sends, producer)
    assert dict(producer._sequence_numbers) == {("out", 0): 1, ("other", 0): 3}
    again = futures()
    await produce.send(producer, [*outputs(2), *outputs(2, topic="other")], again)
    await produce.settle(again, producer)


async def test_numbers_wrap_around_as_aiokafkas_do():
    producer, sends = FakeProducer(), futures()
    where = TopicPartition("out", 0)
    producer._sequence_numbers[where] = producer._expected[where] = 2**31 - 2
    await produce.send(producer, outputs(5), sends)
    manager = TransactionManager("id", 1_000)
    manager._sequence_numbers[where] = 2**31 - 2
    manager.increment_sequence_number(where, 5)
    produce._number_on(producer, sends, set())
    assert producer._sequence_numbers[where] == manager.sequence_number(where)


async def test_a_batch_grows_as_far_as_it_was_last_told():
    producer = AIOKafkaProducer(bootstrap_servers="nowhere:1", max_batch_size=50_000)
    produce.resize(producer, 1_000)
    batch = producer.create_batch()
    while batch.append(key=b"k", value=b"v" * 90, timestamp=1):
        pass
    assert 800 < batch.size() <= 1_000
    await producer.stop()


async def test_every_send_is_looked_at():
    producer, sends = FakeProducer(batch_bytes=1_000), futures()
    producer.failures["batch"] = [KafkaTimeoutError()]
    await produce.send(producer, outputs(100, size=100), sends)
    with pytest.raises(KafkaTimeoutError):
        await produce.settle(sends, producer)
    assert all(sent.future.done() for sent in sends)


async def test_settled_sends_raise_nothing():
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    await produce.settle([produce.Sent(TopicPartition("out", 0), 1, 10, 0, future)], FakeProducer())


def test_aiokafka_waits_2_ms_between_transactions():
    assert sender.BACKOFF_OVERRIDE == 0.002
