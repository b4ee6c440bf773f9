"""How many attempts have ended, where stack traces do not tell it."""

from __future__ import annotations

from typing import Any

import pytest

from streams.core.events import Event
from tests.core.build import BORN, Life, entry, job, running

V4 = {"counts_starts": True, "attempts_started": None}


def hashed(starts: int, made: int, **more: Any) -> dict[str, Any]:
    return job(attempts_started=starts, attempts_made=made, processed_on=2_000, **more)


def back(at: int, one: dict[str, Any] | None, **more: Any) -> Event:
    return entry("waiting", at, one, fields={"prev": "active"}, **more)


def strings(*hashes: dict[str, Any] | None, last: dict[str, Any] | None, **more: Any) -> Life:
    """`throw 'boom'` three times without backoff: no stack is left. `hashes` = what was read with each `waiting`."""
    life = running()
    for n, one in enumerate(hashes):
        life.apply(back(3_000 + 1_000 * n, one))
        life.apply(entry("active", 3_500 + 1_000 * n, one and {**one, "attempts_started": n + 2}))
    life.apply(entry("failed", 6_000, last, fields={"failedReason": "null", "prev": "active"}, **more))
    return life


LAST = hashed(3, 3, failed_reason="null", finished_on=6_000)


@pytest.mark.parametrize(
    ("first", "second", "last"),
    [
        (hashed(1, 1), hashed(2, 2), LAST),
        (hashed(2, 1), hashed(3, 2), LAST),
        (hashed(3, 2), hashed(3, 2), LAST),
        (LAST, LAST, LAST),
        (hashed(1, 1, stacktrace=["s"]), hashed(2, 2, stacktrace=["s"]), {**LAST, "stacktrace": ["s"]}),  # limit 1
        (hashed(2, 1, stacktrace=["s"]), hashed(3, 2, stacktrace=["s"]), {**LAST, "stacktrace": ["s"]}),
    ],
)
def test_attempts_that_leave_no_stack_are_counted(first, second, last):
    life = strings(first, second, last=last)
    causes = [t["cause"] for t in life.transitions]
    assert causes == ["added", "picked_up", "attempt_failed", "picked_up", "attempt_failed", "picked_up", "failed"]
    assert [t["attempts_made"] for t in life.transitions] == [0, 0, 1, 1, 2, 2, 3]
    assert "attempts_made" not in life.live["estimated"]
    assert life.alerts[0]["cause"] == "attempts_exhausted"


def test_with_the_hash_gone_bullmqs_own_words_tell_it():
    life = strings(None, None, last=None, exhausted=3)
    assert (life.live["attempts_made"], life.alerts[0]["cause"]) == (3, "attempts_exhausted")
    assert "attempts_made" not in life.live["estimated"]
    assert life.alerts[0]["reason"] == "attempt 3 of 3 has failed"


@pytest.mark.parametrize("exhausted", [{"exhausted": 5}, {}])
def test_also_where_attempts_were_not_seen(exhausted):
    life = Life(entry("active", 2_000), entry("failed", 3_000, fields={"failedReason": "no"}, **exhausted))
    assert life.live["attempts_made"] == exhausted.get("exhausted", 1)
    assert life.alerts[0]["cause"] == "attempts_exhausted"
    assert ("cause" in life.live["estimated"]) == ("attempts_made" in life.live["estimated"]) == (not exhausted)


@pytest.mark.parametrize(
    ("text", "made"), [("3", 3), ("not a number", 1), ("", 1), ("null", 1), ("[3]", 1), ("9" * 40, 2**63 - 1)]
)
def test_the_words_of_an_entry_of_its_own(text, made):
    life = running()
    life.apply(entry("failed", 3_000, fields={"failedReason": "no"}))
    told = len(life.transitions), len(life.alerts)
    life.apply(entry("retries-exhausted", 3_000, seq=1, fields={"attemptsMade": text}))
    assert life.live["attempts_made"] == made
    assert (len(life.transitions), len(life.alerts)) == told


def test_the_words_are_of_what_has_failed_only():
    life = running()
    life.apply(entry("retries-exhausted", 3_000, fields={"attemptsMade": "3"}))
    assert life.live["attempts_made"] == 0


