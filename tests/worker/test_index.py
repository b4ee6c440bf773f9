from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.core.fold import fold
from streams.core.job import job_key
from streams.core.lifecycle import FINISHED, STATES
from streams.core.rules import DEFAULT_RULES
from streams.wire import dumps
from streams.worker.index import BUCKET_MS, FIRST_RETRY_MS, MAX_RETRY_MS, Group, PartitionIndex
from tests.core.replay import Bridge, cases, recording

ALL = 10_000


def row(due, state="active", alerts=None, queue="q"):
    """As of release 0.1, which says when a row is due, and nothing else."""
    notes = {"due": due, "state": state}
    if alerts is not None:
        notes["alerts"] = {name: {} for name in alerts}
    return {"source": "s", "queue": queue, "state": state, "_": notes}


def index(**rows):
    made = PartitionIndex()
    for key, one in rows.items():
        made.put(key.encode(), one)
    return made


def settled(now_ms):
    """The time up to which whole buckets are over."""
    return now_ms // BUCKET_MS * BUCKET_MS


class TestDue:
    def test_a_key_is_due_when_its_bucket_is_over(self):
        one = index(a=row(1_000))
        assert one.due_keys(1_000, ALL) == []
        assert one.due_keys(1_249, ALL) == []
        assert one.due_keys(1_250, ALL) == [b"a"]

    def test_it_stays_due_until_somebody_moves_it_on(self):
        one = index(a=row(1_000))
        assert one.due_keys(2_000, ALL) == one.due_keys(2_000, ALL) == [b"a"]
        one.put(b"a", row(9_000))
        assert one.due_keys(2_000, ALL) == []
        assert one.due_keys(9_250, ALL) == [b"a"]

    def test_the_longest_overdue_comes_first(self):
        one = index(a=row(3_000), b=row(1_000), c=row(2_000), d=row(9_000))
        assert one.due_keys(5_000, ALL) == [b"b", b"c", b"a"]

    def test_a_due_time_of_the_past_is_due_at_once(self):
        one = index(a=row(5_000))
        one.due_keys(100_000, ALL)
        one.put(b"b", row(1_000))
        assert one.due_keys(100_000, ALL) == [b"a", b"b"]

    def test_a_key_that_moved_back_and_forth_is_named_once(self):
        one = index(a=row(1_000))
        for due in (5_000, 1_000, 5_000, 1_000):
            one.put(b"a", row(due))
        assert one.due_keys(1_250, ALL) == [b"a"]
        assert one.due_keys(5_250, ALL) == [b"a"]

    @pytest.mark.parametrize("due", [-1, -300])
    def test_a_key_dropped_before_its_time(self, due):
        one = index(a=row(1_000), b=row(due))
        one.drop(b"a")
        one.drop(b"b")
        one.drop(b"never")
        assert one.due_keys(2_000, ALL) == []
        assert len(one) == 0

    def test_a_key_dropped_while_it_is_due(self):
        one = index(a=row(1_000), b=row(1_000, "waiting"))
        assert one.due_keys(2_000, ALL) == [b"a", b"b"]
        one.drop(b"a")
        one.drop(b"b")
        assert one.due_keys(2_000, ALL) == []


class TestVerification:
    def test_what_is_to_be_verified_comes_last_and_no_more_than_asked_for(self):
        states = dict(
            zip("abcdefg", ["waiting", "paused", "delayed", "stuck", "active", "completed", "failed"], strict=True)
        )
        one = index(**{key: row(1_000 * at, state) for at, (key, state) in enumerate(states.items())})
        assert one.due_keys(ALL, ALL) == [b"e", b"f", b"g", b"a", b"b", b"c", b"d"]
        assert one.due_keys(ALL, 2) == [b"e", b"f", b"g", b"a", b"b"]
        assert one.due_keys(ALL, 0) == [b"e", b"f", b"g"]

    def test_those_asked_for_make_room_for_the_next(self):
        one = index(a=row(1, "waiting"), b=row(2, "waiting"), c=row(3, "waiting"))
        keys = one.due_keys(1_000, 2)
        one.asked(keys, 1_000)
        assert one.due_keys(1_000, 2) == [b"c"]


