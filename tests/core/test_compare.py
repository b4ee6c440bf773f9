from __future__ import annotations

from typing import Any

import pytest

from streams.core.compare import Start, is_touched, must_ask
from tests.core.build import BORN, Life, entry, job, look, running

RAN = {"processed_on": 2_000, "attempts_started": 1}


def completed(**more: Any) -> Life:
    life = running()
    life.apply(entry("completed", 3_000, job(**RAN, finished_on=3_000), **more))
    return life


def failed() -> Life:
    life = running()
    life.apply(entry("failed", 3_000, job(**RAN, finished_on=3_000), fields={"failedReason": "no"}))
    return life


@pytest.mark.parametrize(
    ("start", "touched"),
    [
        (Start(0, "2000-0", 0), False),  # the row's last is an entry: it stands before any look at the same id
        (Start(0, "1999-9", 10**9), True),
        (Start(0, "2000-1", 0), False),
        (Start(1, "1-0", 0), False),
    ],
)
def test_a_row_last_changed_by_an_entry(start, touched):
    assert is_touched(running().live, start) is touched


@pytest.mark.parametrize(("observed_at", "touched"), [(2_499, True), (2_500, True), (2_501, False)])
def test_a_row_last_changed_by_a_look(observed_at, touched):
    life = running()
    life.apply(look("active", 2_500, job(**RAN), lock_ttl_ms=1, stream_id="2000-0"))
    assert is_touched(life.live, Start(0, "2000-0", observed_at)) is touched


def test_a_row_of_a_later_history_is_touched_whatever_its_id():
    life = running()
    life.apply(look("active", 2_500, job(**RAN), lock_ttl_ms=1, stream_id="5-0", epoch=1))
    assert is_touched(life.live, Start(0, "9999-0", 9_999))
    assert is_touched(life.live, Start(1, "5-0", 2_500))
    assert not is_touched(life.live, Start(1, "5-1", 0))


def test_a_row_of_0_1_is_of_history_0():
    row = {**running().live}
    del row["epoch"]
    assert is_touched(row, Start(0, "1999-0", 0))
    assert not is_touched(row, Start(1, "1-0", 0))


@pytest.mark.parametrize(
    ("life", "asked"),
    [
        (running(), True),
        (Life(entry("added", BORN, job())), True),
        (failed(), True),
        (completed(), False),
    ],
)
def test_what_the_walk_did_not_touch_is_asked_about_unless_it_has_ended(life, asked):
    assert must_ask(life.live, Start(0, "5000-0", 5_000), reason="gap") is asked
    assert not must_ask(life.live, Start(0, "999-0", 0), reason="gap")


@pytest.mark.parametrize(("common_id", "asked"), [("2999-9", True), ("3000-0", False), ("9-9", True), (None, True)])
def test_after_a_failover_what_ended_behind_the_common_id_is_asked_about_too(common_id, asked):
    start = Start(1, "2000-0", 5_000)
    assert must_ask(completed().live, start, reason="failover", common_id=common_id) is asked
    assert not must_ask(completed().live, start, reason="gap", common_id=common_id)
    same_history = Start(0, "5000-0", 5_000)
    assert not must_ask(completed().live, same_history, reason="failover", common_id=common_id)
