from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.deadlines import EXPIRE, PROBE, VERIFY, action_of, next_look, visit
from streams.core.lifecycle import STATES
from streams.core.rules import Rules
from tests.core.build import entry, job, look, running

RULES = Rules()


def row(state, due=0, **more):
    return {"state": state, "since": 5_000, "_": {"due": due}, **more}


def due(life):
    return life.live["_"]["due"]


def test_a_running_job_is_looked_at_after_a_second():
    assert due(running()) == 2_000 + 1_000


@pytest.mark.parametrize(("lock_ttl_ms", "later"), [(30_000, 30_100), (0, 100), (-5, 100)])
def test_a_job_with_a_lock_is_looked_at_when_that_should_have_ended(lock_ttl_ms, later):
    life = running()
    life.apply(look("active", 3_000, job(processed_on=2_000), lock_ttl_ms=lock_ttl_ms, stream_id="2000-0"))
    assert due(life) == 3_000 + later


def test_a_job_without_a_lock_is_looked_at_again_after_the_interval():
    life = running(rules=Rules(check_interval_ms=700))
    life.apply(look("active", 3_000, job(processed_on=2_000), stream_id="2000-0"))
    assert due(life) == 3_700
    life.apply(look("active", 3_200, job(processed_on=2_000), stream_id="2000-0"))
    assert due(life) == 3_700


def test_progress_does_not_put_off_a_look():
    life = running()
    life.apply(entry("progress", 2_900, fields={"data": "1"}))
    assert due(life) == 3_000


def test_a_look_that_tells_no_lock_and_no_suspicion_counts_from_itself():
    assert next_look(row("active"), 7_000, look("active", 7_000), RULES) == 7_000 + RULES.check_interval_ms


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_finished_row_is_kept_for_the_retention(state):
    assert next_look(row(state), 9_000, entry(state, 9_000), Rules(retention_ms=60)) == 5_060


@given(st.sampled_from(["waiting", "paused", "delayed", "stuck"]), st.integers(0, 10**13), st.integers(1, 10**9))
def test_an_unfinished_row_is_verified_within_a_quarter_more_than_the_interval(state, life, verify_after_ms):
    one, rules = row(state, life=life), Rules(verify_after_ms=verify_after_ms)
    at = next_look(one, 9_000, entry("waiting", 9_000), rules)
    assert 0 <= at - 9_000 - verify_after_ms <= verify_after_ms // 4
    assert at == next_look(one, 9_000, entry("waiting", 9_000), rules)


def test_verifications_of_jobs_added_together_are_spread():
    rules = Rules(verify_after_ms=400)
    at = [next_look(row("waiting", life=n), 0, entry("waiting", 0), rules) for n in range(1_000, 1_050)]
    assert len(set(at)) == 50
    assert max(at) - min(at) > 90


@pytest.mark.parametrize("state", STATES)
def test_a_row_is_visited_when_it_is_due_and_not_before(state):
    assert visit(row(state, due=100), 99) is None
    found = visit(row(state, due=100), 100)
    assert found is not None
    assert found.action == action_of(state)
    assert found.reason


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("completed", EXPIRE),
        ("failed", EXPIRE),
        ("active", PROBE),
        *[(state, VERIFY) for state in ("waiting", "paused", "delayed", "stuck")],
    ],
)
def test_what_a_visit_is_for(state, action):
    assert action_of(state) == action
