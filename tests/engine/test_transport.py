"""The fetch loop, on a real app and consumer with a fake thread."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from faust.app.base import App
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP

from streams.engine import produce, records, transport
from tests.engine.counting import options
from tests.engine.fakes import PREFIX, TOPICS, events_tp, record, table_tp, until
from tests.engine.test_traps import give, make_app

OTHER = TP("other", 0)


@pytest.fixture
async def app():
    return make_app()


def drain(app: Any) -> tuple[asyncio.Task[None], Any]:
    fetcher = SimpleNamespace(_stopped=asyncio.Event())
    return asyncio.create_task(app.consumer._drain_messages(fetcher)), fetcher


async def test_events_changelog_and_other_topics_go_their_ways(app):
    give(app)
    consumer = app.consumer
    consumer._set_active_tps({events_tp(), table_tp(), OTHER})
    consumer.sought = {events_tp(), table_tp()}
    fetched = {
        events_tp(): [record(0), record(1)],
        table_tp(): [record(4, b"row", topic=TOPICS.table)],
        OTHER: [record(7, topic="other"), record(8, topic="other")],
    }
    task, fetcher = drain(app)
    consumer._thread.fetches.put_nowait(fetched)
    await until(lambda: len(app.delivered) == 3)
    assert [one.offset for one in app.delivered[0].records] == [0, 1]
    assert [message.offset for message in app.delivered[1:]] == [7, 8]
    assert app.engine.store.parts[0].keys() == {b"row"}
    assert consumer._read_offset[events_tp()] == 2
    fetcher._stopped.set()
    consumer._thread.fetches.put_nowait({})
    await asyncio.wait_for(task, 2)


async def test_a_stopped_flow_fetches_nothing_until_it_is_resumed(app):
    give(app)
    app.consumer.sought = {events_tp()}
    app.consumer.stop_flow()
    task, fetcher = drain(app)
    await asyncio.sleep(0.02)
    assert app.consumer._thread.calls == []
    app.consumer.resume_flow()
    await until(lambda: app.consumer._thread.calls)
    fetcher._stopped.set()
    app.consumer._thread.fetches.put_nowait({})
    await asyncio.wait_for(task, 2)


async def test_the_loop_is_heard_of_while_it_fetches_and_while_it_may_not(app, monkeypatch):
    monkeypatch.setattr(transport, "FLOW_TIMEOUT_S", 0.001)
    beats: list[str] = []
    app.beat = beats.append
    give(app)
    app.consumer.stop_flow()
    task, fetcher = drain(app)
    await until(lambda: len(beats) > 3)
    app.consumer.resume_flow()
    beats.clear()
    await until(lambda: len(beats) > 3)
    assert set(beats) == {"fetch"}
    fetcher._stopped.set()
    await asyncio.wait_for(task, 2)


async def test_with_all_partitions_full_it_looks_again_soon(app):
    give(app)
    app.consumer.sought = {events_tp()}
    app.consumer._set_active_tps({events_tp()})
    app.consumer.on_buffer_full(events_tp())
    task, fetcher = drain(app)
    await asyncio.sleep(0.05)
    assert app.consumer._thread.calls == []
    app.consumer.on_buffer_drop(events_tp())
    await until(lambda: app.consumer._thread.calls)
    fetcher._stopped.set()
    app.consumer._thread.fetches.put_nowait({})
    await asyncio.wait_for(task, 2)


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_stopped_consumer_is_an_error_only_while_running(app, monkeypatch, stopping):
    async def stopped(*_: Any) -> None:
        raise driver.ConsumerStoppedError

    give(app)
    app.consumer.sought = {events_tp()}
    monkeypatch.setattr(app.consumer._thread, "getmany", stopped)
    if stopping:
        app._stopped.set()
    task, _fetcher = drain(app)
    if stopping:
        await asyncio.wait_for(task, 2)
    else:
        with pytest.raises(driver.ConsumerStoppedError):
            await asyncio.wait_for(task, 2)


async def test_what_a_rebalance_overtakes_is_not_read(app):
    give(app)

    async def overtaken(_message: Any) -> None:
        app.consumer_generation_id = 2

    app.consumer.callback = overtaken
    assert not await app.consumer._deliver(events_tp(), [record(0)], 1)
    assert app.consumer._read_offset.get(events_tp()) is None
    assert not await app.consumer._deliver(events_tp(), [record(0)], 2)
    app.consumer_generation_id = 1
    app.consumer._thread.fetches.put_nowait({events_tp(): [record(1)], events_tp(1): [record(1)]})
    app.consumer.callback = overtaken
    await app.consumer._fetch_once(frozenset({events_tp()}))


async def test_at_least_once_commits_before_faust_forgets(monkeypatch):
    app, calls = make_app(exactly_once=False), []

    async def noted(*_: Any, **__: Any) -> None:
        calls.append("commit")

    async def revoked(*_: Any, **__: Any) -> None:
        calls.append("forget")

    monkeypatch.setattr(app.consumer, "commit", noted)
    monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", revoked)
    await app.consumer.on_partitions_revoked(set())
    assert calls == ["commit", "forget"]


async def test_messages_of_other_topics_are_acknowledged_as_faust_does(app, monkeypatch):
    acked: list[str] = []

    def stock_ack(_self: Any, message: str) -> bool:
        acked.append(message)
        return True

    monkeypatch.setattr(driver.Consumer, "ack", stock_ack)
    assert app.consumer.ack("message")
    assert acked == ["message"]
    monkeypatch.setattr(driver.Consumer, "_new_offset", lambda *_: 5)
    assert app.consumer._new_offset(OTHER) == 5


async def test_the_thread_reads_committed_and_waits_briefly(monkeypatch):
    stock = SimpleNamespace(_isolation_level="read_uncommitted", _fetch_max_wait_ms=1500, _fetch_max_bytes=50 << 20)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: stock)
    monkeypatch.setattr(fetcher.PartitionRecords, "_consumer_record", None)
    thread = object.__new__(transport.BatchConsumerThread)
    consumer = thread._create_worker_consumer(None)
    assert (consumer._isolation_level, consumer._fetch_max_wait_ms) == ("read_committed", 250)
    assert consumer._fetch_max_bytes == 16 << 20
    assert fetcher.PartitionRecords._consumer_record is records.lean_record
    assert fetcher.FetchResult.getall is records.take_piece


async def test_the_agent_only_hands_over(app, monkeypatch):
    handed: list[Any] = []

    class Stream:
        def noack(self) -> Stream:
            return self

        async def events(self) -> Any:
            yield "event"

    monkeypatch.setattr(app.engine, "submit", lambda stream, event: handed.append((stream, event)))
    (agent,) = app.agents.values()
    stream = Stream()
    await agent.fun(stream)
    assert handed == [(stream, "event")]


async def test_the_topic_decodes_nothing(app):
    (agent,) = app.agents.values()
    message = SimpleNamespace(records=[record(0)])
    created = []

    def create_event(*arguments: Any) -> str:
        created.append(arguments)
        return "event"

    topic = object.__new__(type(agent.channel))
    topic.app = SimpleNamespace(create_event=create_event)
    topic._compile_decode()
    assert await topic.decode(message, propagate=True) == "event"
    assert created == [(None, message.records, None, message)]


async def test_stopping_ends_the_engine_first(app, monkeypatch):
    order = []

    async def engine_stop() -> None:
        order.append("engine")

    async def faust_stop(_self: Any) -> None:
        order.append("faust")

    monkeypatch.setattr(app.engine, "stop", engine_stop)
    monkeypatch.setattr(App, "on_stop", faust_stop)
    await app.on_stop()
    assert order == ["engine", "faust"]


class FakeClient:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[str] = []
        made.append(self)

    async def start(self) -> None:
        self.calls.append("start")
        if failing:
            raise OSError("no broker")

    async def stop(self) -> None:
        self.calls.append("stop")


made: list[FakeClient] = []
failing: list[bool] = []


@pytest.fixture
def client(monkeypatch):
    made.clear()
    failing.clear()
    monkeypatch.setattr(produce, "AIOKafkaProducer", FakeClient)


@pytest.mark.usefixtures("client")
async def test_a_producer_belongs_to_a_partition_and_has_the_clients_settings():
    settings = options("b:1", PREFIX, client={"bootstrap_servers": "b:1", "sasl_mechanism": "PLAIN"})
    producer = await produce.start_producer(settings, 3)
    found = producer.arguments
    assert (found["transactional_id"], found["transaction_timeout_ms"]) == ("t-3", 15_000)
    assert (found["acks"], found["enable_idempotence"], found["sasl_mechanism"]) == ("all", True, "PLAIN")
    idempotent = await produce.start_producer(replace(settings, exactly_once=False), 3)
    assert idempotent.arguments["enable_idempotence"] is True
    assert "transactional_id" not in idempotent.arguments


@pytest.mark.usefixtures("client")
async def test_a_producer_that_does_not_start_is_closed():
    failing.append(True)
    with pytest.raises(OSError, match="no broker"):
        await produce.start_producer(options("b:1", PREFIX), 0)
    assert made[0].calls == ["start", "stop"]