class TestRetries:
    def test_what_was_asked_for_comes_up_again_later_each_time(self):
        one, now = index(a=row(1_000)), 2_000
        waits = []
        for _ in range(8):
            assert one.due_keys(now, ALL) == [b"a"]
            one.asked([b"a"], now)
            waited = 0
            while not one.due_keys(now + waited, ALL):
                waited += BUCKET_MS
            waits.append(waited)
            now += waited
        expected = [min(FIRST_RETRY_MS * 2**tries, MAX_RETRY_MS) for tries in range(8)]
        assert [wait - BUCKET_MS for wait in waits] == expected
        assert expected[:2] == [2_000, 4_000]
        assert expected[-1] == 60_000

    def test_many_retries_stay_within_the_bound(self):
        one = index(a=row(1_000))
        for _ in range(100):
            one.asked([b"a"], 0)
        assert one.due_keys(MAX_RETRY_MS + BUCKET_MS, ALL) == [b"a"]

    def test_an_answer_ends_the_retries_and_their_growth(self):
        one = index(a=row(1_000))
        one.asked([b"a"], 2_000)
        one.asked([b"a"], 5_000)
        one.put(b"a", row(20_000), answered=True)
        assert one.due_keys(19_000, ALL) == []
        assert one.due_keys(20_250, ALL) == [b"a"]
        one.asked([b"a"], 20_250)
        assert one.due_keys(20_250 + FIRST_RETRY_MS + BUCKET_MS, ALL) == [b"a"]

    def test_a_key_that_is_gone_is_not_asked_for_again(self):
        one = index(a=row(1_000))
        one.drop(b"a")
        one.asked([b"a"], 2_000)
        assert one.due_keys(ALL, ALL) == []


class TestCounts:
    def test_by_source_queue_and_state(self):
        one = index(a=row(0), b=row(0, "waiting"), c=row(0, "waiting"), d=row(0, "waiting", queue="r"))
        assert one.counts == {
            Group("s", "q", "active"): 1,
            Group("s", "q", "waiting"): 2,
            Group("s", "r", "waiting"): 1,
        }
        one.put(b"b", row(0))
        one.drop(b"c")
        assert one.counts[Group("s", "q", "active")] == 2
        assert Group("s", "q", "waiting") not in one.counts
        assert len(one) == 3

    def test_a_queue_whose_rows_are_gone_is_forgotten(self):
        one = index(a=row(0), b=row(0, queue="r"), c=row(0, queue="r"))
        assert one.queues == {("s", "q"): 1, ("s", "r"): 2}
        one.drop(b"a")
        one.drop(b"b")
        assert one.queues == {("s", "r"): 1}
        assert one.counts == {Group("s", "r", "active"): 1}

    def test_open_alerts(self):
        one = index(a=row(0, alerts=["failed"]), b=row(0, alerts=["stuck"]), c=row(0))
        assert one.alerts == {b"a": ("failed",), b"b": ("stuck",)}
        assert one.firing == {"failed": 1, "stuck": 1}
        one.put(b"a", row(0))
        one.put(b"c", row(0, alerts=["stuck"]))
        one.drop(b"b")
        assert one.alerts == {b"c": ("stuck",)}
        assert one.firing == {"failed": 0, "stuck": 1}


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
times = st.integers(0, 100_000)


