"""What is asked when jobs are looked at, and what is made of the answers."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from streams.bridge import bullmq
from streams.bridge.bullmq import Keys
from streams.bridge.ids import START
from streams.bridge.looks import HEAD_WIDTH, asks, read_head, upcoming
from streams.bridge.pace import COMPARED_PER_S, Pace
from streams.bridge.stream import Look, Stream
from streams.bridge.walk import Begin

HASH = {"name": "n", "opts": "{}", "timestamp": "1", "data": "{}"}
NOWHERE = [None, -2, None, None, None, None, None]


def stream(**known: Any) -> Stream:
    own = Stream("s", "q", Keys("bull", "q"), position=(5, 0), read_to=(5, 0), **known)
    own.sizes._unsure = 0
    return own


def head(last: str = "5-0", seconds: int = 7) -> list[Any]:
    info = {"last-entry": [last, []], "first-entry": ["2-0", []], "last-generated-id": last, "entries-added": 9}
    return [[seconds, 0], {**info, "length": 4, "max-deleted-entry-id": "1-0"}, [None], 0]


def comparing() -> Stream:
    own = stream()
    own.comparisons.ask("request", "id")
    own.walks.append(own.comparisons.begin())
    return own


def answer(own: Stream, *replies: list[Any], seconds: int = 7) -> list[Look]:
    """The answers to all that is asked now, in order."""
    looks: list[Look] = []
    asked = list(asks(own, 0.0, Pace()))
    assert len(asked) == len(replies)
    for ask, reply in zip(asked, replies, strict=True):
        assert len(ask.commands) == HEAD_WIDTH + len(reply)
        looks += ask.read([*head(seconds=seconds), *reply])
    return looks


def test_a_comparison_begins_with_its_first_page():
    own = comparing()
    own.observed_at = 9_000
    own.epoch = 3
    assert answer(own, [["1", "2"]]) == []
    walk = own.walks[0]
    assert (walk.begin, list(walk.ids), walk.jobs) == (Begin(3, (5, 0), 9_000), ["1", "2"], 2)


def walked_to_wait() -> Stream:
    own = comparing()
    answer(own, [[]])
    answer(own, [["1", "2", "3"]])
    assert own.walks[0].waits_in == "wait"
    return own


def test_jobs_that_wait_are_seen_in_the_list_read_beside_them():
    own = walked_to_wait()
    done = [None, -2, 4.0, None, None, None, None]
    looks = answer(own, [HASH, *NOWHERE, {}, *NOWHERE, HASH, *done, ["7", "1", "2", "3"]])
    assert [(look.job_id, look.found, look.where, look.request) for look in looks] == [
        ("1", True, "wait", "id"),
        ("2", False, None, "id"),
        ("3", True, "completed", "id"),
    ]
    assert (own.walks[0].done, list(own.walks[0].ids)) == (3, [])


def test_a_job_that_has_left_the_list_and_is_nowhere_else_is_searched_for_before_that_is_said():
    own = walked_to_wait()
    looks = answer(own, [*[HASH, *NOWHERE] * 3, ["1", "3"]])
    assert [look.job_id for look in looks] == ["1", "3"]
    walk = own.walks[0]
    assert (list(walk.ids), walk.done, walk.over) == (["2"], 2, False)
    assert len(next(iter(asks(own, 0.0, Pace()))).commands) == HEAD_WIDTH + bullmq.PROBE_WIDTH + bullmq.SEARCH_WIDTH + 1
    (look,) = answer(own, [HASH, *NOWHERE, None, None, None, None, 2, 0, ["1", "3"]])
    assert (look.found, look.where, look.request) == (True, None, "id")
    assert (walk.done, own.searched) == (3, set())


def test_the_list_cannot_be_read_any_more():
    own = walked_to_wait()
    assert answer(own, [*[HASH, *NOWHERE] * 3, ResponseError("WRONGTYPE")]) == []
    assert list(own.walks[0].ids) == ["1", "2", "3"]


def test_many_jobs_are_asked_about_in_several_groups_and_answered_in_any_of_them():
    own = comparing()
    walk = own.walks[0]
    walk.ids = dict.fromkeys(map(str, range(900)))
    groups = list(asks(own, 0.0, Pace()))
    assert len(groups) == 4
    groups[1].read([*head(), *[{}, *NOWHERE] * 200])
    assert (walk.done, len(walk.ids), "0" in walk.ids, "200" in walk.ids) == (200, 700, True, False)


@pytest.mark.parametrize(("reason", "paced"), [("request", True), ("gap", True), ("first_sight", False)])
def test_a_comparison_that_nobody_waits_for_keeps_its_pace(reason, paced):
    own, pace = stream(), Pace()
    own.comparisons.ask(reason)
    own.walks.append(own.comparisons.begin())
    own.walks[0].ids = dict.fromkeys(map(str, range(2_000)))
    for ask in asks(own, 100.0, pace):
        ask.read([*head(), *[{}, *NOWHERE] * 200])
    wait_s = 800 / COMPARED_PER_S
    assert pace.wait_s(100.0) == pytest.approx(wait_s)
    assert (list(asks(own, 100.1, pace)) == [], upcoming(own, 100.1, pace) == []) == (paced, paced)
    assert len(list(asks(own, 100.0 + wait_s, pace))) == 4
    assert (own.ready, own.walking) == (not paced, True)


def test_of_jobs_that_may_be_gone_is_asked_first_whether_they_are_there():
    own = stream()
    for job_id in ("1", "2", "3"):
        own.ask(job_id, "verify")
    own.wanted["2"] = "probe"
    looks = answer(own, [HASH, None, -2, None, None, 1.0, None, None], [0, 1, 1])
    assert [(look.job_id, look.found, look.reason) for look in looks] == [("2", True, "probe"), ("1", False, "verify")]
    assert (own.wanted, own.verify) == ({"2": "verify", "3": "verify"}, {})


def test_heads():
    full = read_head(head())
    assert (full.first, full.deleted, full.is_gone, full.added) == ((2, 0), (1, 0), False, 9)
    gone = read_head([[7, 0], ResponseError("no such key"), [None], 0])
    assert (gone.is_gone, gone.at, gone.first) == (True, START, None)
    old = head()
    del old[1]["entries-added"], old[1]["max-deleted-entry-id"]
    assert (read_head(old).is_gone, read_head(old).added, read_head(old).deleted) == (False, None, START)
