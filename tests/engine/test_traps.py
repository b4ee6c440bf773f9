"""The ground under a transaction: which offset, which rows, which fetch. A real app and consumer, a fake thread."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver

from streams.engine import build, recovery
from streams.engine.partition import Part, Tick
from streams.engine.tx import PLAIN
from tests.engine.counting import Counting, options
from tests.engine.fakes import PREFIX, TOPICS, Bench, FakeProducer, events_tp, record, table_tp


class FakeThread:
    """Kafka as the consumer sees it through its thread."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fetches: asyncio.Queue[Any] = asyncio.Queue()
        self.committed: dict[Any, int] = {}
        self.positions: dict[Any, int] = {}
        self.tp_last_committed_at: dict[Any, float] = {}
        self.starts: dict[Any, int] | Exception = {}

    async def getmany(self, active: Any, _timeout_s: float) -> Any:
        self.calls.append(("getmany", frozenset(active)))
        return await self.fetches.get()

    async def seek_to_committed(self) -> Any:
        self.calls.append("seek_to_committed")
        return self.committed

    async def seek_wait(self, _partitions: Any) -> None:
        self.calls.append("seek_wait")

    async def seek_to_beginning(self, *partitions: Any) -> None:
        self.calls.append(("seek_to_beginning", *partitions))

    async def earliest_offsets(self, *_partitions: Any) -> dict[Any, int]:
        if isinstance(self.starts, Exception):
            raise self.starts
        return self.starts

    async def subscribe(self, topics: Any) -> None:
        self.calls.append(("subscribe", frozenset(topics)))

    def highwater(self, _tp: Any) -> int:
        return 0

    @property
    def _consumer(self) -> Any:
        states = {TopicPartition(*tp): SimpleNamespace(_position=at) for tp, at in self.positions.items()}
        assignment = SimpleNamespace(tps=states, state_value=states.get)
        return SimpleNamespace(_subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)))


def make_app(**changes: Any) -> Any:
    """An app whose consumer delivers to `app.delivered`."""
    app: Any = build(options("127.0.0.1:1", PREFIX, **changes), Counting(TOPICS))
    app.consumer._thread.thread_loop.close()  # never started
    app.consumer._thread = FakeThread()
    app.consumer_generation_id = 1
    app.delivered = []

    async def callback(message: Any) -> None:
        app.delivered.append(message)

    app.consumer.callback = callback
    return app


@pytest.fixture
async def app():
    return make_app()


def give(app: Any, generation: int = 1) -> Part:
    """Assign partition 0 with its table."""
    app.consumer_generation_id = generation
    part = app.engine.parts[0] = Part(events_tp(), generation, FakeProducer())
    app.consumer._set_active_tps({events_tp(), table_tp()})
    return part


async def test_built_outside_of_a_loop_it_would_never_fetch():
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(build, options("127.0.0.1:1", PREFIX), Counting(TOPICS))


class TestNoFetchBeforeTheSeek:
    """Faust resumes event partitions, then seeks them: what is delivered in between comes twice."""

    async def test_a_resumed_partition_is_not_fetched_until_it_was_seeked(self, app):
        give(app)
        app.consumer.resume_partitions({events_tp()})
        assert app.consumer._fetchable() == frozenset()
        app.consumer._thread.committed = {events_tp(): 7}
        await app.consumer.perform_seek()
        assert app.consumer._fetchable() == {events_tp()}
        assert app.engine.parts[0].next_offset == 7

    async def test_a_seek_of_the_last_assignment_opens_nothing(self, app):
        give(app)
        thread = app.consumer._thread

        async def slow() -> Any:
            app.consumer_generation_id = 2
            return {events_tp(): 7}

        thread.seek_to_committed = slow
        await app.consumer.perform_seek()
        assert app.consumer.sought == set()

    async def test_a_part_of_another_generation_is_not_opened(self, app):
        give(app)
        assert app.engine.open(2, {}, {}) == set()

    async def test_an_offset_is_delivered_once_whoever_seeks(self, app):
        give(app)
        consumer = app.consumer
        for first, last in ((0, 3), (1, 3), (2, 6)):
            assert await consumer._deliver(events_tp(), [record(n) for n in range(first, last)], 1)
        found = [one.offset for message in app.delivered for one in message.records]
        assert found == [0, 1, 2, 3, 4, 5]

    async def test_assignment_and_revocation_close_the_gate(self, app, monkeypatch):
        async def nothing(*_: Any, **__: Any) -> None: ...

        monkeypatch.setattr(driver.Consumer, "on_partitions_assigned", nothing)
        monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", nothing)
        monkeypatch.setattr(app.engine, "assign", nothing)
        app.consumer.sought = {events_tp()}
        await app.consumer.on_partitions_revoked({events_tp()})
        assert app.consumer.sought == set()
        app.consumer.sought = {events_tp()}
        await app.consumer.on_partitions_assigned({events_tp()}, 2)
        assert app.consumer.sought == set()


