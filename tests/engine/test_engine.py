"""The engine on fakes: nothing is applied before the commit, and everything once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, ProducerFenced

from streams.engine.tx import Unwritable
from streams.wire import loads
from tests.engine.counting import Counting
from tests.engine.fakes import TOPICS, Bench, events_tp, record, until


async def test_a_batch_is_one_transaction_and_then_applied(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.submit(record(0), record(1), record(2))
    await bench.settled()
    assert bench.producer.calls == ["begin", "send", "send", "offsets", "commit"]
    assert bench.producer.offsets == {(TOPICS.events, 0): 3}
    assert bench.producer.numbers() == [1, 2, 3]
    assert loads(bench.store.parts[0][b"k"]) == {"count": 3, "sum": 3, "last": 2}
    assert bench.store.offsets == {0: 0}
    assert bench.stream.acked == [2]
    assert bench.app.consumer._committed_offset == {events_tp(): 3}
    assert bench.handler.committed == 3


async def test_the_table_does_not_change_before_the_commit(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.gate = asyncio.Event()
    bench.submit(record(0))
    await asyncio.sleep(0.02)
    assert "offsets" in bench.producer.calls
    assert bench.store.parts[0] == {}
    assert bench.stream.acked == []
    bench.producer.gate.set()
    await bench.settled()
    assert bench.store.parts[0].keys() == {b"k"}


@pytest.mark.parametrize("step", ["send", "batch", "offsets", "begin"])
async def test_a_failed_transaction_is_aborted_and_folded_again_once(monkeypatch, step):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    each = 2 if step == "batch" else 1  # two batches go out in each attempt
    bench.producer.failures[step] = [KafkaTimeoutError() for _ in range(2 * each)]
    bench.submit(record(0), record(1))
    await bench.settled()
    assert bench.producer.calls.count("abort") == 2
    assert bench.producer.numbers() == [1, 2]
    assert loads(bench.store.parts[0][b"k"])["count"] == 2
    assert bench.stream.acked == [1]
    assert bench.engine.stats.aborted == 2
    assert bench.app.crashes == []


async def test_aiokafka_would_commit_without_a_failed_batch_so_nobody_commits(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.failures["batch"] = [KafkaTimeoutError()]
    bench.submit(record(0))
    await bench.settled()
    calls = bench.producer.calls
    assert calls.index("abort") < calls.index("offsets") < calls.index("commit")


async def test_after_five_attempts_it_goes_on_under_a_new_assignment(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.failures["send"] = [KafkaTimeoutError() for _ in range(5)]
    bench.submit(record(0))
    await bench.settled()
    assert bench.store.parts[0] == {}
    assert bench.stream.acked == []
    await bench.app.consumer.asked.wait()
    await bench.engine.revoke()
    await bench.assign(0, generation=2)
    bench.submit(record(0), generation=2)
    await bench.settled()
    assert len(bench.producers) == 2
    assert bench.stream.acked
    assert bench.app.crashes == []


async def test_at_least_once_a_producer_is_replaced_with_its_assignment_too(monkeypatch):
    bench = Bench(monkeypatch, exactly_once=False)
    await bench.assign(0)
    bench.producer.failures["send"] = [KafkaTimeoutError() for _ in range(5)]
    bench.submit(record(0))
    await bench.settled()
    assert bench.app.crashes == []
    await until(lambda: bench.app.consumer.rejoined == 1)


@pytest.mark.parametrize("step", ["begin", "batch", "offsets", "commit"])
async def test_a_fenced_producer_applies_and_acknowledges_nothing(monkeypatch, step):
    monkeypatch.setattr("streams.engine.engine.REBALANCE_GRACE_S", 0.0)
    bench = Bench(monkeypatch, session_timeout_s=0.02)
    await bench.assign(0)
    bench.producer.failures[step] = [ProducerFenced()]
    bench.submit(record(0))
    await bench.settled()
    assert bench.store.parts[0] == {}
    assert bench.stream.acked == []
    assert bench.producer.visible == []
    assert bench.app.crashes == []
    async with asyncio.timeout(2):  # no rebalance came: one is asked for
        await bench.app.consumer.asked.wait()
    assert bench.app.crashes == []


async def test_fenced_and_rebalanced_is_no_crash(monkeypatch):
    monkeypatch.setattr("streams.engine.engine.REBALANCE_GRACE_S", 0.0)
    bench = Bench(monkeypatch, session_timeout_s=0.02)
    await bench.assign(0)
    bench.producer.failures["commit"] = [ProducerFenced()]
    bench.submit(record(0))
    await bench.settled()
    await bench.engine.revoke()
    await bench.assign(0, generation=2)
    await asyncio.sleep(0.05)
    assert bench.app.crashes == []
    assert bench.app.consumer.rejoined == 0


async def test_a_lost_producer_is_given_up_at_once(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.fatal = True
    bench.producer.failures["batch"] = [KafkaError()]
    bench.submit(record(0))
    await bench.settled()
    assert "abort" not in bench.producer.calls
    bench.app.broker.kafka = False
    await asyncio.sleep(0.01)
    assert bench.app.consumer.rejoined == 0, "without Kafka there is nobody to ask"
    bench.app.broker.kafka = True
    await bench.app.consumer.asked.wait()
    assert bench.app.crashes == []


async def test_a_commit_nobody_can_tell_about_is_not_tried_again(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.failures["commit"] = [KafkaTimeoutError()]
    bench.submit(record(0))
    await bench.settled()
    await bench.app.consumer.asked.wait()
    assert bench.app.crashes == []
    assert bench.producer.calls.count("begin") == 1
    assert bench.store.parts[0] == {}


class Greedy(Counting):
    """Makes too large a row of number 1, too large an output of 2, a row JSON cannot say of 3."""

    def on_record(self, tx: Any, record: Any) -> None:
        number = loads(record.value)["number"]
        super().on_record(tx, record)
        if number == 1:
            tx.put(b"big", {"x": "y" * 2_000})
        elif number == 2:
            tx.emit(TOPICS.out, record.key, b"y" * 2_000)
        elif number == 3:
            tx.put(b"odd", {"x": "\ud800"})


async def test_what_cannot_be_written_is_set_aside_alone(monkeypatch):
    bench = Bench(monkeypatch, Greedy(TOPICS), max_record_bytes=1_000)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(5)])
    await bench.settled()
    assert loads(bench.store.parts[0][b"k"]) == {"count": 2, "sum": 4, "last": 4}
    assert bench.store.parts[0].keys() == {b"k"}
    out = [value for topic, *_, value in bench.producer.visible if topic == TOPICS.out]
    assert out[1:4] == [b"too_large", b"too_large", b"not_encodable"]
    assert bench.stream.acked == [4]
    assert bench.app.crashes == []


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), Unwritable("too_large", TOPICS.out, b"k", 1)])
async def test_what_shows_only_when_it_is_sent_is_looked_for_in_the_next_attempt(monkeypatch, error):
    class Headed(Counting):
        def on_record(self, tx: Any, record: Any) -> None:
            tx.emit(TOPICS.out, record.key, b"v", [("h", b"x" * 10_000)])

    bench = Bench(monkeypatch, Headed(TOPICS), max_record_bytes=10_000)
    await bench.assign(0)
    bench.producer.failures["batch"] = [error]
    bench.submit(record(0))
    await bench.settled()
    assert bench.producer.calls.count("abort") == 1
    assert [value for *_, value in bench.producer.visible] == [b"too_large"]
    assert bench.app.crashes == []


async def test_an_unwritable_tick_is_set_aside_too(monkeypatch):
    class Ticker(Counting):
        def on_tick(self, tx: Any, _now_ms: int) -> None:
            tx.put(b"big", {"x": "y" * 2_000})

    bench = Bench(monkeypatch, Ticker(TOPICS), max_record_bytes=1_000)
    await bench.assign(0)
    bench.engine.tick(1)
    await bench.settled()
    assert [value for *_, value in bench.producer.visible] == [b"too_large"]


async def test_ticks_do_not_pile_up_and_an_idle_one_makes_no_transaction(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    for now_ms in range(10):
        bench.engine.tick(now_ms)
    assert len(bench.engine.parts[0].queue) == 1
    await bench.settled()
    assert bench.producer.calls == []
    assert bench.engine.parts[0].tick_queued is False


async def test_a_tick_and_a_batch_share_a_transaction(monkeypatch):
    bench = Bench(monkeypatch, Counting(TOPICS, ticks=1))
    await bench.assign(0)
    bench.submit(record(0))
    bench.engine.tick(7)
    await bench.settled()
    assert bench.producer.calls.count("commit") == 1
    assert loads(bench.store.parts[0][b"tick-0"]) == {"ticks": 1, "at": 7}


async def test_no_tick_before_the_recovery(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.engine.assign({events_tp()}, 1)
    bench.engine.tick(1)
    assert not bench.engine.parts[0].queue
    assert not bench.engine.recovered_all
    await bench.engine.recovered({0})
    assert bench.engine.recovered_all
    assert bench.handler.rows == {0: 0}


async def test_a_fetch_of_an_earlier_assignment_is_forgotten(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0, generation=2)
    bench.submit(record(0), generation=1)
    bench.submit(record(5), generation=2, partition=1)
    assert bench.app.consumer.forgotten == [0, 5]
    assert bench.stream.acked == []


async def test_revoke_ends_what_is_in_flight_and_forgets_the_queue(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    producer = bench.producer
    producer.gate = asyncio.Event()
    bench.submit(record(0))
    await asyncio.sleep(0.02)
    bench.submit(record(1))
    revoking = asyncio.create_task(bench.engine.revoke())
    await asyncio.sleep(0.02)
    producer.gate.set()
    await revoking
    assert producer.numbers() == [1]
    assert bench.stream.acked == [0]
    assert bench.app.consumer.forgotten == [1]
    assert producer.calls[-1] == "stop"
    assert bench.engine.parts == {}
    assert bench.handler.rows == {}


async def test_revoke_is_bounded(monkeypatch):
    bench = Bench(monkeypatch, finish_timeout_s=0.05)
    await bench.assign(0)
    bench.producer.gate = asyncio.Event()
    bench.submit(record(0))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        await bench.engine.revoke()
    assert bench.app.consumer.forgotten == [0]
    assert bench.store.parts[0] == {}


async def test_a_producer_that_does_not_close_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("streams.engine.engine.CLOSE_TIMEOUT_S", 0.02)
    bench = Bench(monkeypatch)
    await bench.assign(0, 1)
    monkeypatch.setattr(bench.producers[0], "stop", asyncio.Event().wait)
    bench.producers[1].failures["stop"] = [KafkaError()]
    async with asyncio.timeout(1):
        await bench.engine.revoke()


async def test_every_assignment_has_producers_of_its_own(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    await bench.engine.revoke()
    await bench.assign(0, generation=2)
    assert len(bench.producers) == 2
    assert bench.producers[0].calls == ["stop"]


async def test_a_full_partition_is_taken_out_of_the_fetch_and_put_back(monkeypatch):
    bench = Bench(monkeypatch, max_queued=4, max_records=2)
    await bench.assign(0)
    bench.submit(record(0), record(1), record(2))
    assert bench.app.consumer.full == set()
    bench.submit(record(3), record(4))
    assert bench.app.consumer.full == {events_tp()}
    await bench.settled()
    assert bench.app.consumer.full == set()
    assert bench.producer.calls.count("commit") == 2


async def test_linger_is_the_least_time_between_two_transactions(monkeypatch):
    bench = Bench(monkeypatch, linger_s=0.1)
    await bench.assign(0)
    bench.submit(record(0))
    await bench.settled()
    bench.submit(record(1))
    bench.submit(record(2))
    await asyncio.sleep(0.03)
    assert bench.producer.calls.count("commit") == 1
    await bench.settled()
    assert bench.producer.calls.count("commit") == 2


async def test_the_handler_is_told_of_times_and_counts(monkeypatch):
    class Told(Counting):
        def on_committed(self, *arguments: Any) -> None:
            self.info = arguments[-1]

    told = Told(TOPICS)
    bench = Bench(monkeypatch, told)
    await bench.assign(0)
    bench.submit(record(0), record(1))
    await bench.settled()
    info = told.info
    assert (info.events, info.rows, info.outputs, info.attempts) == (2, 1, 2, 1)
    assert (info.oldest_ms, info.newest_ms) == (1_000, 1_001)
    assert info.seconds > 0
    assert [one.offset for fetch in info.fetches for one in fetch] == [0, 1]


class TestAtLeastOnce:
    async def test_outputs_and_rows_go_out_and_the_offset_follows_with_the_ack(self, monkeypatch):
        bench = Bench(monkeypatch, exactly_once=False)
        await bench.assign(0, 1)
        bench.submit(record(0))
        await bench.settled()
        assert bench.producers[0].calls == ["send", "send"]
        assert bench.stream.acked == [0]
        assert bench.store.offsets == {0: 0}

    async def test_a_failure_is_tried_again_and_acknowledged_after_that(self, monkeypatch):
        bench = Bench(monkeypatch, exactly_once=False)
        await bench.assign(0)
        bench.producer.failures["batch"] = [KafkaTimeoutError()]
        bench.submit(record(0))
        await bench.settled()
        assert bench.stream.acked == [0]
        assert loads(bench.store.parts[0][b"k"])["count"] == 1

    async def test_a_producer_lives_for_one_assignment_here_too(self, monkeypatch):
        bench = Bench(monkeypatch, exactly_once=False)
        await bench.assign(0)
        await bench.engine.revoke()
        await bench.assign(0, generation=2)
        assert [producer.calls for producer in bench.producers] == [["stop"], []]
        bench.app.should_stop = True
        await bench.engine.stop()
        assert bench.producer.calls == ["stop"]

    async def test_a_refused_batch_is_never_sent_again_as_it_was(self, monkeypatch):
        bench = Bench(monkeypatch, exactly_once=False)
        await bench.assign(0)
        bench.producer.limit_bytes = 20_000
        bench.submit(*[record(number, b"%d" % number + b"k" * 500) for number in range(100)])
        await bench.settled()
        assert len(set(bench.producer.refused)) == len(bench.producer.refused) > 0
        assert len(bench.store.parts[0]) == 100
        assert bench.stream.acked == [99]
