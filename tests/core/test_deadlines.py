from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.deadlines import (
    EXPIRE,
    LAPSE,
    PROBE,
    VERIFY,
    action_of,
    due_of,
    due_of_row,
    lapse,
    visit,
    wait_ms,
)
from streams.core.lifecycle import STATES
from streams.core.row import SPREAD
from streams.core.rules import Rules
from tests.core.build import BORN, KEY, Life, entry, job, look, running

RULES = Rules()
DAY = 86_400_000
RAN = {"processed_on": 2_000, "attempts_started": 1}


def due(life):
    return life.live["_"]["due"]


def failed(**more):
    life = running()
    hashed = {**RAN, "attempts_made": 1, "finished_on": 3_000, "failed_reason": "no", **more}
    life.apply(entry("failed", 3_000, job(**hashed), fields={"failedReason": "no"}))
    return life


def noted(state: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "at": 9_000, "spread": 0, **more}


class TestRunning:
    def test_a_running_job_is_looked_at_after_a_second(self):
        assert due(running()) == 2_000 + 1_000

    @pytest.mark.parametrize(("lock_ttl_ms", "later"), [(30_000, 30_100), (0, 100), (-5, 100), (2**63 - 1, 600_100)])
    def test_a_job_with_a_lock_is_looked_at_when_that_should_have_ended(self, lock_ttl_ms, later):
        life = running()
        life.apply(look("active", 3_000, job(processed_on=2_000), lock_ttl_ms=lock_ttl_ms, stream_id="2000-0"))
        assert due(life) == 3_000 + later

    def test_a_job_without_a_lock_is_looked_at_again_after_the_interval(self):
        life = running(rules=Rules(check_interval_ms=700))
        life.apply(look("active", 3_000, job(processed_on=2_000), stream_id="2000-0"))
        assert due(life) == 3_700
        life.apply(look("active", 3_200, job(processed_on=2_000), stream_id="2000-0"))
        assert due(life) == 3_700

    def test_progress_does_not_put_off_a_look(self):
        life = running()
        life.apply(entry("progress", 2_900, fields={"data": "1"}))
        assert due(life) == 3_000
        life.apply(look("active", 3_000, job(processed_on=2_000), lock_ttl_ms=9_000, stream_id="2900-0"))
        life.apply(entry("progress", 4_000, fields={"data": "2"}))
        assert due(life) == 12_100

    def test_a_lock_that_a_replica_does_not_have_is_no_reason_to_ask_again_soon(self):
        life = running()
        life.apply(look("active", 3_000, job(processed_on=2_000), stream_id="2000-0", replica=True))
        assert due(life) == 3_000 + RULES.verify_after_ms + RULES.lock_margin_ms


class TestFinished:
    def test_a_finished_row_is_kept_for_the_retention(self):
        life = running()
        life.apply(entry("completed", 9_000, job(**RAN, finished_on=9_000)))
        assert due(life) == 9_000 + RULES.retention_ms
        assert wait_ms(life.live["_"], RULES) == RULES.retention_ms

    def test_what_was_found_finished_is_kept_from_its_end_on(self):
        life = Life(look("completed", 9_000, job(finished_on=4_000)))
        assert due(life) == 4_000 + RULES.retention_ms
        found_late = Life(look("completed", 9_000, job(finished_on=4_000)), rules=Rules(retention_ms=100))
        assert due(found_late) == 9_000

    def test_an_end_in_the_future_delays_nothing(self):
        life = Life(look("completed", 9_000, job(finished_on=10**15)))
        assert due(life) == 9_000 + RULES.retention_ms

    def test_an_open_alert_is_asked_about_and_ends_by_itself(self):
        life = failed()
        first = due(life)
        assert RULES.verify_after_ms <= first - 3_000 <= RULES.verify_after_ms * 5 // 4
        found = visit(life.live, first, RULES)
        assert found is not None
        assert found.action == VERIFY
        life.apply(look("failed", 3_000 + DAY - 5, job(**RAN, finished_on=3_000, failed_reason="no")))
        life.apply(look("failed", 3_000 + DAY - 5, job(**RAN, finished_on=3_000), stream_id="3000-0"))
        assert due(life) == 3_000 + DAY
        found = visit(life.live, 3_000 + DAY, RULES)
        assert found is not None
        assert found.action == LAPSE
        row, alerts = lapse(life.live, KEY, 3_000 + DAY, RULES)
        assert [(a["status"], a["resolved_by"], a["ends_at"]) for a in alerts] == [("resolved", "expired", 3_000 + DAY)]
        assert row["state"] == "failed"
        assert row["_"]["due"] == due_of(row["_"], RULES) == 3_000 + RULES.retention_ms
        assert "alerts" in life.live["_"], "the row given is not changed"
        found = visit(row, 3_000 + RULES.retention_ms, RULES)
        assert found is not None
        assert found.action == EXPIRE

    def test_never_where_the_setting_is_0(self):
        notes = failed().live["_"]
        assert due_of({**notes, "gone": True}, replace(RULES, resolve_after_ms=0)) == 3_000 + RULES.retention_ms

    def test_one_whose_hash_was_gone_with_its_end_is_not_asked_about(self):
        life = running()
        life.apply(entry("failed", 3_000, fields={"failedReason": "no"}))
        assert due(life) == 3_000 + DAY

    def test_a_retention_shorter_than_the_alert_ends_both(self):
        rules = replace(RULES, retention_ms=50)
        found = visit(failed().live, 3_050, rules)
        assert found is not None
        assert found.action == EXPIRE