class TestNoSeekWhileAFetchIsOpen:
    """A fetch begun in the last assignment takes records of this one after its seek: a hole."""

    @pytest.mark.parametrize("seek", ["perform_seek", "seek_wait"])
    async def test_a_seek_waits_for_the_open_fetch_and_its_records_are_dropped(self, app, seek):
        part = give(app)
        consumer, thread = app.consumer, app.consumer._thread
        consumer.sought = {events_tp()}
        fetching = asyncio.create_task(consumer._fetch_once(frozenset({events_tp()})))
        await asyncio.sleep(0)
        give(app, generation=2)
        arguments = () if seek == "perform_seek" else ({table_tp(): 0},)
        seeking = asyncio.create_task(getattr(consumer, seek)(*arguments))
        await asyncio.sleep(0.01)
        assert [call for call in thread.calls if isinstance(call, str)] == []
        thread.fetches.put_nowait({events_tp(): [record(0)]})
        await asyncio.gather(fetching, seeking)
        assert app.delivered == []
        assert part.next_offset == 0
        assert [call for call in thread.calls if isinstance(call, str)] != []

    async def test_a_partition_never_committed_is_seeked_to_its_beginning(self, app):
        """aiokafka leaves it where a dropped fetch may have moved it: the first records would be skipped."""
        give(app)
        app.engine.parts[1] = Part(events_tp(1), 1, FakeProducer())
        app.engine.parts[2] = Part(events_tp(2), 9, FakeProducer())
        thread = app.consumer._thread
        thread.committed = {events_tp(0): 7, events_tp(1): None, events_tp(2): None}
        await app.consumer.perform_seek()
        assert thread.calls[-1] == ("seek_to_beginning", TopicPartition(TOPICS.events, 1))
        assert app.consumer.sought == {events_tp(0), events_tp(1)}

    @pytest.mark.parametrize(("committed", "expired"), [(7, (0, 7, 9)), (None, (0, 0, 9)), (9, None), (12, None)])
    async def test_records_that_expired_unread_are_told_and_done_with_in_the_first_transaction(
        self, app, committed, expired
    ):
        part = give(app)
        part.ready = True
        thread = app.consumer._thread
        thread.committed = {events_tp(0): committed}
        thread.starts = {TopicPartition(TOPICS.events, 0): 9}
        await app.consumer.perform_seek()
        assert app.engine.handler.expired == ([] if expired is None else [expired])
        assert part.next_offset == max(committed or 0, 9)
        assert [type(item) for item in part.queue] == ([] if expired is None else [Tick])
        if expired is not None:
            first = await part.take(app.engine.options)
            assert first is not None
            assert (first.last_offset, part.expired_to) == (8, None)

    async def test_where_the_log_begins_cannot_be_told(self, app):
        part = give(app)
        thread = app.consumer._thread
        thread.committed, thread.starts = {events_tp(0): 7}, KafkaTimeoutError()
        await app.consumer.perform_seek()
        assert (part.next_offset, app.engine.handler.expired) == (7, [])
        assert app.consumer.sought == {events_tp(0)}

    async def test_a_dropped_changelog_fetch_loads_nothing(self, app):
        give(app)
        fetching = asyncio.create_task(app.consumer._fetch_once(frozenset({table_tp()})))
        await asyncio.sleep(0)
        app.consumer.stop_flow()
        app.consumer._thread.fetches.put_nowait({table_tp(): [record(0, topic=TOPICS.table)]})
        await fetching
        assert app.engine.store.parts == {}


