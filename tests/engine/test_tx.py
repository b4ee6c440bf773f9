from __future__ import annotations

from typing import Any

import pytest

from streams.engine.tx import CheckedTx, Tx, Unwritable
from streams.wire import dumps

ROWS = {b"a": b'{"x":1}'}


def tx(kind: Any = Tx, limit_bytes: int = 1_000) -> Any:
    return kind(3, ROWS, "table", limit_bytes)


@pytest.fixture(params=[Tx, CheckedTx])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_row_is_a_private_copy(kind):
    one = tx(kind)
    row = one.get(b"a")
    row["x"] = 2
    assert one.get(b"a") == {"x": 1}
    assert ROWS == {b"a": b'{"x":1}'}


def test_a_staged_row_is_seen_and_not_applied(kind):
    one = tx(kind)
    one.put(b"a", {"x": 2})
    one.put(b"b", None)
    assert one.get(b"a") == {"x": 2}
    assert one.get(b"b") is None
    assert ROWS == {b"a": b'{"x":1}'}
    assert one.encode() == {b"a": b'{"x":2}', b"b": None}


def test_a_tombstone_hides_the_row(kind):
    one = tx(kind)
    one.put(b"a", None)
    assert one.get(b"a") is None
    assert one.get(b"unknown") is None


def test_an_output_goes_to_the_partition_of_the_event_unless_told(kind):
    one = tx(kind)
    one.emit("out", b"k", b"v", [("h", b"1")], 5)
    one.emit("out", b"k", b"v", partition=0)
    assert one.outputs == [("out", 3, b"k", b"v", [("h", b"1")], 5), ("out", 0, b"k", b"v", [], None)]


@pytest.mark.parametrize(
    ("key", "value", "headers"), [(b"k" * 999, b"", []), (b"k", b"v" * 999, []), (b"k", b"v", [("h", b"x" * 999)])]
)
def test_an_output_beyond_the_limit_is_refused_and_not_staged(kind, key, value, headers):
    one = tx(kind)
    with pytest.raises(Unwritable) as caught:
        one.emit("out", key, value, headers)
    assert (caught.value.reason, caught.value.topic, caught.value.key) == ("too_large", "out", key)
    assert caught.value.size_bytes > 999
    assert one.outputs == []


def test_a_row_beyond_the_limit_is_met_at_the_end_of_the_batch():
    one = tx()
    one.put(b"a", {"x": "y" * 1_000})
    with pytest.raises(Unwritable, match="table: a record of") as caught:
        one.encode()
    assert (caught.value.reason, caught.value.topic, caught.value.key) == ("too_large", "table", b"a")


def test_a_row_that_json_cannot_say_is_unwritable():
    one = tx()
    one.put(b"a", {"x": "\ud800"})
    with pytest.raises(Unwritable) as caught:
        one.encode()
    assert caught.value.reason == "not_encodable"


def test_checked_takes_back_what_one_record_did():
    one = tx(CheckedTx)
    one.put(b"b", {"x": 1})
    one.emit("out", b"b", b"1")
    one.mark()
    row = one.get(b"b")
    row["x"] = 2
    one.put(b"b", row)
    one.put(b"c", {"x": 1})
    one.emit("out", b"b", b"2")
    with pytest.raises(Unwritable):
        one.put(b"b", {"x": "y" * 1_000})
    one.take_back()
    assert one.staged == {b"b": {"x": 1}}
    assert [value for *_, value, _, _ in one.outputs] == [b"1"]


def test_checked_does_not_let_a_staged_row_change_unstaged():
    one = tx(CheckedTx)
    one.put(b"b", {"x": [1]})
    one.get(b"b")["x"].append(2)
    assert one.encode()[b"b"] == dumps({"x": [1]})
