"""What the recordings of BullMQ do not show: order, unknown jobs, replaced lives, missing and newer hashes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from streams.core.fold import fold
from streams.core.row import HISTORY_LENGTH
from tests.core.build import BORN, Life, entry, job, look, running

RAN = {"processed_on": 2_000, "attempts_started": 1}
ASKS = ["duplicated", "deduplicated", "debounced", "stalled", "retries-exhausted", "progress", "removed"]


class TestOrder:
    def test_an_entry_applied_twice_changes_nothing(self):
        life = running()
        row = copy.deepcopy(life.row)
        result = fold(life.row, entry("active", 2_000, job()))
        assert result.row is life.row
        assert (result.transitions, result.alerts, result.ask) == ((), (), False)
        assert life.row == row

    @pytest.mark.parametrize("at", [(1_999, 99), (2_000, 0), (999, 0)])
    def test_what_stands_before_the_row_changes_nothing(self, at):
        life = running()
        life.apply(entry("completed", at[0], job(), seq=at[1], fields={"prev": "active"}))
        assert life.live["state"] == "active"

    @pytest.mark.parametrize("at", [(2_000, 1), (2_001, 0), (10_000, 0)])
    def test_what_stands_behind_it_is_applied(self, at):
        life = running()
        life.apply(entry("completed", at[0], job(finished_on=at[0]), seq=at[1], fields={"prev": "active"}))
        assert life.live["state"] == "completed"
        assert (life.live["position"], life.live["observed_at"]) == (f"{at[0]}-{at[1]}", None)

    def test_a_look_stands_behind_its_entry_and_before_the_next(self):
        life = running()
        life.apply(look("active", 2_500, job(**RAN), lock_ttl_ms=1, stream_id="2000-0"))
        assert (life.live["position"], life.live["observed_at"]) == ("2000-0", 2_500)
        row = life.row
        for at in (2_400, 2_500):
            life.apply(look("wait", at, job(**RAN), stream_id="2000-0"))
            assert life.row is row
        life.apply(look("wait", 9_999, job(**RAN), stream_id="1999-0"))
        assert life.row is row
        life.apply(entry("completed", 2_000, job(finished_on=2_000), seq=1))
        assert life.live["state"] == "completed"

    def test_the_old_row_is_not_changed(self):
        life = running()
        row, before = life.row, copy.deepcopy(life.row)
        for event in (
            look("active", 3_000, job(progress=5), stream_id="2000-0"),
            look("active", 5_000, job(**RAN), stream_id="2000-0"),
            entry("failed", 6_000, job(finished_on=6_000), fields={"failedReason": "x"}),
            entry("removed", 7_000),
            entry("added", 8_000, job(timestamp=8_000)),
        ):
            assert fold(row, event).row is not row
            assert row == before


class TestUnknownJobs:
    @pytest.mark.parametrize("event", ASKS)
    def test_what_says_not_where_the_job_is_asks(self, event):
        result = fold(None, entry(event, 2_000, fields={"data": "1"}))
        assert (result.row, result.ask, result.transitions) == (None, True, ())

    @pytest.mark.parametrize("event", ["cleaned", "crawl:page", "observed-by-me", ""])
    def test_what_bullmq_does_not_say_of_a_job_is_passed_over(self, event):
        result = fold(None, entry(event, 2_000))
        assert (result.row, result.ask) == (None, False)

    @pytest.mark.parametrize("event", ["paused", "resumed", "drained", "waiting", "removed"])
    def test_an_entry_of_the_queue_itself_is_of_no_job(self, event):
        result = fold(None, entry(event, 2_000, job_id=""))
        assert (result.row, result.ask) == (None, False)

    @pytest.mark.parametrize("event", ["crawl:page", "cleaned", "duplicated", "observed", "look", "transition", ""])
    @pytest.mark.parametrize("kind", ["entry", None])
    def test_what_says_nothing_of_its_job_changes_nothing_whatever_it_is_called(self, event, kind):
        life = running()
        before = life.live
        hostile: dict[str, Any] = {"found": False, "observed_at": 9_000, "where": "completed", "reason": "probe"}
        one = entry(event, 2_500, job(finished_on=2_500), fields={"prev": "active"}, **hostile)
        if kind is None:
            del one["kind"], one["epoch"]
        result = life.apply(one)
        assert life.live is before
        assert (result.transitions, result.alerts, result.ask) == ((), (), False)

    @pytest.mark.parametrize(
        ("event", "to", "cause"),
        [
            ("waiting", "waiting", "added"),
            ("active", "active", "picked_up"),
            ("delayed", "delayed", "scheduled"),
            ("waiting-children", "waiting", "added"),
            ("completed", "completed", "completed"),
            ("failed", "failed", "failed"),
        ],
    )
    def test_any_other_entry_opens_a_life(self, event, to, cause):
        life = Life(entry(event, 2_000))
        assert life.moves == [(None, to, cause)]
        assert (life.live["life"], life.live["seq"], life.live["enriched"]) == (2_000, 1, False)
        assert "timestamp" in life.live["estimated"]

    def test_the_life_of_a_job_whose_added_was_not_seen_is_its_creation(self):
        life = Life(entry("active", 2_000, job(**RAN)))
        assert life.live["life"] == BORN
        assert life.transitions[0]["life"] == BORN


class TestLives:
    def test_added_alone_is_no_transition(self):
        life = Life(entry("added", BORN, job(delay=5, opts={"delay": 50}), fields={"name": "crawl"}))
        assert life.transitions == []
        assert (life.live["seq"], life.live["state"], life.live["delay"]) == (0, "waiting", 50)

    def test_added_without_its_hash_has_the_name_of_the_entry(self):
        life = Life(entry("added", BORN, fields={"name": "crawl"}))
        assert (life.live["name"], life.live["enriched"]) == ("crawl", False)

    def test_added_closes_what_was_there(self):
        life = running()
        life.apply(entry("added", 5_000, job(timestamp=5_000)))
        life.apply(entry("waiting", 5_000, job(timestamp=5_000), seq=1))
        assert life.moves[-2:] == [("active", "removed", "replaced"), (None, "waiting", "added")]
        assert [(t["life"], t["seq"]) for t in life.transitions] == [(BORN, 1), (BORN, 2), (BORN, 3), (5_000, 1)]
        assert life.transitions[-2]["final"] is True

    def test_two_lives_of_one_ms_have_two_numbers(self):
        life = Life(entry("added", BORN, job()), entry("added", BORN, job(), seq=1))
        assert life.live["life"] == BORN + 1
        assert life.moves == [(None, "removed", "replaced")]

    def test_removed_ends_the_life_with_a_tombstone(self):
        life = running()
        life.apply(entry("removed", 2_500, fields={"prev": "active"}))
        assert life.row is None
        assert life.moves[-1] == ("active", "removed", "removed")
        assert life.transitions[-1]["duration_ms"] == 500

    def test_the_hash_of_a_later_life_is_not_taken(self):
        life = running()
        later = job(timestamp=9_000, name="other", data="other", finished_on=9_500, attempts_made=3)
        life.apply(entry("completed", 3_000, later, fields={"returnvalue": "7"}))
        assert (life.live["name"], life.live["finished_on"], life.live["return_value"]) == ("crawl", 3_000, 7)
        assert {"finished_on", "attempts_made"} <= set(life.live["estimated"])


class TestTransitions:
    def test_all_that_is_told(self):
        life = running()
        assert life.transitions[-1] == {
            "source": "s", "queue": "q", "job_id": "1", "name": "crawl", "life": BORN, "seq": 2,
            "from": "waiting", "to": "active", "source_from": "waiting", "source_to": "active",
            "at": 2_000, "duration_ms": 1_000, "cause": "picked_up", "error": None, "attempts_made": 0,
            "max_attempts": 3, "final": False, "observed": False, "position": "2000-0", "epoch": 0,
        }  # fmt: skip

    def test_a_clock_that_goes_back_makes_no_negative_time(self):
        life = running()
        life.apply(look("completed", 9_000, job(**RAN, finished_on=1_500), stream_id="2000-0"))
        assert life.transitions[-1]["duration_ms"] == 0

    def test_the_history_is_the_last_sixteen(self):
        life = running()
        for n in range(10):
            hashed = job(**RAN, attempts_made=n + 1, failed_reason=f"no {n}", stacktrace=["x"] * (n + 1))
            life.apply(entry("delayed", 3_000 + 10 * n, hashed, fields={"delay": "3000"}))
            life.apply(entry("waiting", 3_001 + 10 * n, hashed, fields={"prev": "delayed"}))
            life.apply(entry("active", 3_002 + 10 * n, hashed, fields={"prev": "waiting"}))
        history = life.live["history"]
        assert len(history) == HISTORY_LENGTH == 16
        assert history[-1] == {"from": "waiting", "to": "active", "at": 3_092, "cause": "picked_up"}
        assert history[-3] == {
            "from": "active",
            "to": "delayed",
            "at": 3_090,
            "cause": "attempt_failed",
            "error": "no 9",
        }
        assert life.live["seq"] == 32
        assert [t["seq"] for t in life.transitions] == list(range(1, 33))

    def test_an_illegal_transition_is_followed_and_named(self):
        life = Life(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1))
        life.apply(entry("completed", 3_000, job(finished_on=3_000)))
        assert life.live["state"] == "completed"
        assert life.anomalies == ["waiting_to_completed"]
        life = Life(entry("waiting", 2_000, fields={"prev": "odd"}))
        assert life.anomalies == []

    def test_an_illegal_first_transition_is_of_none(self):
        life = Life(entry("waiting", 2_000, fields={"prev": "active"}))
        assert life.anomalies == ["none_to_waiting"]


class TestAttempts:
    def back(self, hashed, prev="active", **more):
        life = running()
        life.apply(entry("waiting", 3_000, hashed, fields={"prev": prev}, **more))
        return life

    def test_a_failed_attempt(self):
        life = self.back(job(**RAN, attempts_made=1, failed_reason="no", stacktrace=["Error: no\n    at x"]))
        last = life.transitions[-1]
        assert (last["cause"], last["error"], last["attempts_made"], last["final"]) == (
            "attempt_failed",
            "no",
            1,
            False,
        )
        assert life.live["failed_reason"] == "no"

    @pytest.mark.parametrize(
        ("stack", "error"),
        [
            ("Error: no access\n    at f (x.js:1:1)", "no access"),
            ("TypeError [ERR_X]: bad\nvalue\n    at f", "bad\nvalue"),
            ("Error\n    at f", ""),
            ('Traceback (most recent call last):\n  File "x", line 1\nValueError: no: access\n', "no: access"),
            ("just text", "just text"),
            ("", ""),
        ],
    )
    def test_an_error_whose_text_has_been_overwritten_is_read_from_its_stack(self, stack, error):
        life = self.back(job(attempts_started=2, attempts_made=2, failed_reason="later", stacktrace=[stack, "later"]))
        assert life.transitions[-1]["error"] == error
        assert life.transitions[-1]["attempts_made"] == 1

    def test_given_back_without_a_failure(self):
        life = self.back(job(**RAN))
        assert life.moves[-1] == ("active", "waiting", "rate_limited")
        assert life.live["attempts_made"] == 0

    def test_given_back_by_a_stalled_check(self):
        life = self.back(job(**RAN, stalled_count=1), stalled=True)
        assert life.moves[-1] == ("active", "waiting", "stalled")
        life.apply(entry("stalled", 3_000, job(**RAN, stalled_count=1), seq=1))
        life.apply(entry("stalled", 3_000, job(**RAN, stalled_count=1), seq=2))
        assert life.live["stalled_count"] == 1
        life.apply(entry("stalled", 3_000, seq=3))
        assert life.live["stalled_count"] == 2

    def test_given_back_by_a_stalled_check_after_it_was_stuck(self):
        life = running()
        for at in (3_000, 4_000):
            life.apply(look("active", at, job(**RAN), stream_id="2000-0"))
        life.apply(entry("waiting", 5_000, job(**RAN), fields={"prev": "active"}, stalled=True))
        assert life.moves[-1] == ("stuck", "waiting", "rescued")
        assert life.anomalies == []

    def test_a_stalled_check_puts_a_job_with_a_priority_among_those_without(self):
        hashed = job(**RAN, priority=2, opts={"priority": 2})
        life = Life(entry("active", 2_000, hashed))
        life.apply(entry("waiting", 3_000, hashed, fields={"prev": "active"}, stalled=True))
        assert life.live["source_state"] == "waiting"

    def test_without_the_hash_the_likelier_cause_is_told_as_a_guess(self):
        life = self.back(None)
        assert life.moves[-1][2] == "attempt_failed"
        assert life.transitions[-1]["error"] is None
        assert {"cause", "failed_reason", "attempts_made"} <= set(life.live["estimated"])

    def test_a_job_that_is_tried_once_was_not_given_back_for_a_failure(self):
        hashed = job(opts={"attempts": 1})
        life = Life(entry("added", BORN, hashed), entry("active", 2_000, hashed))
        life.apply(entry("waiting", 3_000, fields={"prev": "active"}))
        assert life.moves[-1][2] == "rate_limited"
        assert "cause" in life.live["estimated"]

    @pytest.mark.parametrize(
        ("starts", "made", "cause", "guessed"),
        [
            (1, 1, "attempt_failed", False),
            (1, 0, "rate_limited", False),
            (2, 1, "attempt_failed", True),  # this attempt or the next has ended: the likelier one
            (2, 2, "attempt_failed", False),
            (3, 2, "attempt_failed", True),
            (3, 0, "rate_limited", False),
        ],
    )
    def test_a_failure_without_stack_is_known_by_bullmqs_counts(self, starts, made, cause, guessed):
        life = self.back(job(attempts_started=starts, attempts_made=made))
        assert life.moves[-1][2] == cause
        assert life.live["attempts_made"] == (cause == "attempt_failed")
        assert ("cause" in life.live["estimated"]) == ("attempts_made" in life.live["estimated"]) == guessed

    def test_the_final_failure_is_not_that_of_this_attempt(self):
        hashed = job(**RAN, attempts_made=1, finished_on=9_000, failed_reason="final", stacktrace=["final"])
        assert self.back(hashed).moves[-1][2] == "rate_limited"

    @pytest.mark.parametrize(
        ("reason", "cause"), [("new", "attempt_failed"), ("old", "rate_limited"), (None, "rate_limited")]
    )
    def test_bullmq_4_says_it_by_another_reason(self, reason, cause):
        hashed = {"counts_starts": True, "processed_on": 2_000}
        life = Life(entry("active", 2_000, job(**hashed, attempts_made=1, failed_reason="old")))
        life.apply(look("active", 2_100, job(**hashed, attempts_made=1, failed_reason="old"), lock_ttl_ms=1))
        life = Life(look("active", 2_100, job(**hashed, attempts_made=1, failed_reason="old"), lock_ttl_ms=1))
        life.apply(
            entry("waiting", 3_000, job(**hashed, attempts_made=1, failed_reason=reason), fields={"prev": "active"})
        )
        assert life.moves[-1][2] == cause
        assert life.live["attempts_made"] == 1


class TestDelays:
    def delayed(self, due_at="5000"):
        return Life(
            entry("added", BORN, job(delay=4_000)),
            entry("delayed", BORN, job(delay=4_000), seq=1, fields={"delay": due_at}),
        )

    @pytest.mark.parametrize(("at", "cause"), [(4_899, "promoted"), (4_900, "due"), (5_000, "due"), (7_000, "due")])
    def test_due_or_promoted(self, at, cause):
        life = self.delayed()
        life.apply(entry("waiting", at, job(), fields={"prev": "delayed"}))
        assert life.moves[-1] == ("delayed", "waiting", cause)
        assert (life.live["due_at"], life.live["delay"]) == (None, 0)

    @pytest.mark.parametrize(("text", "due_at"), [("5000.25", 5_000), ("soon", None), ("nan", None), (None, None)])
    def test_the_due_time_of_an_entry(self, text, due_at):
        life = Life(entry("delayed", BORN, fields={} if text is None else {"delay": text}))
        assert life.live["due_at"] == due_at
        assert life.live["delay"] == (4_000 if due_at else 0)
        assert ("delay" in life.live["estimated"]) == bool(due_at)

    def test_another_delay_is_no_transition(self):
        life = self.delayed()
        life.apply(entry("delayed", 2_000, job(delay=9_000), fields={"delay": "11000"}))
        assert len(life.transitions) == 1
        assert (life.live["due_at"], life.live["delay"]) == (11_000, 9_000)


class TestPriorities:
    @pytest.mark.parametrize(
        ("hashed", "more", "source_state"),
        [
            (job(priority=2), {"where": "prioritized"}, "prioritized"),
            (job(priority=2), {"where": "wait"}, "waiting"),
            (job(priority=2), {}, "prioritized"),
            (job(), {}, "waiting"),
            (job(priority=2, delay=5), {}, "waiting"),
            (job(priority=2, attempts_started=1), {"where": "wait"}, "prioritized"),
            (None, {"where": "prioritized"}, "prioritized"),
        ],
    )
    def test_where_a_delayed_job_goes(self, hashed, more, source_state):
        life = Life(entry("delayed", BORN, hashed and {**hashed, "delay": 1}, fields={"delay": "1001"}))
        life.apply(entry("waiting", 5_000, hashed, fields={"prev": "delayed"}, **more))
        assert life.live["source_state"] == source_state

    def test_a_new_job_by_its_options(self):
        life = Life(entry("added", BORN, job(opts={"priority": 1})))
        life.apply(entry("waiting", BORN, job(opts={"priority": 1}), seq=1, where="wait"))
        assert life.live["source_state"] == "prioritized"

    def test_a_paused_queue(self):
        life = Life(entry("waiting", BORN, job(), queue_paused=True))
        assert (life.live["state"], life.live["source_state"]) == ("paused", "waiting")


class TestRetries:
    @pytest.mark.parametrize(("end", "kept"), [("completed", "failed_reason"), ("failed", "return_value")])
    def test_the_outcome_is_forgotten(self, end, kept):
        life = running()
        life.apply(
            look("active", 2_500, job(**RAN, failed_reason="no", return_value=1), lock_ttl_ms=1, stream_id="2000-0")
        )
        fields = {"returnvalue": "1"} if end == "completed" else {"failedReason": "no"}
        life.apply(entry(end, 3_000, job(**RAN, finished_on=3_000, attempts_made=1), fields=fields))
        life.apply(entry("waiting", 5_000, job(attempts_made=0), fields={"prev": end}))
        row = life.live
        assert life.moves[-1] == (end, "waiting", "retried")
        assert (row["finished_on"], row["processed_on"], row["attempts_made"]) == (None, None, 0)
        outcome = {"failed_reason": row["failed_reason"], "return_value": row["return_value"]}
        assert [name for name, value in outcome.items() if value is not None] == [kept]

    def test_without_the_hash_the_count_stays(self):
        life = running()
        life.apply(
            entry("failed", 3_000, job(**RAN, finished_on=3_000, attempts_made=1), fields={"failedReason": "no"})
        )
        life.apply(entry("waiting", 5_000, fields={"prev": "failed"}))
        assert life.live["attempts_made"] == 1


class TestChildren:
    def test_a_parent_and_its_children(self):
        life = Life(
            entry("added", BORN, job()),
            entry("waiting-children", BORN, job(), seq=1),
            entry("waiting", 3_000, job(), fields={"prev": "waiting-children"}),
        )
        assert life.moves == [(None, "waiting", "added"), ("waiting", "waiting", "children_done")]
        assert [t["source_to"] for t in life.transitions] == ["waiting-children", "waiting"]

    def test_a_running_job_waits_for_children_that_it_added(self):
        life = running()
        life.apply(entry("waiting-children", 3_000, job(**RAN), fields={"prev": "active"}))
        life.apply(entry("delayed", 4_000, job(**RAN, delay=500), fields={"delay": "4500"}))
        assert life.moves[-2:] == [("active", "waiting", "moved"), ("waiting", "delayed", "children_done")]
        assert life.live["attempts_made"] == 0

    def test_bullmq_4_moves_a_running_job_without_a_word(self):
        life = running()
        life.apply(entry("waiting", 4_000, job(**RAN), fields={"prev": "waiting-children"}))
        assert life.moves[-1] == ("active", "waiting", "children_done")
        assert life.anomalies == []
