from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.worker.counts import (
    FIRST_PATIENCE_MS,
    INTERVAL_MS,
    QUEUES_PER_RECORD,
    REPEAT_MS,
    Balance,
    Told,
    name_of,
    queue_of,
)
from streams.worker.drift import by_state
from streams.worker.index import Group, PartitionIndex
from tests.core.build import BORN, entry, job, look
from tests.worker.build import PARTITION, Worker

QUEUE = ("s", "q")


@given(st.tuples(st.from_regex(r"[a-z0-9_]+", fullmatch=True), st.text(min_size=1)))
def test_names_are_read_back(queue):
    assert queue_of(name_of(queue)) == queue


def groups(**queues):
    return {Group("s", queue, state): count for queue, states in queues.items() for state, count in states.items()}


def tell(told, counts, now_ms=0, lost=None):
    """What is told now, as it stands on Kafka afterwards."""
    telling = told.due(counts, lost or {}, now_ms)
    if telling is None:
        return []
    told.said(telling)
    return telling.records


class TestTold:
    def test_what_has_changed_is_told_at_most_every_ten_seconds(self):
        told = Told()
        counts = groups(q={"waiting": 2}, r={"active": 1, "failed": 0})
        assert tell(told, counts, 1_000) == [({"s/q": {"waiting": 2}, "s/r": {"active": 1}}, True)]
        counts.update(groups(q={"waiting": 3}))
        assert tell(told, counts, 1_000 + INTERVAL_MS - 1) == []
        assert tell(told, counts, 1_000 + INTERVAL_MS) == [({"s/q": {"waiting": 3}}, False)]
        assert tell(told, counts, 1_000 + 2 * INTERVAL_MS) == []

    def test_what_is_not_on_kafka_is_told_again(self):
        told, counts = Told(), groups(q={"waiting": 2})
        first = told.due(counts, {}, 1_000)
        assert first is not None
        assert told.due(counts, {}, 1_000) == first
        told.said(first)
        counts.update(groups(q={"waiting": 3}))
        second = told.due(counts, {}, 1_000 + INTERVAL_MS)
        assert told.due(counts, {}, 1_000 + INTERVAL_MS) == second
        assert second is not None
        assert second.records == [({"s/q": {"waiting": 3}}, False)]

    def test_a_queue_without_rows_is_told_once_more(self):
        told = Told()
        tell(told, groups(q={"waiting": 2}))
        assert tell(told, groups(q={"waiting": 0}), INTERVAL_MS) == [({"s/q": {}}, False)]
        assert tell(told, {}, 2 * INTERVAL_MS) == []

    def test_what_bullmq_has_lost_is_told_beside_what_is_stuck(self):
        assert tell(Told(), groups(q={"stuck": 2}), lost={QUEUE: 1}) == [({"s/q": {"stuck": 2, "unknown": 1}}, True)]

    def test_many_queues_take_several_records(self):
        counts = groups(**{f"q{n}": {"waiting": 1} for n in range(QUEUES_PER_RECORD + 1)})
        records = tell(Told(), counts)
        assert [(len(counts), whole) for counts, whole in records] == [(QUEUES_PER_RECORD, True), (1, False)]

    def test_a_partition_without_rows_is_told_once_as_well(self):
        told = Told()
        assert tell(told, {}) == [({}, True)]
        assert tell(told, {}, INTERVAL_MS) == []


def heartbeat(entries_read=100, at=0, lag_ms=0, queue="q", **counts):
    return {
        "type": "heartbeat", "source": "s", "queue": queue, "at": at, "lag_ms": lag_ms, "entries_read": entries_read,
        "counts": counts,
    }  # fmt: skip


def table(partition=0, **counts):
    return {"type": "table", "partition": partition, "counts": {"s/q": counts}}


def apart(balance, beat):
    """Where they differ."""
    return {state: count for state, count in balance.apart(QUEUE, by_state(beat)).items() if count}


def asked(balance, now_ms=0, request="r"):
    return balance.due(now_ms, request)


