"""Records of our own beside aiokafka's, out of the same bytes."""

from __future__ import annotations

import gc
import importlib.util
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streams.engine.records import Record, lean_record

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
