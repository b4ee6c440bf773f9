"""Which questions are asked, and why the others are not."""

from __future__ import annotations

from typing import Any

import pytest

from streams import wire
from streams.bridge.bullmq import Keys
from streams.bridge.probes import STALE_MS, DroppedError, Question, _asked, parse
from streams.bridge.stream import Stream

JOB = {"source": "s", "queue": "q", "job_id": "7", "reason": "verify", "asked_at": 1000}
QUEUE = {**JOB, "job_id": "", "reason": "request", "request": "id"}


def test_a_question_about_a_job_and_about_a_queue():
    assert parse(wire.dumps(JOB), 1000) == Question("s", "q", "7", "verify", "")
    assert parse(wire.dumps(QUEUE), None) == Question("s", "q", "", "request", "id")
    assert parse(wire.dumps({**QUEUE, "request": None}), None).request == ""


@pytest.mark.parametrize("clock_ms", [-3_600_000, 0, 3_600_000])
def test_whose_clock_is_wrong_is_answered_all_the_same(clock_ms):
    assert parse(wire.dumps({**JOB, "asked_at": clock_ms}), clock_ms + STALE_MS)
    with pytest.raises(DroppedError, match="stale"):
        parse(wire.dumps({**JOB, "asked_at": clock_ms}), clock_ms + STALE_MS + 1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"[]",
        b"null",
        b"\xff",
        *(
            wire.dumps(each)
            for each in (
                {**JOB, "reason": "request"},
                {**QUEUE, "reason": "probe"},
                {**JOB, "source": ""},
                {**JOB, "queue": 7},
                {**JOB, "asked_at": "x"},
                {**JOB, "asked_at": None},
                {**QUEUE, "request": 7},
                {**QUEUE, "request": "x" * 101},
                {name: JOB[name] for name in JOB if name != "reason"},
            )
        ),
    ],
)
def test_what_is_no_question(value):
    with pytest.raises(DroppedError, match="malformed"):
        parse(value, 1000)
    assert _asked(value, 1000, lambda _question: None) == "malformed"


def test_who_takes_it_says_why_it_is_dropped():
    assert _asked(wire.dumps(JOB), 1000, lambda _question: None) is None
    assert _asked(wire.dumps(JOB), 1000, lambda _question: "full") == "full"


def stream(**known: Any) -> Stream:
    return Stream("s", "q", Keys("bull", "q"), **known)


def test_asked_twice_a_job_is_looked_at_once():
    own = stream()
    assert [own.ask("1", reason) for reason in ("verify", "probe", "verify")] == [None] * 3
    assert (own.wanted, list(own.verify)) == ({"1": "probe"}, ["1"])
    assert own.ready
    assert own.busy


def test_more_questions_than_can_be_held_are_dropped():
    own = stream(verify=dict.fromkeys(map(str, range(99_999))))
    assert own.ask("x", "probe") is None
    assert own.ask("y", "probe") == "full"
    assert own.ask("x", "verify") is None


def test_a_comparison_is_asked_for():
    own = stream()
    assert own.ask("", "drift", "id") is None
    assert own.comparisons.waiting == {"id": "drift"}
    assert own.busy
    assert all(own.ask("", "request", str(n)) is None for n in range(63))
    assert own.ask("", "request", "x") == "full"
