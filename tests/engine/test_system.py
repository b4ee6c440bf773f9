"""The engine on a real Kafka: counts stay exact through kills, aborts, broker loss and storms."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError, ProducerFenced

from streams.engine import build, produce
from streams.engine.tx import Row, Tx
from streams.wire import loads
from tests.engine import cluster, storm
from tests.engine.counting import Counting, Topics, options
from tests.engine.fakes import until

pytestmark = [
    pytest.mark.system,
    # Faust leaves loops and sockets of its threads to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
async def prefix(kafka):
    name = f"engine-{uuid.uuid4().hex[:8]}"
    await cluster.create(kafka, name)
    return name


@pytest.fixture
async def workers(kafka, prefix, tmp_path):
    made: list[storm.Workers] = []

    def make(**changes: Any) -> storm.Workers:
        made.append(storm.Workers(kafka, prefix, changes, tmp_path))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


def log(workers: storm.Workers, number: int) -> str:
    return (workers.logs / f"worker-{number}.log").read_text()


async def until_log(workers: storm.Workers, number: int, text: str, timeout_s: float = 30) -> None:
    await until(lambda: text in log(workers, number), timeout_s)


@pytest.mark.parametrize("max_batch_bytes", [6 << 20, 5_000])
async def test_counts_are_exact_through_kill_9_in_mid_load(kafka, prefix, workers, max_batch_bytes):
    """Also where nearly every transaction ends in the middle of a fetch."""
    load, group = cluster.Load(prefix), workers(linger_s=0.0, max_batch_bytes=max_batch_bytes)
    await group.start()
    await until_log(group, 1, "STARTED")
    sending = asyncio.create_task(load.send(kafka, 30_000, 6_000))
    for number in (2, 3):
        await asyncio.sleep(1.5)
        await group.restart(0, signal.SIGKILL)
        await until_log(group, number, "assigned partitions")
    await sending
    await cluster.drained(kafka, prefix, 60)
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict


async def test_a_terminated_worker_ends_with_0_and_its_offsets_are_complete(kafka, prefix, workers):
    load, group = cluster.Load(prefix), workers()
    await group.start()
    await until_log(group, 1, "STARTED")
    await load.send(kafka, 5_000)
    await cluster.drained(kafka, prefix, 30)
    await group.stop()
    group.running.clear()
    assert group.bad_exits == []
    assert json.loads(_result(log(group, 1)))["code"] == 0
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict
    assert verdict.transitions == 5_000


def _result(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith('{"code"'))


async def test_a_producer_that_is_fenced_by_nobody_of_the_group_costs_no_process(kafka, prefix, workers):
    """As after a stall beyond the transaction's timeout, or an id that the broker forgot."""
    load, group = cluster.Load(prefix), workers(linger_s=0.0, session_timeout_s=6.0)
    await group.start()
    await until_log(group, 1, "STARTED")
    await load.send(kafka, 2_000)
    await cluster.drained(kafka, prefix, 30)
    thief = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{prefix}-0")
    await thief.start()
    await thief.stop()
    await load.send(kafka, 3_000)
    await until_log(group, 1, "asking the group for a new assignment", 40)
    await cluster.drained(kafka, prefix, 60)
    assert group.bad_exits == []
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict
    assert verdict.transitions == 5_000


async def test_at_least_once_skips_nothing(kafka, prefix, workers):
    load, group = cluster.Load(prefix), workers(exactly_once=False, linger_s=0.0)
    await group.start()
    await until_log(group, 1, "STARTED")
    sending = asyncio.create_task(load.send(kafka, 20_000, 5_000))
    await asyncio.sleep(1.5)
    await group.restart(0, signal.SIGKILL)
    await asyncio.sleep(1.5)
    await group.restart(0, signal.SIGTERM)
    await sending
    await cluster.drained(kafka, prefix, 60)
    verdict = await cluster.judge(kafka, load)
    assert verdict.complete, verdict


async def test_missing_topics_are_waited_for_without_a_crash(kafka, tmp_path):
    prefix = f"engine-{uuid.uuid4().hex[:8]}"
    group = storm.Workers(kafka, prefix, {}, tmp_path)
    await group.start()
    await until_log(group, 1, "topics are missing")
    await cluster.create(kafka, prefix)
    await until_log(group, 1, "STARTED")
    await group.stop()
    assert group.bad_exits == []
    assert log(group, 1).count("topics are missing") == 1


async def test_an_unreachable_kafka_is_waited_for_and_a_signal_ends_it(tmp_path):
    group = storm.Workers("127.0.0.1:1", "nobody", {}, tmp_path)
    await group.start()
    await until_log(group, 1, "Kafka does not answer")
    await asyncio.sleep(2)
    await group.stop()
    assert group.bad_exits == []
    assert log(group, 1).count("Kafka does not answer") == 1
    assert len(log(group, 1).splitlines()) < 20


