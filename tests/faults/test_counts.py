"""Drift out of hand-made records of `health` that agree, or differ in one thing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.counts import STALE_MS, drift


def table(partition: int, **counts: int) -> dict[str, Any]:
    return {"type": "table", "partition": partition, "counts": {"s/a%2Fb": counts}}


def heartbeat(*, paused: bool = False, at: int = 1, **counts: int) -> dict[str, Any]:
    return {"type": "heartbeat", "source": "s", "queue": "a/b", "at": at, "paused": paused, "counts": counts}


def test_partitions_are_added_up():
    assert drift([table(0, waiting=1, delayed=2), table(1, waiting=2, completed=5), heartbeat(wait=3, delayed=2)]) == []


def test_each_state_is_compared():
    (line,) = drift([table(0, waiting=1), heartbeat(wait=1, active=1)])
    assert line == "s/a%2Fb: 0 rows are active, the heartbeat says 1"


def test_the_newest_counts():
    assert drift([table(0, waiting=1), heartbeat(wait=2), table(0, waiting=2)]) == []
    assert drift([table(0, waiting=1), heartbeat(wait=2), heartbeat(wait=1)]) == []
    assert drift([table(0, waiting=1), table(0), heartbeat()]) == []
    assert drift([table(0, waiting=1), {**table(0), "counts": {}, "whole": True}, heartbeat()]) == []


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        ({"stuck": 2, "active": 1}, {"active": 3}),
        ({"stuck": 2, "unknown": 1}, {"active": 1}),
        ({"waiting": 3}, {"prioritized": 1, "waiting-children": 2}),
        ({}, {"completed": 7}),
    ],
)
def test_where_which_job_is(rows, places):
    assert drift([table(0, **rows), heartbeat(**places)]) == []


def test_a_paused_queue():
    assert (
        drift([table(0, paused=2, waiting=1), heartbeat(paused=True, wait=1, prioritized=1, **{"waiting-children": 1})])
        == []
    )
    assert drift([table(0, paused=2), heartbeat(paused=False, wait=1)])


def test_a_queue_that_is_gone_is_not_compared():
    other = {**heartbeat(at=STALE_MS + 2), "queue": "other"}
    assert drift([table(0, waiting=1), heartbeat(), other]) == []