def start_recovery(app: Any, offset: int, highwater: int) -> Any:
    found = app.tables.recovery
    found.in_recovery = True
    found.active_tps.add(table_tp())
    found.active_offsets[table_tp()] = offset
    found.active_highwaters[table_tp()] = highwater
    return found


class TestEndOfRecovery:
    async def test_a_tail_of_markers_ends_it(self, app):
        found = start_recovery(app, -1, 9)
        app.consumer.sought = {table_tp()}
        app.consumer._thread.positions = {table_tp(): 9}
        recovery.track(app.consumer, app.engine.store)
        assert not found.signal_recovery_end.is_set()
        app.consumer._thread.positions = {table_tp(): 10}
        recovery.track(app.consumer, app.engine.store)
        assert found.signal_recovery_end.is_set()
        assert app.engine.store.offsets == {0: 9}

    async def test_an_empty_changelog_needs_none(self, app):
        found = start_recovery(app, -1, -1)
        recovery.track(app.consumer, app.engine.store)
        assert found.signal_recovery_end.is_set()

    async def test_a_position_before_the_seek_counts_for_nothing(self, app):
        found = start_recovery(app, -1, 9)
        app.consumer._thread.positions = {table_tp(): 10}
        recovery.track(app.consumer, app.engine.store)
        assert not found.signal_recovery_end.is_set()

    async def test_a_partition_that_is_not_assigned_has_no_position(self, app):
        assert recovery.position(app.consumer, table_tp(5)) is None

    async def test_the_signal_of_the_last_recovery_is_cleared(self, app):
        found = start_recovery(app, -1, 9)
        found.signal_recovery_end.set()
        await app.consumer.seek_wait({table_tp(): 0})
        assert not found.signal_recovery_end.is_set()
        assert app.consumer.sought == {table_tp()}

    async def test_a_table_with_a_hole_ends_the_process(self, app, monkeypatch):
        start_recovery(app, 4, 9)
        app.consumer.sought = {table_tp()}
        part, crashes = give(app), []

        async def crash(error: BaseException) -> None:
            crashes.append(str(error))

        monkeypatch.setattr(app, "crash", crash)
        await app.engine.store.on_recovery_completed({table_tp()}, set())
        assert "restored up to offset 4 of 9" in crashes[0]
        assert not part.ready
        app.engine.store.offsets[0] = 9
        await app.engine.store.on_recovery_completed({table_tp()}, set())
        assert part.ready
        assert len(crashes) == 1

    async def test_a_recovery_that_is_being_replaced_makes_nothing_ready(self, app):
        start_recovery(app, 9, 9)
        part = give(app)
        await app.engine.store.on_recovery_completed({table_tp()}, set())
        assert not part.ready

    async def test_an_error_in_building_the_index_ends_the_process(self, app, monkeypatch):
        start_recovery(app, 9, 9)
        app.consumer.sought = {table_tp()}
        give(app)
        crashes = []

        async def crash(error: BaseException) -> None:
            crashes.append(error)

        monkeypatch.setattr(app, "crash", crash)
        monkeypatch.setattr(app.engine.handler, "on_recovered", lambda *_: 1 / 0)
        await app.engine.store.on_recovery_completed({table_tp()}, set())
        assert isinstance(crashes[0], ZeroDivisionError)