class AgainstAModel(RuleBasedStateMachine):
    """What is due is what was due in a bucket that is over: a dict of due times says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PartitionIndex()
        self.rows: dict[bytes, dict[str, Any]] = {}
        self.due: dict[bytes, int] = {}
        self.again: dict[bytes, int] = {}
        self.tries: Counter[bytes] = Counter()
        self.now = 0

    @rule(
        key=keys,
        due=times,
        state=st.sampled_from(STATES),
        alerts=st.sampled_from([None, ["failed"], ["stuck"]]),
        answered=st.booleans(),
    )
    def put(self, key, due, state, alerts, answered):
        # A row's state and its due time change together: a fold sets both.
        due = due // 8 * 8 + STATES.index(state)
        finished = state in FINISHED and (key not in self.rows or self.rows[key]["state"] != state)
        if answered or finished:
            self.again.pop(key, None)
            self.tries[key] = 0
        self.rows[key] = row(due, state, alerts)
        self.due[key] = max(due, self.again.get(key, due))
        self.index.put(key, self.rows[key], answered=answered)

    @rule(key=keys)
    def drop(self, key):
        self.rows.pop(key, None)
        self.due.pop(key, None)
        self.again.pop(key, None)
        self.tries[key] = 0
        self.index.drop(key)

    @rule(asked=st.lists(keys, unique=True, max_size=3))
    def ask(self, asked):
        for key in asked:
            if key in self.due:
                self.due[key] = self.now + min(FIRST_RETRY_MS * 2 ** self.tries[key], MAX_RETRY_MS)
                self.again[key] = self.due[key]
                self.tries[key] += 1
        self.index.asked(asked, self.now)

    @rule(later=st.integers(0, 20_000))
    def wait(self, later):
        self.now += later

    @rule(verify=st.integers(0, 4))
    def look(self, verify):
        due = {key for key, at in self.due.items() if at < settled(self.now)}
        quiet = {key for key in due if self.is_to_be_verified(self.rows[key])}
        found = self.index.due_keys(self.now, verify)
        assert len(found) == len(set(found))
        loud = len(due - quiet)
        assert set(found[:loud]) == due - quiet
        assert set(found[loud:]) <= quiet
        assert len(found) == loud + min(verify, len(quiet))

    @staticmethod
    def is_to_be_verified(one):
        return one["state"] in ("waiting", "paused", "delayed", "stuck") or (
            one["state"] in FINISHED and "alerts" in one["_"]
        )

    @invariant()
    def counts(self):
        assert len(self.index) == len(self.rows)
        counted = Counter(Group(one["source"], one["queue"], one["state"]) for one in self.rows.values())
        assert self.index.counts == counted
        assert self.index.queues == ({("s", "q"): len(self.rows)} if self.rows else {})
        opened = {key: tuple(one["_"]["alerts"]) for key, one in self.rows.items() if "alerts" in one["_"]}
        assert self.index.alerts == opened
        firing = Counter(rule for rules in opened.values() for rule in rules)
        assert {rule: count for rule, count in self.index.firing.items() if count} == firing


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_an_index_restored_from_bytes_is_the_one_that_was_built_row_by_row():
    """Over the rows of every recording, alerts and odd texts among them."""
    table: dict[bytes, Any] = {}
    for version, scenario in cases():
        for event in events(version, scenario):
            key = job_key(event["source"], event["queue"], event["job_id"]).encode()
            table[key] = fold(table.get(key), event).row
    rows: dict[bytes, Any] = {key: one for key, one in table.items() if one is not None}
    odd = next(iter(rows.values()))
    nested = {"a": 1, "_": {"due": 2}}
    rows[b"s%2F1/q/a/b"] = {**odd, "source": "s/1", "queue": "q", "name": ',"_":{"due":1}', "return_value": nested}
    built, restored = PartitionIndex(), PartitionIndex()
    for key, one in rows.items():
        built.put(key, one)
    now = max(one["_"]["at"] for one in table.values() if one) + 1_000
    for _ in restored.restore({key: dumps(one) for key, one in rows.items()}, now):
        pass
    assert restored.counts == built.counts
    assert restored.queues == built.queues
    assert restored.alerts == built.alerts
    assert restored.alerts
    later = now + DEFAULT_RULES.retention_ms + 2 * BUCKET_MS
    assert sorted(restored.due_keys(later, ALL)) == sorted(built.due_keys(later, ALL)) == sorted(rows)


def events(version, scenario):
    steps = recording(version)[scenario]
    bridge = Bridge(steps)
    return [event for k in range(len(steps)) for event in bridge.entries(k) if event["job_id"]]
