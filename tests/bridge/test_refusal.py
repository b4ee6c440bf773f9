"""What is told of queues that cannot be read, and when they are looked at again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from streams import wire
from streams.bridge import refusal
from streams.bridge.publish import Chunk
from streams.bridge.refusal import Refusals


class Counted:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None: ...

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        assert name == "bridge_queues_refused"
        self.values[labels["reason"]] = value


def told(refusals: Refusals) -> list[dict[str, Any]]:
    chunk = Chunk()
    refusals.tell(chunk)
    return [wire.loads(record.value) for record in chunk.records]


@given(st.binary())
def test_a_name_is_one_line_of_characters_that_steer_nothing(name):
    shown = refusal.printable(name.decode("utf-8", "surrogateescape"))
    assert len(shown) <= 201
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160]
    shown.encode()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), "wrong_type"),
        (NoPermissionError("User x has no permissions to access one of the keys"), "no_permission"),
        (ResponseError("ERR something"), "unreadable"),
        (ResponseError("BUSY Redis is busy running a script"), "unreadable"),
        (ValueError("secret"), "unreadable"),
        (RedisConnectionError("away"), "unreadable"),
    ],
)
def test_reasons(error, reason):
    assert refusal.reason_of(error) == reason


def test_the_text_of_our_own_errors_is_not_told():
    assert "secret" not in refusal.said_by(ValueError("secret"))
    assert refusal.said_by(ResponseError("WRONGTYPE\r\n")) == "WRONGTYPE\\r\\n"


def test_each_is_told_once_and_once_again_when_it_is_read():
    counted = Counted()
    refusals = Refusals("s", counted)
    for _ in range(3):
        refusals.add("a/b", "wrong_type", "WRONGTYPE")
    refusals.add("c", "no_permission", "NOPERM")
    assert counted.values == {"wrong_type": 1, "no_permission": 1}
    assert [(value["queue"], value["status"]) for value in told(refusals)] == [("a/b", "refused"), ("c", "refused")]
    assert told(refusals) == []
    refusals.add("c", "wrong_type", "WRONGTYPE")
    assert counted.values == {"wrong_type": 2, "no_permission": 0}
    for queue in ("a/b", "c", "unknown"):
        refusals.remove(queue)
    assert [value["status"] for value in told(refusals)] == ["refused", "readmitted", "readmitted"]
    assert (counted.values["wrong_type"], list(refusals)) == (0, [])


def test_what_was_told_long_ago_is_told_again(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    refusals = Refusals("s", Counted())
    refusals.add("a", "wrong_type", "WRONGTYPE")
    refusals.add("b", "wrong_type", "WRONGTYPE")
    refusals.remove("b")
    told(refusals)
    for clock[0], expected in ((1599.0, []), (1600.0, ["a"]), (2199.0, []), (2200.0, ["a"])):
        refusals.add("a", "wrong_type", "WRONGTYPE")
        refusals.begin()
        assert [value["queue"] for value in told(refusals) if value["status"] == "refused"] == expected


def test_what_failed_inside_is_tried_less_and_less_often_and_what_others_can_mend_each_time():
    refusals = Refusals("s", Counted())
    gaps = []
    for _ in range(8):
        refusals.add("a", "unreadable", "ValueError")
        gaps.append(next(n for n in range(100) if refusals.due("a")))
    assert gaps == [0, 1, 3, 7, 15, 31, 32, 32]
    refusals.add("a", "wrong_type", "WRONGTYPE")
    assert refusals.due("a")


def test_a_name_must_be_text_and_short():
    assert refusal.bad_name("crawl\n") is None
    assert refusal.bad_name("\udcff") == "the name is not UTF-8"
    assert refusal.bad_name("é" * 501) == "the name has 1,002 bytes"