class TestUnfinished:
    @given(
        st.sampled_from(["waiting", "paused", "delayed", "stuck"]), st.integers(0, SPREAD - 1), st.integers(1, 10**9)
    )
    def test_a_row_is_verified_within_a_quarter_more_than_the_interval(self, state, spread, verify_after_ms):
        wait = wait_ms(noted(state, spread=spread), Rules(verify_after_ms=verify_after_ms))
        assert 0 <= wait - verify_after_ms <= verify_after_ms // 4

    def test_verifications_of_jobs_added_together_are_spread(self):
        rules = Rules(verify_after_ms=40_000)
        at = [
            due(Life(look("wait", 9_000, job(timestamp=n), stream_id="0-0"), rules=rules)) for n in range(1_000, 1_050)
        ]
        assert len(set(at)) == 50
        assert max(at) - min(at) > 9_000

    def test_what_is_in_no_list_is_looked_at_again_after_the_interval(self):
        life = running()
        life.apply(look(None, 3_000, job(**RAN), found=True, stream_id="2000-0"))
        assert due(life) == 4_000
        found = visit(life.live, 4_000, RULES)
        assert found is not None
        assert found.action == PROBE

    @pytest.mark.parametrize("where", ["active", None])
    def test_what_is_known_to_be_stuck_is_not_asked_about_again_and_again(self, where):
        life = running()
        for at in (5_000, 6_000, 7_000):
            seen = look("active", at, job(processed_on=2_000), stream_id="2000-0", kind="look")
            life.apply({**seen, "where": where})
        assert life.live["state"] == "stuck"
        later = wait_ms(life.live["_"], RULES)
        assert later >= RULES.verify_after_ms
        found = visit(life.live, 7_000 + later, RULES)
        assert found is not None
        assert found.action == VERIFY


class TestSettingsThatChange:
    @pytest.mark.parametrize(
        ("life", "changed", "later"),
        [
            (failed(), {"verify_after_ms": 8}, 8 + 2),
            (failed(), {"resolve_after_ms": 70}, 70),
            (failed(), {"retention_ms": 60}, 60),
            (Life(entry("waiting", 3_000, job())), {"verify_after_ms": 8}, 8 + 2),
            (Life(look("active", 3_000, job())), {"check_interval_ms": 30}, 30),
        ],
    )
    def test_they_hold_for_rows_that_are_there(self, life, changed, later):
        rules = replace(RULES, **changed)
        assert 0 <= 3_000 + later - due_of(life.live["_"], rules) <= 2
        assert due_of_row(life.live, rules) == due_of(life.live["_"], rules)
        assert visit(life.live, 3_000 + later, rules) is not None
        assert visit(life.live, 3_000 + later, RULES) is None

    def test_an_id_from_the_future_is_waited_for_no_longer(self):
        life = Life(entry("waiting", 2**64 - 1, job()))
        assert due(life) == 2**63 - 1
        assert wait_ms(life.live["_"], RULES) <= RULES.verify_after_ms * 5 // 4


class TestVisits:
    @pytest.mark.parametrize("state", STATES)
    def test_a_row_is_visited_when_it_is_due_and_not_before(self, state):
        one = {"state": state, "_": noted(state)}
        at = due_of(one["_"], RULES)
        assert visit(one, at - 1, RULES) is None
        found = visit(one, at, RULES)
        assert found is not None
        assert found.action == action_of(state)
        assert found.reason

    @pytest.mark.parametrize("state", STATES)
    def test_a_row_of_0_1_when_it_says(self, state):
        one = {"state": state, "_": {"due": 100, "state": state}}
        assert visit(one, 99, RULES) is None
        found = visit(one, 100, RULES)
        assert found is not None
        assert found.action == action_of(state)

    def test_an_alert_that_0_1_opened_is_asked_about_soon(self):
        notes: dict[str, Any] = {
            "due": 9_000 + RULES.retention_ms,
            "state": "failed",
            "alerts": {"failed": {"starts_at": 9_000}},
        }
        assert due_of(notes, RULES) == 9_000 + RULES.verify_after_ms
        found = visit({"state": "failed", "_": notes}, 9_000 + RULES.verify_after_ms, RULES)
        assert found is not None
        assert found.action == VERIFY
        found = visit({"state": "failed", "_": notes}, notes["due"], RULES)
        assert found is not None
        assert found.action == EXPIRE

    @pytest.mark.parametrize(
        ("state", "action"),
        [
            ("completed", EXPIRE),
            ("failed", EXPIRE),
            ("active", PROBE),
            *[(state, VERIFY) for state in ("waiting", "paused", "delayed", "stuck")],
        ],
    )
    def test_what_a_visit_is_for(self, state, action):
        assert action_of(state) == action


def test_a_lapse_of_a_row_without_alerts_changes_nothing():
    life = Life(entry("waiting", BORN, job()))
    assert lapse(life.live, KEY, 5_000, RULES) == (life.live, [])
