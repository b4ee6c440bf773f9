"""Transactions, read-ahead and turns of the loop have bounds in bytes and time; what was cut is whole again after."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import transaction
from streams.engine.partition import HELD_BYTES, Batch, Part, Tick, Work, size_of
from streams.wire import loads
from tests.engine.counting import Counting
from tests.engine.fakes import TOPICS, Bench, events_tp, record, until


def batch(first: int, length: int) -> Batch:
    records = [record(first + number) for number in range(length)]
    return Batch.of(None, SimpleNamespace(message=SimpleNamespace(records=records, offset=first + length - 1)))


def offsets(items: Any) -> list[int | str]:
    """Of records; a tick is its time, as text."""
    found: list[int | str] = []
    for item in items:
        found += [str(item.now_ms)] if isinstance(item, Tick) else [one.offset for one in item.records]
    return found


items = st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=6)


@given(items, st.data())
def test_a_split_loses_nothing_and_every_fetch_ends_once(lengths, data):
    first, work = count(0, 10), Work()
    for length in lengths:
        work.add(Tick(next(first)) if length is None else batch(next(first), length))
    whole = offsets(work.items)
    number = data.draw(st.integers(0, len(work.items)))
    cut = work.items[number : number + 1]
    most = len(cut[0].records) - 1 if cut and isinstance(cut[0], Batch) else 0
    head, left = work.split(number, data.draw(st.integers(0, most)))
    assert offsets(head.items) + offsets(left) == whole
    pieces = [item for item in (*head.items, *left) if isinstance(item, Batch)]
    assert sum(piece.ends for piece in pieces) == sum(length is not None for length in lengths)
    assert sum(piece.size_bytes for piece in pieces) == work.size_bytes
    assert head.events == sum(len(piece.records) for piece in head.batches)
    assert head.last_offset == (head.batches[-1].records[-1].offset if head.batches else None)


def test_what_is_left_goes_first_and_one_tick_of_many_stays():
    part = Part(events_tp(), 1, None)
    part.ready = True
    part.add(batch(0, 3))
    part.tick(1)
    part.add(batch(3, 2))
    work = part._take(100, 10**9)
    head, left = work.split(0, 2)
    part.add(batch(5, 1))
    part.tick(2)
    part.done(head, left)
    assert offsets(part.queue) == [2, "1", 3, 4, 5]
    assert part.tick_queued
    assert part.queued_events == 4
    assert part.queued_bytes == size_of([record(number) for number in range(2, 6)])
    assert len(part.leftovers()) == 3
    part.done(part._take(100, 10**9))
    assert (part.queued_events, part.queued_bytes, part.queue) == (0, 0, deque())


def test_the_size_of_records_counts_all_that_they_hold():
    one = SimpleNamespace(key=b"k" * 10, value=b"v" * 100, headers=(("name", b"text"), ("none", None)))
    assert size_of([one, one]) == 2 * (HELD_BYTES + 10 + 100 + 12)
    assert size_of([SimpleNamespace(key=None, value=None, headers=())]) == HELD_BYTES


class Wide(Counting):
    """Rows and outputs far larger than the events."""

    def on_record(self, tx: Any, record: Any) -> None:
        super().on_record(tx, record)
        tx.put(b"row-%d" % record.offset, {"x": "y" * 100})
        tx.emit(TOPICS.out, b"wide", b'{"n": 0}' + b" " * 1_000)


async def test_a_transaction_takes_no_more_than_its_bytes(monkeypatch):
    bench = Bench(monkeypatch, Wide(TOPICS), max_batch_bytes=10_000)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(100)])
    bench.engine.tick(1)
    bench.submit(*[record(number) for number in range(100, 130)])
    await bench.settled()
    assert 10 <= bench.producer.calls.count("commit") <= 20
    assert bench.producer.offsets == {(TOPICS.events, 0): 130}
    assert [n for n in bench.producer.numbers() if n] == list(range(1, 131))
    assert loads(bench.store.parts[0][b"k"]) == {"count": 130, "sum": sum(range(130)), "last": 129}
    assert bench.stream.acked == [99, 129]
    assert bench.handler.committed == 130
    part = bench.engine.parts[0]
    assert (part.queued_events, part.queued_bytes) == (0, 0)


async def test_rows_that_are_read_count_too(monkeypatch):
    """A small event of a job with a large row makes a large record of the table."""
    bench = Bench(monkeypatch, max_batch_bytes=10_000)
    await bench.assign(0)
    bench.store.parts[0].update({b"%d" % n: b'{"count": 0, "sum": 0, "last": 0}' + b" " * 4_000 for n in range(9)})
    bench.submit(*[record(number, b"%d" % number) for number in range(9)])
    await bench.settled()
    assert bench.producer.calls.count("commit") == 3
    assert bench.producer.offsets == {(TOPICS.events, 0): 9}


async def test_a_record_that_is_larger_than_a_transaction_should_be_is_one(monkeypatch):
    bench = Bench(monkeypatch, Wide(TOPICS), max_batch_bytes=1)
    await bench.assign(0)
    bench.submit(record(0), record(1))
    await bench.settled()
    assert bench.producer.calls.count("commit") == 2
    assert bench.stream.acked == [1]


async def test_a_failed_attempt_of_a_part_is_repeated_whole(monkeypatch):
    bench = Bench(monkeypatch, Wide(TOPICS), max_batch_bytes=10_000)
    await bench.assign(0)
    bench.producer.failures["offsets"] = [KafkaTimeoutError() for _ in range(3)]
    bench.submit(*[record(number) for number in range(50)])
    await bench.settled()
    assert [n for n in bench.producer.numbers() if n] == list(range(1, 51))
    assert bench.stream.acked == [49]


async def test_the_fold_gives_the_loop_back(monkeypatch):
    """Two partitions fold at the same time, in turns; nobody waits longer than for one slice of one of them."""
    clock = [0.0]
    folded: list[int] = []

    class Slow(Counting):
        def on_record(self, tx: Any, record: Any) -> None:
            super().on_record(tx, record)
            folded.append(tx.partition)
            clock[0] += 0.011

    monkeypatch.setattr(transaction, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    bench = Bench(monkeypatch, Slow(TOPICS))
    await bench.assign(0, 1)
    seen: list[int] = []

    async def look() -> None:
        while len(folded) < 20:
            seen.append(len(folded))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for partition in (0, 1):
        bench.submit(*[record(number) for number in range(10)], partition=partition)
    await asyncio.wait_for(looking, 5)
    await until(lambda: len(bench.stream.acked) == 2)
    assert max(b - a for a, b in pairwise(seen)) == 2
    assert folded == [0, 0, 1, 1] * 5


async def test_a_transaction_ends_after_so_long_a_fold(monkeypatch):
    clock = [0.0]

    class Slow(Counting):
        def on_record(self, tx: Any, record: Any) -> None:
            super().on_record(tx, record)
            clock[0] += 1.0

    monkeypatch.setattr(transaction, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    bench = Bench(monkeypatch, Slow(TOPICS))
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(12)])
    await bench.settled()
    assert bench.producer.calls.count("commit") == 3
    assert bench.producer.numbers() == list(range(1, 13))


async def test_the_bytes_of_the_read_ahead_are_shared_by_the_partitions(monkeypatch):
    each = size_of([record(0)])
    bench = Bench(monkeypatch, max_queued_bytes=8 * each)
    await bench.assign(0, 1)
    gates = [asyncio.Event(), asyncio.Event()]
    for producer, gate in zip(bench.producers, gates, strict=True):
        producer.gate = gate
    bench.submit(record(0), record(1), record(2))
    assert bench.app.consumer.full == set()
    bench.submit(record(3))
    assert bench.app.consumer.full == {events_tp(0)}
    bench.submit(*[record(number) for number in range(4)], partition=1)
    assert bench.app.consumer.full == {events_tp(0), events_tp(1)}
    gates[0].set()
    await bench.settled(0)
    assert bench.app.consumer.full == {events_tp(1)}
    gates[1].set()
    await bench.settled(1)
    assert bench.app.consumer.full == set()


async def test_a_revocation_in_the_middle_of_a_fold_commits_what_is_folded_or_nothing(monkeypatch):
    bench = Bench(monkeypatch, Wide(TOPICS), max_batch_bytes=10_000)
    await bench.assign(0)
    gate = bench.producer.gate = asyncio.Event()
    bench.submit(*[record(number) for number in range(100)])
    await until(lambda: "offsets" in bench.producer.calls)
    revoking = asyncio.create_task(bench.engine.revoke())
    await asyncio.sleep(0)
    gate.set()
    await revoking
    assert bench.producer.calls.count("commit") == 1
    done = bench.producer.offsets[TOPICS.events, 0]
    assert 0 < done < 100
    assert [n for n in bench.producer.numbers() if n] == list(range(1, done + 1))
    assert bench.stream.acked == []
    assert bench.app.consumer.forgotten == [99]


@pytest.mark.parametrize("exactly_once", [True, False])
async def test_a_fetch_in_pieces_is_acknowledged_at_its_end(monkeypatch, exactly_once):
    bench = Bench(monkeypatch, Wide(TOPICS), max_batch_bytes=3_000, exactly_once=exactly_once)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(20)])
    await bench.settled()
    assert bench.stream.acked == [19]