class TestBalance:
    def test_partitions_are_added_up(self):
        balance = Balance()
        balance.take(table(0, waiting=2, active=1))
        balance.take(table(1, waiting=3))
        balance.take(table(0, waiting=1))
        assert balance.rows(QUEUE) == {"waiting": 4}
        assert apart(balance, heartbeat(wait=5, active=1)) == {"waiting": -1, "active": -1}

    def test_a_stuck_job_is_in_bullmqs_active_list(self):
        balance = Balance()
        balance.take(table(stuck=1, active=2))
        assert apart(balance, heartbeat(active=3)) == {}

    def test_what_an_owner_before_has_told_counts_no_more(self):
        balance = Balance()
        balance.take(table(0, stuck=2))
        balance.take(table(1, waiting=1))
        balance.take({"type": "table", "partition": 0, "counts": {}, "whole": True})
        assert balance.rows(QUEUE) == {"waiting": 1}

    def test_a_job_that_bullmq_has_lost_is_in_none_of_its_counts(self):
        balance = Balance()
        balance.take(table(stuck=2, unknown=1, active=2))
        assert apart(balance, heartbeat(active=3)) == {}

    def test_how_far_they_are_apart_is_told_of_every_state(self):
        balance = Balance()
        balance.take(table(waiting=3))
        balance.take(heartbeat(wait=1))
        found = balance.drift()
        assert {state: count for (*_, state), count in found.items()} == {
            "waiting": 2, "active": 0, "delayed": 0, "paused": 0,
        }  # fmt: skip

    def test_what_a_partition_tells_after_the_heartbeat_counts(self):
        balance = Balance()
        balance.take(table(waiting=3))
        balance.take(heartbeat(wait=1))
        balance.take(table(waiting=1))
        assert not any(balance.drift().values())

    def test_a_queue_that_has_gone_silent_is_apart_from_nothing(self):
        """By when its heartbeats came, whatever time they name."""
        now = [0.0]
        balance = Balance(now_s=lambda: now[0])
        balance.take(table(waiting=3))
        balance.take(heartbeat(at=10**18))
        now[0] = 60.0
        balance.take(heartbeat(queue="r"))
        assert {queue for _, queue, _ in balance.drift()} == {"q", "r"}
        now[0] = 60.1
        balance.take(heartbeat(queue="r"))
        assert {queue for _, queue, _ in balance.drift()} == {"r"}

    def test_counts_that_stay_apart_in_two_heartbeats_are_asked_about_once(self):
        balance = Balance()
        balance.take(table(waiting=3))
        balance.take(heartbeat(wait=0))
        assert asked(balance) is None
        balance.take(heartbeat(wait=0))
        assert asked(balance) == (QUEUE, "drift", "r")
        balance.take({"type": "snapshot", "status": "started", "source": "s", "queue": "q", "request": "r"})
        assert asked(balance, 10 * REPEAT_MS) is None

    def test_a_question_is_repeated_until_it_is_echoed(self):
        balance = Balance()
        balance.take(table(waiting=3))
        balance.take(heartbeat())
        balance.take(heartbeat())
        assert asked(balance) == (QUEUE, "drift", "r")
        assert asked(balance, REPEAT_MS - 1, "other") is None
        assert asked(balance, REPEAT_MS, "other") == (QUEUE, "drift", "r")

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (heartbeat(wait=3), heartbeat(wait=0)),
            (heartbeat(wait=0), heartbeat(wait=6)),
            (heartbeat(wait=0), heartbeat(wait=0, entries_read=103)),
            (heartbeat(wait=0), heartbeat(wait=0, lag_ms=5_000)),
        ],
    )
    def test_what_the_flow_of_jobs_explains_is_not_asked_about(self, first, second):
        balance = Balance()
        balance.take(table(waiting=3))
        balance.take(first)
        balance.take(second)
        assert asked(balance) is None

    def test_a_busy_queue_is_asked_about_where_it_is_apart_by_more_than_its_flow(self):
        balance = Balance()
        balance.take(table(waiting=3_000))
        balance.take(heartbeat(entries_read=0))
        balance.take(heartbeat(entries_read=800))
        assert asked(balance) == (QUEUE, "drift", "r")

    def test_a_comparison_that_did_not_help_is_repeated_later_and_later(self):
        balance, now, found = Balance(), 0, []
        balance.take(table(waiting=3))
        balance.take(heartbeat())
        while now < 10 * FIRST_PATIENCE_MS:
            balance.take(heartbeat(at=now))
            question = asked(balance, now, f"r{now}")
            if question is not None:
                found.append(now)
                started = {
                    "type": "snapshot",
                    "status": "started",
                    "source": "s",
                    "queue": "q",
                    "request": question.request,
                }
                balance.take(started)
            now += 10_000
        assert found == [0, FIRST_PATIENCE_MS, 3 * FIRST_PATIENCE_MS, 7 * FIRST_PATIENCE_MS]

    def test_one_that_helped_begins_anew(self):
        balance = Balance()
        balance.take(table(waiting=3))
        for _ in range(2):
            balance.take(heartbeat())
        assert asked(balance) is not None
        balance.take(table(waiting=0))
        balance.take(heartbeat())
        balance.take(table(waiting=1))
        balance.take(heartbeat())
        balance.take(heartbeat())
        assert asked(balance, 1, "again") == (QUEUE, "drift", "again")

    @pytest.mark.parametrize(
        "forged",
        [
            {"partition": "0", "counts": {"s/q": {"waiting": 9}}},
            {"partition": -1, "counts": {"s/q": {"waiting": 9}}},
            {"partition": 4, "counts": {"s/q": {"waiting": 9}}},
            {"partition": 0.0, "counts": {"s/q": {"waiting": 9}}},
            {"partition": 0, "counts": {"s/r": {"waiting": "9", "active": 1e300, "delayed": None, "paused": True}}},
        ],
    )
    def test_what_is_no_count_counts_nothing(self, forged):
        balance = Balance(4)
        balance.take(table(3, waiting=1))
        balance.take({"type": "table", **forged})
        balance.take(heartbeat(wait=1))
        balance.take(heartbeat(wait=1, queue="r"))
        assert balance.rows(QUEUE) == {"waiting": 1}
        assert balance.drift()["s", "r", "waiting"] == -1

    def test_more_names_than_there_can_be_are_not_kept(self, monkeypatch):
        monkeypatch.setattr("streams.worker.counts.MOST_QUEUES", 3)
        now = [0.0]
        balance = Balance(now_s=lambda: now[0])
        for number in range(9):
            balance.take({"type": "table", "partition": 0, "counts": {f"s/{number}": {"waiting": 1}}})
            balance.take(heartbeat(queue=str(number)))
        assert len(balance.drift()) == 3 * 4
        now[0] = 60.1
        balance.take(heartbeat(queue="2"))
        balance.take(heartbeat(queue="new"))
        assert {queue for _, queue, _ in balance.drift()} == {"2", "new"}

    def test_after_records_have_expired_every_queue_is_compared(self):
        now = [1.0]
        balance = Balance(now_s=lambda: now[0])
        balance.take(heartbeat())
        balance.take({"type": "gap", "cause": "expired", "partition": 2})
        for now[0], queue in ((5.0, "r"), (11.0, "q"), (61.0, "s"), (61.1, "new")):
            balance.take(heartbeat(queue=queue))
        questions = [asked(balance, 0, request) for request in ("1", "2", "3", "4")]
        assert questions == [(("s", name), "gap", n) for name, n in (("q", "1"), ("r", "2"), ("s", "3"))] + [None]
        balance.take(heartbeat(at=21_000))
        assert asked(balance, REPEAT_MS) == (QUEUE, "gap", "1")  # nothing was apart, and it is asked for all the same

    def test_queues_that_are_heard_of_after_records_have_expired_are_compared_too(self):
        now = [1.0]
        balance = Balance(now_s=lambda: now[0])
        balance.take({"type": "gap", "cause": "expired", "partition": 2})
        now[0] = 500.0  # the bridge was away as well
        balance.take(heartbeat())
        assert asked(balance) == (QUEUE, "gap", "r")
        balance.take({"type": "gap", "cause": "trimmed"})
        assert asked(balance, 1) is None

    @pytest.mark.parametrize("record", [{}, [], {"type": "table"}, {"type": "heartbeat", "source": "s"}])
    def test_what_is_none_of_ours_raises_what_its_reader_expects(self, record):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            Balance().take(record)


def test_a_job_that_bullmq_has_lost_stays_one_whatever_is_said_of_it():
    """An entry ends the suspicion of a row, and changes nothing of where the job is."""
    worker = Worker()
    worker.fold(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1))
    for at in (3_000, 9_000):
        worker.fold(look(None, at, job(), found=True, stream_id=f"{BORN}-1"))
    assert worker.row()["source_state"] == "unknown"
    worker.fold(entry("progress", 10_000, fields={"data": "7"}))
    assert ("suspect" in worker.row()["_"], worker.row()["source_state"]) == (False, "unknown")
    for index in (worker.handler._indexes[PARTITION], restored(worker)):
        assert index.lost == {("s", "q"): 1}
    worker.fold(look("wait", 11_000, job(), stream_id="10000-0"))
    assert (worker.handler._indexes[PARTITION].lost, restored(worker).lost) == ({}, {})


def restored(worker: Worker) -> PartitionIndex:
    index = PartitionIndex()
    for _ in index.restore(worker.rows, 20_000):
        pass
    return index
