"""Records of our own beside aiokafka's, out of the same bytes."""

from __future__ import annotations

import gc
import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streams.engine import records
from streams.engine.records import Record, lean_record, take_piece

FETCHED_ALL = fetcher.FetchResult.getall
FIELDS = (
    "topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "checksum",
    "serialized_key_size", "serialized_value_size", "headers",
)  # fmt: skip


def fetched(module: Any) -> list[Any]:
    """The records of one fetch, as that copy of aiokafka's module gives them."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, 1, 0, 0, 10_000)
    builder.append(0, 1_700_000_000_000, b"key", b"value", [])
    builder.append(1, 1_700_000_000_001, b"key", None, [("ce_id", b"1"), ("empty", None)])
    builder.append(2, 1_700_000_000_002, None, b"", [("", b"")])
    batches = MemoryRecords(bytes(builder.build()))
    where = TopicPartition("events", 3)
    return list(module.PartitionRecords(where, batches, [], 0, None, None, True, module.READ_COMMITTED))


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(fetcher.PartitionRecords, "_consumer_record", lean_record)
    return fetched(fetcher)


@pytest.fixture
def theirs() -> list[Any]:
    """By a copy of aiokafka's module that nothing has touched."""
    spec = importlib.util.find_spec(fetcher.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return fetched(module)


def test_they_say_what_aiokafkas_say(ours, theirs):
    assert {type(record) for record in ours} == {Record}
    assert Record not in {type(record) for record in theirs}
    assert len(ours) == 3
    assert [[getattr(r, name) for name in FIELDS] for r in ours] == [
        [getattr(r, name) for name in FIELDS] for r in theirs
    ]
    assert set(vars(theirs[0])) == set(FIELDS), "aiokafka's records have a field that ours do not"


def test_the_collector_has_no_work_with_them(ours):
    assert not any(gc.is_tracked(record) for record in ours)


def fetch_result(sizes: list[int | None], position: int = 0) -> tuple[Any, Any]:
    """A fetch of records with values of these sizes, and the state of its partition."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, 1, 0, 0, 1_000_000)
    for offset, size in enumerate(sizes):
        builder.append(offset, 1_700_000_000_000, b"key", None if size is None else b"v" * size, [])
    where = TopicPartition("events", 3)
    batches = MemoryRecords(bytes(builder.build()))
    unpacked = fetcher.PartitionRecords(where, batches, [], 0, None, None, True, fetcher.READ_COMMITTED)
    state = SimpleNamespace(paused=False, position=position)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    return fetcher.FetchResult(where, assignment=assignment, partition_records=unpacked, backoff=0), state


def pieces(result: Any, take: Any = take_piece) -> list[list[int]]:
    found = []
    while result.has_more():
        found.append([record.offset for record in take(result)])
    return found


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([30, 30, 30, 30], [[0, 1, 2, 3], []]),
        ([60, 60, 60], [[0, 1], [2]]),
        ([500, 1, None], [[0], [1, 2]]),
        ([None, 99, 500], [[0, 1, 2], []]),
        ([None, None], [[0, 1]]),
    ],
)
def test_a_fetch_is_unpacked_in_pieces(monkeypatch, sizes, expected):
    monkeypatch.setattr(records, "PIECE_BYTES", 100)
    monkeypatch.setattr(fetcher.PartitionRecords, "_consumer_record", lean_record)
    result, state = fetch_result(sizes)
    assert pieces(result) == expected
    assert state.position == len(sizes)


def test_between_two_pieces_the_position_is_that_of_the_next_record(monkeypatch):
    monkeypatch.setattr(records, "PIECE_BYTES", 100)
    result, state = fetch_result([60, 60, 60])
    take_piece(result)
    assert state.position == 2
    state.position = 1  # somebody seeked: what is left is not what is asked for
    assert take_piece(result) == []
    assert not result.has_more()


def test_without_a_bound_it_is_aiokafkas_own():
    stock, ours = fetch_result([10] * 50)[0], fetch_result([10] * 50)[0]
    assert [r.offset for r in take_piece(ours, 7)] == [r.offset for r in FETCHED_ALL(stock, 7)]
    assert pieces(ours) == pieces(stock, FETCHED_ALL)