def test_after_a_gap_the_count_of_the_hash_that_has_finished_is_exact():
    life = Life(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1))
    life.apply(entry("active", 9_000, hashed(3, 2)))
    life.apply(entry("completed", 9_500, hashed(3, 3, finished_on=9_499)))
    assert life.live["attempts_made"] == 3
    assert life.live["_"]["starts"] == 3


def test_a_hash_that_finished_after_the_entry_is_of_a_later_end():
    """Failed, retried by hand, completed: the hash that came with `failed` is that of the second end."""
    life = running()
    life.apply(entry("failed", 3_000, hashed(2, 2, finished_on=8_000), fields={"failedReason": "no"}))
    assert life.live["attempts_made"] == 1


def test_starts_that_the_row_has_missed_raise_the_count():
    life = running()
    life.apply(back(3_000, hashed(1, 1)))
    life.apply(entry("active", 9_000, hashed(4, 3)))  # two more starts and ends were lost
    life.apply(entry("delayed", 9_500, hashed(4, 4, delay=5), fields={"delay": "9505"}))
    assert life.moves[-1] == ("active", "delayed", "attempt_failed")
    assert life.live["attempts_made"] == 2, "two of the four may have ended since the entry"
    life.apply(entry("failed", 9_900, hashed(4, 4, finished_on=9_900), fields={"failedReason": "no"}))
    assert life.live["attempts_made"] == 4


def test_a_count_that_began_anew_bounds_nothing_but_what_it_says():
    life = running()
    life.apply(back(3_000, hashed(1, 1)))
    life.apply(entry("active", 3_500, hashed(2, 1)))
    life.apply(back(4_000, hashed(1, 1)))
    assert life.live["attempts_made"] == 1


@pytest.mark.parametrize(("most", "cause"), [(1, "rate_limited"), (2, "attempt_failed")])
def test_a_job_without_attempts_left_was_not_given_back_for_a_failure(most, cause):
    life = Life(entry("active", 2_000, job(opts={"attempts": most}, processed_on=2_000, attempts_started=1)))
    life.apply(back(3_000, hashed(2, 1, opts={"attempts": most})))
    assert life.moves[-1][2] == cause
    assert "cause" in life.live["estimated"]


def test_the_text_of_a_later_attempt_is_named_as_an_estimate():
    life = running()
    life.apply(back(3_000, hashed(3, 3, failed_reason="the last", finished_on=9_000)))
    assert life.moves[-1][2] == "attempt_failed"
    assert life.live["estimated"] == ["failed_reason"]


class TestBullMQ4:
    def life(self, event: Event) -> Life:
        life = Life(entry("active", 2_000, job(**V4, attempts_made=1, processed_on=2_000)))
        first = job(**V4, attempts_made=1, failed_reason="null", processed_on=2_000)
        life.apply(entry("waiting", 3_000, first, fields={"prev": "failed"}))
        life.apply(entry("active", 3_500, {**first, "attempts_made": 2}))
        life.apply(event)
        return life

    def hashed(self, **more: Any) -> dict[str, Any]:
        return job(**V4, attempts_made=2, processed_on=3_500, **more)

    def test_a_rate_limit_says_nothing_whatever_the_hash_says(self):
        life = self.life(entry("waiting", 4_000, self.hashed(failed_reason="another", stacktrace=["a", "b"])))
        assert life.moves[-1][2] == "rate_limited"
        assert "cause" not in life.live["estimated"]

    def test_the_same_text_again_is_a_guess(self):
        life = self.life(entry("delayed", 4_000, self.hashed(failed_reason="null"), fields={"delay": "5000"}))
        assert life.moves[-1][2] == "attempt_failed"
        assert "cause" in life.live["estimated"]
        assert life.live["attempts_made"] == 2

    def test_no_text_at_all_is_no_failure(self):
        life = self.life(entry("delayed", 4_000, self.hashed(), fields={"delay": "5000"}))
        assert life.moves[-1][2] == "moved"
        assert "cause" not in life.live["estimated"]