@pytest.mark.parametrize("seed", [1])
async def test_a_short_storm(kafka, tmp_path, seed):
    plan = storm.Plan(seed, restarts=6, events_per_s=3_000)
    verdict, bad_exits = await storm.storm(kafka, plan, tmp_path)
    assert verdict.exact, verdict
    assert bad_exits == []


@pytest.mark.slow
async def test_a_worker_that_slept_through_its_session_changes_nothing_when_it_wakes(kafka, prefix, workers):
    load, group = cluster.Load(prefix), workers(linger_s=0.0)
    for number in (1, 2):
        await group.start()
        await until_log(group, number, "STARTED")
    sending = asyncio.create_task(load.send(kafka, 60_000, 3_000))
    await asyncio.sleep(2)
    group.running[0].send_signal(signal.SIGSTOP)
    await asyncio.sleep(16)  # longer than the session, so the other one takes over
    group.running[0].send_signal(signal.SIGCONT)
    await sending
    await cluster.drained(kafka, prefix, 60)
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict


async def own_broker(folder: Any) -> Any:
    """One that a test may kill."""
    from streams.local import stack  # noqa: PLC0415 - only where the shared broker will not do

    return (await asyncio.to_thread(stack.up, folder / "broker", redis=False)).kafka


@pytest.mark.slow
async def test_a_broker_that_dies_and_comes_back_costs_no_event(tmp_path):
    """Away for longer than the transaction timeout, it has fenced the producers: the worker ends and is restarted."""
    broker, prefix = await own_broker(tmp_path), f"engine-{uuid.uuid4().hex[:8]}"
    await cluster.create(broker.bootstrap, prefix)
    load, group = cluster.Load(prefix), storm.Workers(broker.bootstrap, prefix, {"linger_s": 0.0}, tmp_path)
    try:
        await group.start()
        await until_log(group, 1, "STARTED")
        supervising = asyncio.create_task(group.supervise())
        sending = asyncio.create_task(load.send(broker.bootstrap, 30_000, 3_000))
        await asyncio.sleep(3)
        await asyncio.to_thread(broker.process.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(broker.start)
        await sending
        await cluster.drained(broker.bootstrap, prefix, 90)
        supervising.cancel()
        verdict = await cluster.judge(broker.bootstrap, load)
        assert verdict.exact, verdict
    finally:
        await group.stop()
        await asyncio.to_thread(broker.process.stop)
    assert group.bad_exits == []


@pytest.mark.slow
async def test_with_the_broker_gone_a_signal_still_ends_it_with_0(tmp_path):
    broker, prefix = await own_broker(tmp_path), f"engine-{uuid.uuid4().hex[:8]}"
    await cluster.create(broker.bootstrap, prefix)
    load, group = cluster.Load(prefix), storm.Workers(broker.bootstrap, prefix, {"linger_s": 0.0}, tmp_path)
    await group.start()
    await until_log(group, 1, "STARTED")
    sending = asyncio.create_task(load.send(broker.bootstrap, 30_000, 3_000))
    await asyncio.sleep(3)
    await asyncio.to_thread(broker.process.kill)
    sending.cancel()
    async with asyncio.timeout(30):
        await group.stop()
    assert group.bad_exits == []


# -- in this process, so that failures can be put where they hurt


class Running:
    """An app of this process, started; stopped at the end."""

    def __init__(self, kafka: str, prefix: str, handler: Any = None, **changes: Any) -> None:
        self.handler = handler or Counting(Topics.of(prefix))
        self.app = build(options(kafka, prefix, **changes), self.handler)

    async def __aenter__(self) -> Self:
        await asyncio.wait_for(self.app.start(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        done, _late = await asyncio.wait([asyncio.ensure_future(self.app.stop())], timeout=30)
        assert done


async def test_aborted_between_sends_and_commit_the_batch_is_folded_again_and_exact(kafka, prefix, monkeypatch):
    load, failures = cluster.Load(prefix), iter(range(4))
    stock = AIOKafkaProducer.send_offsets_to_transaction

    async def failing(self: Any, offsets: Any, group: str) -> None:
        if next(failures, None) is not None:
            raise KafkaTimeoutError("made by the test")
        await stock(self, offsets, group)

    monkeypatch.setattr(AIOKafkaProducer, "send_offsets_to_transaction", failing)
    async with Running(kafka, prefix) as running:
        await load.send(kafka, 10_000)
        await cluster.drained(kafka, prefix, 60)
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict
    assert verdict.aborted > 0
    assert running.app.engine.stats.aborted == 4


async def test_records_a_dropped_fetch_took_are_read_again_though_nothing_was_committed(kafka, prefix):
    load = cluster.Load(prefix)
    async with Running(kafka, prefix) as running:
        consumer = running.app.consumer
        consumer.sought.clear()  # as at a rebalance
        await asyncio.sleep(0.5)
        await load.send(kafka, 500)
        tps = frozenset(part.tp for part in running.app.engine.parts.values())
        assert await consumer._getmany(tps, 5.0)  # dropped
        await consumer.perform_seek()
        await cluster.drained(kafka, prefix, 30)
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict


async def test_a_second_owner_fences_the_first_and_nothing_of_that_is_applied(kafka, prefix):
    load = cluster.Load(prefix)
    async with Running(kafka, prefix) as running:
        engine = running.app.engine
        await load.send(kafka, 2_000)
        await cluster.drained(kafka, prefix, 30)
        task = engine.parts[0].task
        assert task is not None
        usurper = await produce.start_producer(engine.options, 0)
        try:
            before, offset = dict(engine.store.parts[0]), engine.store.offsets[0]
            await load.send(kafka, 2_000)
            async with asyncio.timeout(20):
                await task
            assert engine.parts[0].closing
            assert (engine.store.parts[0], engine.store.offsets[0]) == (before, offset)
        finally:
            await usurper.stop()


async def test_an_open_transaction_of_a_dead_owner_is_ended_by_the_next(kafka, prefix):
    topics, settings = Topics.of(prefix), options(kafka, prefix)
    dead = await produce.start_producer(settings, 0)
    await dead.begin_transaction()
    await dead.send_and_wait(topics.table, b"{}", b"never", partition=0)
    tp = TopicPartition(topics.table, 0)
    heir = await produce.start_producer(settings, 0)
    reader = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    await reader.start()
    try:
        assert (await reader.end_offsets([tp]))[tp] == 2  # the record and its abort marker: it is final
        with pytest.raises(ProducerFenced):
            await dead.commit_transaction()
    finally:
        await reader.stop()
        await heir.stop()
        await dead.stop()


class Greedy(Counting):
    """Event 1 makes too large a row, 2 too large an output, 3 one with too large a header."""

    def on_record(self, tx: Tx, record: Any) -> None:
        number = loads(record.value)["number"]
        if number == 1:
            tx.put(record.key, {"x": "y" * 2_000_000})
        elif number == 2:
            tx.emit(self.topics.out, record.key, b"y" * 2_000_000)
        elif number == 3:
            tx.emit(self.topics.out, record.key, b"y", [("h", b"y" * 2_000_000)])
        else:
            super().on_record(tx, record)


@pytest.mark.parametrize("exactly_once", [True, False])
async def test_what_kafka_cannot_take_is_set_aside_and_the_rest_goes_on(kafka, prefix, exactly_once):
    load, topics = cluster.Load(prefix, keys=1), Topics.of(prefix)
    async with Running(kafka, prefix, Greedy(topics), exactly_once=exactly_once):
        await load.send(kafka, 20)
        await cluster.drained(kafka, prefix, 30)
    values = [record.value for record in await cluster.read(kafka, topics.out)]
    assert values.count(b"too_large") == 3
    assert [json.loads(value)["n"] for value in values if value != b"too_large"] == list(range(1, 18))
    (row,) = [json.loads(record.value) for record in await cluster.read(kafka, topics.table)][-1:]
    assert row["count"] == 17


async def test_ticks_write_in_the_same_transactions(kafka, prefix):
    load = cluster.Load(prefix)
    async with Running(kafka, prefix, Counting(Topics.of(prefix), ticks=5)) as running:
        sending = asyncio.create_task(load.send(kafka, 5_000, 2_500))
        for now_ms in range(40):
            running.app.engine.tick(now_ms)
            await asyncio.sleep(0.06)
        await sending
        await cluster.drained(kafka, prefix, 30)
    verdict = await cluster.judge(kafka, load)
    assert verdict.exact, verdict
    rows = {record.key: json.loads(record.value) for record in await cluster.read(kafka, Topics.of(prefix).table)}
    assert [rows[b"tick-%d" % number]["ticks"] for number in range(cluster.PARTITIONS)] == [5] * cluster.PARTITIONS


async def test_rows_come_back_after_a_restart_tombstones_too(kafka, prefix):
    class Deleting(Counting):
        def on_record(self, tx: Tx, record: Any) -> None:
            super().on_record(tx, record)
            if record.key.endswith(b"7"):
                tx.put(record.key, None)

        def on_committed(self, partition: int, staged: dict[bytes, Row | None], batch: Any) -> None:
            super().on_committed(partition, staged, batch)

    load = cluster.Load(prefix, keys=200)
    async with Running(kafka, prefix, Deleting(Topics.of(prefix))) as running:
        await load.send(kafka, 2_000)
        await cluster.drained(kafka, prefix, 30)
        first = {number: dict(rows) for number, rows in running.app.engine.store.parts.items() if rows}
    async with Running(kafka, prefix) as running:
        second = {number: dict(rows) for number, rows in running.app.engine.store.parts.items() if rows}
        assert running.app.readiness().missing == ["kafka", "topics"]  # nobody asked the broker here
        assert running.app.engine.recovered_all
        assert running.handler.rows == {number: len(second.get(number, {})) for number in range(cluster.PARTITIONS)}
    assert second == first
    assert sum(map(len, first.values())) == 180
