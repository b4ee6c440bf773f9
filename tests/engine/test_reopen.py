"""A transactional id that the broker has forgotten: a new producer, and the partition only as it was left."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerIdMapping, KafkaError

from streams.engine.reopen import Overtaken, check_untouched
from streams.local import ready
from streams.local.kafka import Kafka
from streams.wire import loads
from tests.engine import cluster, storm
from tests.engine.counting import Topics, options
from tests.engine.fakes import Bench, events_tp, record, until

EXPIRY_MS = 3_000
FORGETFUL = {
    "transactional.id.expiration.ms": str(EXPIRY_MS),
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}


def dropped() -> KafkaError:
    """As aiokafka fails a batch of such a transaction."""
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = InvalidProducerIdMapping()
    return error


def untouched(monkeypatch: Any, error: Exception | None = None) -> list[tuple[int, int, int]]:
    """The arguments that the check was asked with."""
    asked: list[tuple[int, int, int]] = []

    async def check(_: Any, partition: int, committed: int, row_offset: int) -> None:
        asked.append((partition, committed, row_offset))
        if error:
            raise error

    monkeypatch.setattr("streams.engine.reopen.check_untouched", check)
    return asked


@pytest.mark.errors_expected
async def test_a_producer_that_the_broker_has_forgotten_is_replaced_and_the_batch_folded_again(monkeypatch):
    asked = untouched(monkeypatch)
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.engine.open(1, {events_tp(): 3})
    bench.submit(record(3))
    await bench.settled()
    first = bench.producer
    first.fatal = True
    first.failures["batch"] = [dropped()]
    bench.submit(record(4))
    await bench.settled()
    assert bench.app.crashes == []
    assert bench.producer is not first
    assert first.calls[-1] == "stop"
    assert "abort" not in first.calls
    assert bench.producer.numbers() == [2]
    assert asked == [(0, 4, 0)], "the offset and the row of the last commit"
    assert loads(bench.store.parts[0][b"k"])["count"] == 2
    assert bench.stream.acked == [3, 4]


@pytest.mark.errors_expected
async def test_where_another_owner_has_written_meanwhile_the_process_ends(monkeypatch):
    untouched(monkeypatch, Overtaken("rows that are not ours"))
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.fatal = True
    bench.producer.failures["batch"] = [dropped()]
    bench.submit(record(0))
    await bench.settled()
    assert isinstance(bench.app.crashes[0], Overtaken)
    assert bench.store.parts[0] == {}
    assert bench.producer.visible == []
    await bench.engine.revoke()
    assert [producer.calls[-1] for producer in bench.producers] == ["stop", "stop"]


@pytest.mark.system
class TestOnABroker:
    """What the check sees, and a whole worker."""

    @pytest.fixture
    async def prefix(self, kafka):
        name = f"engine-{uuid.uuid4().hex[:8]}"
        await cluster.create(kafka, name, 1)
        return name

    async def write(self, kafka: str, prefix: str, *keys: bytes, offset: int | None, commit: bool) -> None:
        """Rows and the group's offset as an owner of the partition writes them."""
        topics = Topics.of(prefix)
        producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{prefix}-0")
        await producer.start()
        try:
            await producer.begin_transaction()
            for key in keys:
                await producer.send_and_wait(topics.table, b"{}", key, 0)
            if offset is not None:
                await producer.send_offsets_to_transaction({TopicPartition(topics.events, 0): offset}, prefix)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
        finally:
            await producer.stop()

    async def test_a_partition_that_nobody_touched_passes(self, kafka, prefix):
        found = options(kafka, prefix)
        await check_untouched(found, 0, 0, -1)
        await self.write(kafka, prefix, b"a", b"b", offset=7, commit=True)
        await check_untouched(found, 0, 7, 1)
        await self.write(kafka, prefix, b"c", offset=9, commit=False)
        await check_untouched(found, 0, 7, 1)

    async def test_an_offset_or_a_row_of_somebody_else_does_not(self, kafka, prefix):
        found = options(kafka, prefix)
        await self.write(kafka, prefix, b"a", b"b", offset=7, commit=True)
        with pytest.raises(Overtaken, match="has come to 7, and was left at 5"):
            await check_untouched(found, 0, 5, 1)
        with pytest.raises(Overtaken, match="rows beyond offset 0"):
            await check_untouched(found, 0, 7, 0)
        with pytest.raises(Overtaken, match="rows beyond offset -1"):
            await check_untouched(found, 0, 7, -1)

    async def test_an_idle_worker_goes_on_when_its_ids_have_expired(self, tmp_path):
        broker, prefix = Kafka(tmp_path / "broker", properties=FORGETFUL), f"engine-{uuid.uuid4().hex[:8]}"
        await asyncio.to_thread(broker.start)
        try:
            await asyncio.to_thread(ready.wait, broker)
            await cluster.create(broker.bootstrap, prefix)
            load, group = cluster.Load(prefix), storm.Workers(broker.bootstrap, prefix, {"linger_s": 0.0}, tmp_path)
            await group.start()
            log = group.logs / "worker-1.log"
            await until(lambda: "STARTED" in log.read_text(), 60)
            await load.send(broker.bootstrap, 1_000)
            await cluster.drained(broker.bootstrap, prefix, 60)
            await asyncio.sleep(2 * EXPIRY_MS / 1_000 + 1)  # nothing tells that an id was dropped
            await load.send(broker.bootstrap, 1_000)
            await cluster.drained(broker.bootstrap, prefix, 60)
            assert "had forgotten its transactional id" in log.read_text()
            assert len(list(group.logs.glob("worker-*.log"))) == 1, "the same process all along"
            verdict = await cluster.judge(broker.bootstrap, load)
            assert verdict.exact, verdict
            await group.stop()
        finally:
            await asyncio.to_thread(broker.process.stop)