class TestEventsAndTableTogether:
    """A member that subscribes to the events alone makes the assignor deal the two topics apart."""

    async def test_both_are_always_subscribed(self, app):
        await app.consumer.subscribe({TOPICS.events})
        assert app.consumer._thread.calls == [("subscribe", frozenset({TOPICS.events, TOPICS.table}))]

    async def test_a_stopping_worker_does_not_subscribe(self, app):
        app._stopped.set()
        await app.consumer.subscribe({TOPICS.events})
        assert app.consumer._thread.calls == []

    @pytest.mark.errors_expected
    async def test_a_partition_without_its_rows_is_not_fetched_and_ends_the_process(self, monkeypatch):
        monkeypatch.setattr("streams.engine.engine.REBALANCE_GRACE_S", 0.0)
        bench = Bench(monkeypatch, tables=(0,), session_timeout_s=0.02)
        await bench.assign(0, 1)
        assert bench.engine.parts.keys() == {0}
        assert not bench.engine.recovered_all
        async with asyncio.timeout(2):
            await bench.app.crashed.wait()
        assert "co-partitioned" in str(bench.app.crashes[0])

    @pytest.mark.errors_expected
    async def test_a_rebalance_cures_it(self, monkeypatch):
        monkeypatch.setattr("streams.engine.engine.REBALANCE_GRACE_S", 0.0)
        bench = Bench(monkeypatch, tables=(0,), session_timeout_s=0.02)
        await bench.assign(0, 1)
        bench.app.consumer_generation_id = 2
        await asyncio.sleep(0.05)
        assert bench.app.crashes == []


class TestRows:
    async def test_recovery_of_a_kept_partition_goes_on_where_it_is(self, app):
        store = app.engine.store
        store.load(0, [record(4, topic=TOPICS.table)])
        assert store.persisted_offset(table_tp(0)) == 4
        assert store.persisted_offset(table_tp(1)) == -1

    async def test_a_lost_partition_is_dropped(self, app):
        store = app.engine.store
        store.load(0, [record(4, topic=TOPICS.table)])
        await store.on_rebalance(set(), {events_tp(0), table_tp(0)}, set())
        assert store.parts == {}
        assert store.offsets == {}

    async def test_tombstones_of_the_changelog(self, app):
        gone = record(5, topic=TOPICS.table)
        gone.value = None
        store = app.engine.store
        store.load(0, [record(4, topic=TOPICS.table), gone])
        assert store.parts[0] == {}
        assert store.offsets == {0: 5}

    async def test_rows_take_no_more_memory_than_their_length(self, app):
        tracemalloc.start()
        try:
            for number in range(1_000):
                app.engine.store.apply(0, [(b"%d" % number, PLAIN.write({"x": "y" * 937}))], number)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken / 1_000 < 1_200

    async def test_a_tombstone_takes_the_row_away(self, app):
        app.engine.store.apply(0, [(b"k", b"x")], 3)
        app.engine.store.apply(0, [(b"k", None)], None)
        assert app.engine.store.parts[0] == {}
        assert app.engine.store.offsets == {0: 3}


class TestAcknowledgement:
    async def test_a_forgotten_batch_is_waited_for_no_more_and_not_acknowledged(self, app):
        give(app)
        await app.consumer._deliver(events_tp(), [record(0)], 1)
        (message,) = app.delivered
        app.consumer._unacked_messages.add(message)
        app.consumer.forget(message)
        assert not app.consumer._unacked_messages
        assert not message.acked

    async def test_at_least_once_commits_up_to_the_first_gap(self):
        app = make_app(exactly_once=False)
        give(app)
        for offset in range(3):
            await app.consumer._deliver(events_tp(), [record(offset)], 1)
        for number in (0, 2):
            app.consumer.ack(app.delivered[number])
        assert app.consumer._new_offset(events_tp()) == 1
        assert app.consumer._new_offset(events_tp()) is None
        app.consumer.ack(app.delivered[1])
        assert app.consumer._new_offset(events_tp()) == 3

    async def test_an_error_at_the_assignment_ends_the_process(self, app, monkeypatch):
        crashes = []

        async def fails(*_: Any) -> None:
            raise OSError("no broker")

        async def crash(error: BaseException) -> None:
            crashes.append(error)

        monkeypatch.setattr(app.engine, "assign", fails)
        monkeypatch.setattr(app, "crash", crash)
        with pytest.raises(OSError, match="no broker"):
            await app.consumer.on_partitions_assigned({events_tp()}, 1)
        assert len(crashes) == 1
