from __future__ import annotations

import pytest

from streams.core.rules import Rules
from tests.core.build import BORN, Life, entry, job, look, running

RAN = {"processed_on": 2_000, "attempts_started": 1}


def seen(where, at, hashed=None, **more):
    """A look after the entries of `running`."""
    return look(where, at, job(**RAN) if hashed is None else hashed, **{"stream_id": "2000-0", **more})


def waiting(**more):
    return Life(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1, **more))


class TestGone:
    @pytest.mark.parametrize("life", [running, waiting])
    def test_an_unfinished_job_has_vanished(self, life):
        life = life()
        state = life.live["state"]
        life.apply(look(None, 9_000, stream_id="2000-0"))
        assert life.row is None
        assert life.moves[-1] == (state, "removed", "vanished")
        last = life.transitions[-1]
        assert (last["at"], last["observed"], last["final"], last["source_to"]) == (9_000, True, True, "removed")

    def test_a_finished_job_keeps_its_row(self):
        life = running()
        life.apply(entry("completed", 3_000, job(**RAN, finished_on=3_000), fields={"prev": "active"}))
        told = len(life.transitions)
        life.apply(look(None, 9_000, stream_id="3000-0"))
        assert life.live["state"] == "completed"
        assert life.live["observed_at"] == 9_000
        assert len(life.transitions) == told

    def test_an_unknown_job_stays_unknown(self):
        life = Life(look(None, 9_000))
        assert (life.row, life.transitions) == (None, [])


class TestAnotherLife:
    def test_an_id_that_was_added_anew_unseen(self):
        life = running()
        life.apply(look("wait", 9_000, job(timestamp=8_000, name="other"), stream_id="2000-0"))
        assert life.moves[-2:] == [("active", "removed", "replaced"), (None, "waiting", "observed")]
        assert (life.live["life"], life.live["seq"], life.live["name"]) == (8_000, 1, "other")
        assert [t["life"] for t in life.transitions[-2:]] == [BORN, 8_000]

    def test_a_row_that_never_saw_its_hash_is_not_replaced(self):
        life = Life(entry("active", 2_000))
        life.apply(seen("active", 3_000, lock_ttl_ms=9))
        assert life.live["life"] == 2_000
        assert life.live["timestamp"] == BORN
        assert life.moves == [(None, "active", "picked_up")]

    def test_a_look_without_the_hash_tells_no_other_life(self):
        life = running()
        life.apply(look("active", 3_000, None, lock_ttl_ms=9, stream_id="2000-0"))
        assert life.live["life"] == BORN

    def test_a_job_first_seen_by_a_look(self):
        life = Life(look("delayed", 9_000, job(delay=50), due_at=9_500, stream_id="8000-3"))
        row = life.live
        assert life.moves == [(None, "delayed", "observed")]
        assert (row["life"], row["due_at"], row["delay"], row["since"]) == (BORN, 9_500, 50, 9_000)
        assert (row["position"], row["observed_at"], row["enriched"]) == ("8000-3", 9_000, True)

    def test_a_job_first_seen_by_a_look_without_its_hash(self):
        life = Life(look("wait", 9_000, None, stream_id="8000-3"))
        assert (life.live["life"], life.live["enriched"], life.live["estimated"]) == (8_000, False, ["timestamp"])


class TestLocks:
    def suspect(self, life):
        return life.live["_"].get("suspect")

    def test_without_a_lock_a_job_is_suspect_and_nothing_is_told(self):
        life = running()
        life.apply(seen("active", 3_000))
        assert self.suspect(life) == {"at": 3_000, "processed_on": 2_000}
        assert (life.live["state"], len(life.transitions)) == ("active", 2)

    def test_at_the_second_look_after_the_interval_it_is_stuck(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(seen("active", 3_999))
        assert life.live["state"] == "active"
        life.apply(seen("active", 4_000))
        assert (life.live["state"], life.live["source_state"]) == ("stuck", "active")
        assert life.moves[-1] == ("active", "stuck", "lock_lost")
        last = life.transitions[-1]
        assert (last["at"], last["observed"], last["final"], last["duration_ms"]) == (4_000, True, False, 2_000)
        assert life.anomalies == []

    def test_the_interval_is_a_setting(self):
        life = running(rules=Rules(check_interval_ms=5_000))
        life.apply(seen("active", 3_000))
        life.apply(seen("active", 7_999))
        assert life.live["state"] == "active"
        life.apply(seen("active", 8_000))
        assert life.live["state"] == "stuck"

    @pytest.mark.parametrize("lock_ttl_ms", [0, 1, 30_000])
    def test_a_lock_ends_the_suspicion(self, lock_ttl_ms):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(seen("active", 4_000, lock_ttl_ms=lock_ttl_ms))
        assert self.suspect(life) is None
        life.apply(seen("active", 5_000))
        assert life.live["state"] == "active"

    def test_another_start_between_the_looks_is_another_suspicion(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(seen("active", 5_000, job(processed_on=4_000)))
        assert life.live["state"] == "active"
        assert self.suspect(life) == {"at": 5_000, "processed_on": 4_000}

    def test_an_entry_between_the_looks_ends_the_suspicion(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(entry("progress", 3_500, fields={"data": "1"}))
        assert self.suspect(life) is None
        life.apply(seen("active", 5_000, stream_id="3500-0"))
        assert life.live["state"] == "active"

    def test_a_job_found_elsewhere_is_suspect_no_more(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(seen("wait", 4_000))
        assert self.suspect(life) is None
        assert life.moves[-1] == ("active", "waiting", "observed")

    def test_stuck_stays_stuck_until_the_lock_is_back(self):
        life = running()
        for at in (3_000, 4_000, 5_000):
            life.apply(seen("active", at))
        assert life.live["state"] == "stuck"
        life.apply(seen("active", 6_000, lock_ttl_ms=9_000))
        assert life.moves[-2:] == [("active", "stuck", "lock_lost"), ("stuck", "active", "observed")]

    def test_a_job_first_seen_running_without_a_lock_begins_as_active(self):
        life = Life(seen("active", 3_000), seen("active", 4_000))
        assert life.moves == [(None, "active", "observed"), ("active", "stuck", "lock_lost")]


class TestPlaces:
    def test_a_queue_that_was_paused_and_resumed(self):
        life = waiting()
        life.apply(look("wait", 5_000, job(), queue_paused=True, reason="pause", stream_id="1000-1"))
        life.apply(look("wait", 6_000, job(), reason="resume", stream_id="1000-1"))
        assert life.moves[1:] == [("waiting", "paused", "paused"), ("paused", "waiting", "resumed")]
        assert [t["source_to"] for t in life.transitions] == ["waiting"] * 3

    def test_the_paused_list_of_bullmq_4_and_5(self):
        life = waiting()
        life.apply(look("paused", 5_000, job(), stream_id="1000-1"))
        assert life.moves[-1] == ("waiting", "paused", "paused")

    def test_a_prioritized_job_in_a_paused_queue(self):
        life = Life(look("prioritized", 5_000, job(priority=1), queue_paused=True))
        assert (life.live["state"], life.live["source_state"]) == ("paused", "prioritized")

    def test_another_place_at_the_same_time_was_not_the_pause(self):
        life = waiting()
        life.apply(look("prioritized", 5_000, job(), queue_paused=True, stream_id="1000-1"))
        assert life.moves[-1] == ("waiting", "paused", "observed")

    @pytest.mark.parametrize("where", ["active", "delayed", "waiting-children", "completed", "failed"])
    def test_a_pause_concerns_no_other_place(self, where):
        life = Life(look(where, 5_000, job(finished_on=4_000), queue_paused=True, lock_ttl_ms=1))
        assert life.live["state"] == ("waiting" if where == "waiting-children" else where)

    def test_the_place_alone_moves_the_job_and_takes_nothing(self):
        life = waiting()
        before = life.live
        life.apply(look("paused", 5_000, None, stream_id="1000-1"))
        assert life.moves[-1] == ("waiting", "paused", "paused")
        same = {"name", "data", "attempts_made", "estimated", "enriched", "timestamp"}
        assert {name: life.live[name] for name in same} == {name: before[name] for name in same}

    def test_a_look_that_finds_nothing_new_tells_nothing(self):
        life = waiting()
        life.apply(look("wait", 5_000, job(progress=3), stream_id="1000-1"))
        assert len(life.transitions) == 1
        assert (life.live["progress"], life.live["observed_at"], life.live["since"]) == (3, 5_000, BORN)

    @pytest.mark.parametrize("where", ["repeat", ""])
    def test_a_place_that_nobody_knows_changes_nothing(self, where):
        life = waiting()
        before = life.live
        life.apply(look(where, 5_000, job(progress=3), stream_id="1000-1"))
        assert (life.live["state"], life.live["progress"]) == (before["state"], before["progress"])

    def test_a_job_found_finished_has_finished_when_bullmq_says(self):
        life = running()
        hashed = job(**RAN, finished_on=4_321, failed_reason="no", attempts_made=3)
        life.apply(look("failed", 9_000, hashed, stream_id="2000-0"))
        last = life.transitions[-1]
        assert (last["to"], last["at"], last["error"], last["cause"], last["final"]) == (
            "failed", 4_321, "no", "observed", True,
        )  # fmt: skip
        assert life.live["since"] == 4_321

    def test_a_completed_job_has_no_error_whatever_failed_before(self):
        life = Life(look("completed", 9_000, job(finished_on=4_321, failed_reason="no")))
        assert life.transitions[-1]["error"] is None
        assert life.live["failed_reason"] == "no"

    def test_a_place_without_its_time_of_finishing(self):
        life = Life(look("completed", 9_000, None))
        assert life.transitions[-1]["at"] == 9_000

    def test_attempts_of_bullmq_4_count_at_the_start(self):
        life = Life(look("active", 9_000, job(attempts_made=2, counts_starts=True), lock_ttl_ms=1))
        assert life.live["attempts_made"] == 1

    def test_a_due_time_is_kept_for_the_delayed_alone(self):
        assert Life(look("delayed", 9_000, job(), due_at=9_999)).live["due_at"] == 9_999
        assert Life(look("wait", 9_000, job(), due_at=9_999)).live["due_at"] is None


class TestNoPlace:
    def seen(self, at, **more):
        return look(None, at, job(**RAN), **{"found": True, "stream_id": "2000-0", **more})

    def test_seen_twice_in_no_list_it_is_stuck_and_where_it_is_unknown(self):
        life = running()
        life.apply(self.seen(3_000))
        assert (life.live["state"], life.live["source_state"], len(life.transitions)) == ("active", "active", 2)
        life.apply(self.seen(3_999))
        assert life.live["state"] == "active"
        life.apply(self.seen(4_000))
        assert (life.live["state"], life.live["source_state"]) == ("stuck", "unknown")
        assert (life.moves[-1], life.transitions[-1]["source_to"]) == (("active", "stuck", "observed"), "unknown")
        (alert,) = life.alerts
        assert (alert["rule"], alert["cause"], alert["job"]["state"]) == ("stuck", "in_no_list", "stuck")
        assert alert["reason"] == "in none of BullMQ's lists, seen twice 1.0 s apart"
        life.apply(self.seen(9_000))
        assert (len(life.transitions), len(life.alerts), life.anomalies) == (3, 1, [])

    @pytest.mark.parametrize("life", [waiting, lambda: Life(entry("delayed", BORN, job(), fields={"delay": "9"}))])
    def test_whatever_was_believed(self, life):
        life = life()
        life.apply(self.seen(3_000, stream_id="1000-1"))
        life.apply(self.seen(4_000, stream_id="1000-1"))
        assert (life.live["state"], life.live["due_at"], life.anomalies) == ("stuck", None, [])

    def test_a_job_first_seen_so(self):
        life = Life(self.seen(3_000), self.seen(4_000))
        assert life.moves == [(None, "stuck", "observed")]
        assert life.anomalies == []

    def test_found_in_a_list_it_was_not_rescued(self):
        life = running()
        for at in (3_000, 4_000):
            life.apply(self.seen(at))
        life.apply(seen("wait", 5_000))
        assert life.moves[-1] == ("stuck", "waiting", "observed")
        assert life.told[-1] == ("stuck", "resolved", "rescued")

    @pytest.mark.parametrize(("stalled", "cause"), [({"stalled": True}, "rescued"), ({}, "rate_limited")])
    def test_rescued_is_what_a_stalled_check_says(self, stalled, cause):
        life = running()
        for at in (3_000, 4_000):
            life.apply(self.seen(at))
        life.apply(entry("waiting", 5_000, job(**RAN), fields={"prev": "active"}, **stalled))
        assert life.moves[-1][2] == cause

    def test_back_in_the_active_list_it_is_suspect_anew(self):
        life = running()
        for at in (3_000, 4_000):
            life.apply(self.seen(at))
        life.apply(seen("active", 5_000))
        assert (life.live["state"], life.live["source_state"]) == ("active", "active")
        life.apply(seen("active", 6_000))
        assert life.moves[-2:] == [("stuck", "active", "observed"), ("active", "stuck", "lock_lost")]

    def test_a_lost_lock_that_is_in_no_list_at_last_is_the_same_incident(self):
        life = running()
        for at in (3_000, 4_000):
            life.apply(seen("active", at))
        for at in (5_000, 6_000):
            life.apply(self.seen(at))
        assert life.moves[-1] == ("stuck", "stuck", "observed")
        assert life.told == [("stuck", "firing", None)]
        assert life.anomalies == []

    def test_two_suspicions_are_not_one(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(self.seen(4_000))
        life.apply(seen("active", 5_000))
        assert life.live["state"] == "active"

    def test_an_entry_between_ends_the_suspicion(self):
        life = running()
        life.apply(self.seen(3_000))
        life.apply(entry("progress", 3_500, fields={"data": "1"}))
        life.apply(self.seen(5_000, stream_id="3500-0"))
        assert life.live["state"] == "active"

    def test_with_the_hash_gone_as_well_it_has_vanished(self):
        life = running()
        life.apply(self.seen(3_000))
        life.apply(look(None, 4_000, stream_id="2000-0"))
        assert life.moves[-1] == ("active", "removed", "vanished")

    def test_a_finished_job_out_of_its_set_has_still_finished(self):
        life = running()
        done = job(**RAN, finished_on=3_000)
        life.apply(entry("completed", 3_000, done))
        for at in (4_000, 6_000):
            life.apply(look(None, at, done, found=True, stream_id="3000-0"))
        assert life.live["state"] == "completed"

    def test_unless_its_end_was_undone(self):
        life = running()
        life.apply(entry("completed", 3_000, job(**RAN, finished_on=3_000)))
        for at in (4_000, 6_000):
            life.apply(self.seen(at, stream_id="9-0", epoch=1))
        assert life.moves[-1] == ("completed", "stuck", "observed")

    def test_an_id_like_a_marker_is_a_job(self):
        marker = "0:tenant:42"
        life = Life(
            entry("waiting", 2_000, job(), job_id=marker),
            look("active", 3_000, job(), job_id=marker, stream_id="2000-0"),
        )
        assert (life.live["id"], life.live["state"]) == (marker, "active")


class TestReplica:
    def test_no_suspicion(self):
        life = running()
        for at in (3_000, 5_000, 7_000):
            life.apply(seen("active", at, replica=True))
            life.apply(look(None, at + 1, job(**RAN), found=True, stream_id="2000-0", replica=True))
        assert (life.live["state"], life.told) == ("active", [])
        assert "suspect" not in life.live["_"]

    def test_nothing_vanishes(self):
        life = running()
        life.apply(look(None, 3_000, stream_id="2000-0", replica=True))
        assert (life.live["state"], life.live["observed_at"]) == ("active", 3_000)

    def test_places_are_taken(self):
        life = running()
        life.apply(seen("wait", 3_000, replica=True))
        assert life.moves[-1] == ("active", "waiting", "observed")


class TestHistories:
    def test_an_entry_of_a_later_history_is_folded_whatever_its_id(self):
        life = running()
        life.apply(entry("completed", 5, job(**RAN, finished_on=5), epoch=1))
        assert (life.live["state"], life.live["epoch"], life.live["position"]) == ("completed", 1, "5-0")
        last = life.transitions[-1]
        assert (last["epoch"], last["duration_ms"], last["position"]) == (1, None, "5-0")

    @pytest.mark.parametrize("at", [5, 2_001, 10**12])
    def test_one_of_an_earlier_history_changes_nothing(self, at):
        life = running()
        life.apply(seen("active", 3_000, lock_ttl_ms=5, stream_id="5-0", epoch=2))
        row = life.live
        life.apply(entry("completed", at, job(**RAN, finished_on=at), epoch=1))
        assert life.live is row

    def test_time_is_not_measured_across_histories(self):
        life = running()
        life.apply(seen("active", 3_000, lock_ttl_ms=5, stream_id="5-0", epoch=1))
        life.apply(
            entry("waiting", 4_000, job(**RAN, stalled_count=1), fields={"prev": "active"}, stalled=True, epoch=1)
        )
        life.apply(entry("active", 4_500, job(**RAN), epoch=1))
        assert [t["duration_ms"] for t in life.transitions[-2:]] == [None, 500]

    def test_what_was_completed_is_active_again(self):
        life = running()
        life.apply(entry("completed", 3_000, job(**RAN, finished_on=3_000)))
        life.apply(seen("active", 9_000, lock_ttl_ms=5, stream_id="5-0", epoch=1))
        assert life.moves[-1] == ("completed", "active", "observed")
        assert (life.live["finished_on"], life.anomalies) == (None, [])

    def test_a_suspicion_of_another_history_is_none(self):
        life = running()
        life.apply(seen("active", 3_000))
        life.apply(seen("active", 5_000, stream_id="5-0", epoch=1))
        assert life.live["state"] == "active"

    def test_the_id_of_another_job(self):
        life = running()
        life.apply(look("wait", 9_000, job(timestamp=8_000), stream_id="5-0", epoch=1))
        assert life.moves[-2:] == [("active", "removed", "replaced"), (None, "waiting", "observed")]
        assert [t["duration_ms"] for t in life.transitions[-2:]] == [None, None]
