from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from streams.core.alerts import expire, fingerprint
from streams.core.events import Event
from streams.core.row import seed_of
from streams.core.rules import AlertRule, Rules
from tests.core.build import BORN, KEY, Life, entry, job, look, running

RAN = {"processed_on": 2_000, "attempts_started": 1}
NO_ALERTS = Rules(failed=AlertRule(enabled=False), stuck=AlertRule(enabled=False))


def failing(at=3_000, reason="no access", **more):
    hashed = {**RAN, "attempts_made": 1, "finished_on": at, "failed_reason": reason, "stacktrace": ["x"], **more}
    return entry("failed", at, job(**hashed), fields={"failedReason": reason, "prev": "active"})


def failed(**more):
    life = running()
    life.apply(failing(**more))
    return life


def stuck(rules=Rules()):  # noqa: B008 - frozen
    life = running(rules=rules)
    for at in (3_000, 4_500):
        life.apply(look("active", at, job(**RAN), stream_id="2000-0"))
    return life


def test_the_fingerprint_is_a_hash_of_rule_key_and_life():
    by_hand = hashlib.sha256(b"stuck\ndefault/q%2F/42\n1795478835156").hexdigest()
    assert fingerprint("stuck", "default/q%2F/42", 1795478835156) == by_hand[:16] == "f55e2eef60edd21e"


def test_the_firing_record_of_a_failed_job():
    life = failed()
    (alert,) = life.alerts
    assert alert["fingerprint"] == fingerprint("failed", KEY, BORN)
    assert {name: alert[name] for name in alert if name not in ("fingerprint", "annotations", "job")} == {
        "rule": "failed", "status": "firing", "severity": "error", "starts_at": 3_000, "ends_at": None,
        "cause": "unrecoverable", "reason": "failed for good at attempt 1 of 3",
        "labels": {"alertname": "BullMQJobFailed", "source": "s", "queue": "q", "job_name": "crawl"},
        "source": "s", "queue": "q", "job_id": "1", "life": BORN, "resolved_by": None,
    }  # fmt: skip
    assert alert["job"] == seed_of(life.live)
    assert alert["annotations"] == {
        "summary": "Job crawl in s/q has failed for good",
        "description": "Job 1: failed for good at attempt 1 of 3. Last error: no access",
    }


def test_the_firing_record_of_a_stuck_job():
    (alert,) = stuck().alerts
    assert (alert["fingerprint"], alert["rule"]) == (fingerprint("stuck", KEY, BORN), "stuck")
    assert (alert["status"], alert["severity"], alert["starts_at"], alert["ends_at"]) == (
        "firing",
        "critical",
        4_500,
        None,
    )
    assert (alert["cause"], alert["reason"]) == (
        "lock_lost",
        "in the active list without a lock, seen twice 1.5 s apart",
    )
    assert alert["labels"]["alertname"] == "BullMQJobStuck"
    assert alert["job"]["state"] == "stuck"
    assert "Its worker died, hung or let go of it." in alert["annotations"]["description"]


def test_a_job_without_a_name_is_called_by_its_id():
    life = Life(entry("active", 2_000), entry("failed", 3_000, fields={"failedReason": "x"}))
    assert life.alerts[0]["annotations"]["summary"] == "Job 1 in s/q has failed for good"
    assert life.alerts[0]["labels"]["job_name"] == ""


@pytest.mark.parametrize(
    ("reason", "more", "cause", "text"),
    [
        ("no access", {"attempts_made": 1}, "unrecoverable", "at attempt 1 of 3"),
        ("no access", {"attempts_made": 1, "opts": {"attempts": 1}}, "attempts_exhausted", "attempt 1 of 1 has failed"),
        ("job stalled more than allowable limit", {"stalled_count": 2}, "stalled_too_often", "stalled 2 times"),
        ("job stalled more than allowable limit", {}, "unrecoverable", "at attempt 1"),
        ("job stalled more than allowable limit (see wiki)", {"stalled_count": 2}, "unrecoverable", "at attempt 1"),
        ("job started more than allowable limit", {"attempts_started": 2}, "attempts_exhausted", "attempt 1 of 3"),
        ("job started more than allowable limit", {}, "unrecoverable", "at attempt 1"),
        ("child process failed", {}, "unrecoverable", "at attempt 1"),
        ("child bull:q:7 failed", {}, "unrecoverable", "at attempt 1"),
        ("child of mine", {}, "unrecoverable", "at attempt 1"),
        ("it failed", {}, "unrecoverable", "at attempt 1"),
        ("", {}, "unrecoverable", "at attempt 1"),
    ],
)
def test_the_cause_of_a_failure(reason, more, cause, text):
    (alert,) = failed(reason=reason, **more).alerts
    assert alert["cause"] == cause
    assert text in alert["reason"]


def test_a_failure_out_of_waiting_children_is_the_childs():
    life = Life(entry("added", BORN, job()), entry("waiting-children", BORN, job(), seq=1), failing())
    assert life.alerts[0]["cause"] == "child_failed"


def test_a_failure_of_which_no_options_are_known():
    life = Life(entry("active", 2_000), entry("failed", 3_000, fields={"failedReason": "no"}))
    assert life.alerts[0]["cause"] == "attempts_exhausted"
    assert life.alerts[0]["reason"] == "attempt 1 of an unknown number has failed"


def test_an_attempt_that_will_be_repeated_is_no_failure():
    life = running()
    hashed = job(**RAN, attempts_made=1, failed_reason="no", stacktrace=["x"])
    life.apply(entry("delayed", 3_000, hashed, fields={"delay": "4000"}))
    assert life.moves[-1] == ("active", "delayed", "attempt_failed")
    assert life.alerts == []


DONE = {**RAN, "attempts_made": 1, "finished_on": 5_000}
ENDS: list[tuple[Callable[..., Life], Event, str]] = [
    (failed, entry("waiting", 5_000, job(), fields={"prev": "failed"}), "retried"),
    (failed, look("active", 5_000, job(**RAN), stream_id="3000-0", lock_ttl_ms=9), "retried"),
    (failed, look("completed", 5_000, job(**DONE), stream_id="3000-0"), "completed"),
    (failed, entry("removed", 5_000), "removed"),
    (failed, entry("added", 5_000, job(timestamp=5_000)), "replaced"),
    (failed, look("wait", 5_000, job(timestamp=4_900), stream_id="3000-0"), "replaced"),
    (stuck, entry("waiting", 5_000, job(**RAN), fields={"prev": "active"}, stalled=True), "rescued"),
    (stuck, look("active", 5_000, job(**RAN), stream_id="2000-0", lock_ttl_ms=9), "rescued"),
    (stuck, entry("completed", 5_000, job(**DONE), fields={"prev": "active"}), "completed"),
    (stuck, look("failed", 5_000, job(**DONE), stream_id="2000-0"), "failed"),
    (stuck, failing(at=5_000), "failed"),
    (stuck, entry("removed", 5_000), "removed"),
    (stuck, look(None, 5_000, stream_id="2000-0"), "vanished"),
    (stuck, entry("added", 5_000, job(timestamp=5_000)), "replaced"),
]  # fmt: skip


@pytest.mark.parametrize(("begin", "end", "resolved_by"), ENDS)
def test_what_resolves_an_alert(begin, end, resolved_by):
    life = begin()
    (firing,) = life.alerts
    life.apply(end)
    resolved = life.alerts[1]
    changed = {"status": "resolved", "resolved_by": resolved_by, "ends_at": 5_000}
    same = set(firing) - {*changed, "job", "annotations"}
    assert {name: resolved[name] for name in changed} == changed
    assert {name: resolved[name] for name in same} == {name: firing[name] for name in same}
    assert [alert["rule"] for alert in life.alerts[2:]] == (["failed"] if resolved_by == "failed" else [])


def test_nothing_is_resolved_twice():
    life = failed()
    life.apply(entry("waiting", 5_000, job(), fields={"prev": "failed"}))
    life.apply(entry("removed", 6_000))
    assert life.told == [("failed", "firing", None), ("failed", "resolved", "retried")]


def test_an_alert_ends_by_the_clock_that_it_began_by():
    life = stuck()
    life.apply(look("completed", 5_000, job(**{**DONE, "finished_on": 2_500}), stream_id="2000-0"))
    assert life.transitions[-1]["at"] == 2_500
    assert (life.alerts[0]["starts_at"], life.alerts[1]["ends_at"]) == (4_500, 5_000)


def test_what_is_open_when_the_row_expires():
    life = failed()
    (alert,) = expire(life.live, KEY, 9_000)
    assert (alert["status"], alert["resolved_by"], alert["ends_at"]) == ("resolved", "expired", 9_000)
    assert (alert["fingerprint"], alert["starts_at"]) == (life.alerts[0]["fingerprint"], 3_000)


def test_nothing_is_open_when_a_completed_row_expires():
    life = running()
    life.apply(entry("completed", 5_000, job(**DONE), fields={"prev": "active"}))
    assert expire(life.live, KEY, 9_000) == []


@pytest.mark.parametrize("begin", [running, stuck])
def test_a_disabled_rule_opens_nothing(begin):
    life = begin(rules=NO_ALERTS)
    life.apply(failing(at=5_000))
    assert life.alerts == []
    assert life.live["state"] == "failed"


def test_the_severity_is_the_settings_and_stays_that_of_the_opening():
    life = running(rules=Rules(failed=AlertRule(severity="page")))
    life.apply(failing())
    life.rules = Rules(failed=AlertRule(enabled=False, severity="info"))
    life.apply(entry("waiting", 5_000, job(), fields={"prev": "failed"}))
    assert [alert["severity"] for alert in life.alerts] == ["page", "page"]


@pytest.mark.parametrize(("reason", "alerts"), [("snapshot", 0), ("probe", 1), ("verify", 1)])
def test_a_job_that_a_snapshot_finds_failed_is_no_news(reason, alerts):
    hashed = job(**RAN, finished_on=3_000, failed_reason="no", attempts_made=3)
    life = Life(look("failed", 5_000, hashed, reason=reason))
    assert len(life.alerts) == alerts
    assert life.live["state"] == "failed"


def test_a_snapshot_that_finds_a_known_job_failed_alerts():
    life = running()
    hashed = job(**RAN, finished_on=3_000, failed_reason="no", attempts_made=3)
    life.apply(look("failed", 5_000, hashed, reason="snapshot", stream_id="2000-0"))
    assert life.told == [("failed", "firing", None)]
    assert life.alerts[0]["starts_at"] == 5_000


def again(life, at, seq=0):
    """Retried, taken and failed again, all in one ms."""
    life.apply(entry("waiting", at, job(), seq=seq, fields={"prev": "failed"}))
    life.apply(entry("active", at, job(**RAN), seq=seq + 1))
    life.apply(entry("failed", at, job(**RAN, finished_on=at), seq=seq + 2, fields={"failedReason": "no"}))


@pytest.mark.parametrize(("at", "seq", "starts_at"), [(7_000, 0, 7_000), (3_000, 1, 3_001)])
def test_a_second_incident_starts_later(at, seq, starts_at):
    life = failed()
    again(life, at, seq)
    first, resolved, second = life.alerts
    assert first["fingerprint"] == resolved["fingerprint"] == second["fingerprint"]
    assert (first["starts_at"], resolved["starts_at"], second["starts_at"]) == (3_000, 3_000, starts_at)
    again(life, at, seq + 3)
    assert life.alerts[-1]["starts_at"] == starts_at + 1


def test_a_second_incident_starts_later_also_where_the_workers_clock_was_ahead():
    life = running()
    life.apply(look("failed", 3_000, job(**RAN, finished_on=600_000), stream_id="2000-0"))
    again(life, 4_000)
    assert [alert["starts_at"] for alert in life.alerts] == [3_000, 3_000, 4_000]


def test_an_incident_within_the_ms_of_the_one_before_ends_no_earlier_than_it_began():
    life = failed()
    again(life, 3_000, 1)
    life.apply(entry("removed", 3_000, seq=9))
    assert (life.alerts[-1]["starts_at"], life.alerts[-1]["ends_at"]) == (3_001, 3_001)


def test_a_job_that_is_gone_and_found_failed_again_is_a_second_incident():
    hashed = job(**RAN, finished_on=2_500)
    life = Life(look("failed", 3_000, hashed), entry("removed", 4_000))
    life.apply(look("failed", 5_000, hashed, stream_id="4000-0"))
    assert [(alert["status"], alert["starts_at"]) for alert in life.alerts] == [
        ("firing", 3_000),
        ("resolved", 3_000),
        ("firing", 5_000),
    ]


class TestGoneAfterItsEnd:
    """A failed job that somebody cleaned away was acknowledged; one that BullMQ removes by itself was not."""

    def gone(self, life, at=9_000, **more):
        life.apply(look(None, at, stream_id="3000-0", **more))

    @pytest.mark.parametrize("options", [{}, {"removeOnFail": False}, {"removeOnFail": -1}, {"removeOnFail": None}])
    def test_by_hand(self, options):
        life = failed(opts={"attempts": 3, **options})
        self.gone(life)
        assert life.told[1:] == [("failed", "resolved", "vanished")]
        assert (life.live["state"], life.alerts[1]["ends_at"]) == ("failed", 9_000)
        assert not {"alerts", "kept", "gone"} & set(life.live["_"])
        self.gone(life, 10_000)
        assert len(life.alerts) == 2

    @pytest.mark.parametrize("limit", [True, 0, 5, {"count": 5}, {"age": 60}])
    def test_by_its_own_options(self, limit):
        life = failed(opts={"attempts": 3, "removeOnFail": limit})
        self.gone(life)
        assert life.told == [("failed", "firing", None)]

    def test_with_its_own_entry(self):
        life = running()
        life.apply(entry("failed", 3_000, fields={"failedReason": "no"}))
        self.gone(life)
        assert life.told == [("failed", "firing", None)]

    @pytest.mark.parametrize("where", ["failed"])
    def test_seen_afterwards_by_a_look(self, where):
        life = running()
        life.apply(entry("failed", 3_000, fields={"failedReason": "no"}))
        life.apply(look(where, 5_000, job(**RAN, finished_on=3_000), stream_id="3000-0"))
        self.gone(life)
        assert life.told[1:] == [("failed", "resolved", "vanished")]

    def test_a_replica_does_not_tell(self):
        life = failed()
        self.gone(life, replica=True)
        assert life.told == [("failed", "firing", None)]

    def test_the_next_failure_of_the_life_is_another_incident(self):
        life = failed()
        self.gone(life)
        life.apply(look("active", 9_500, job(**RAN), stream_id="3000-0", lock_ttl_ms=5))
        life.apply(entry("failed", 9_900, job(**RAN, finished_on=9_900), fields={"failedReason": "no"}))
        assert [(a["status"], a["starts_at"]) for a in life.alerts] == [
            ("firing", 3_000), ("resolved", 3_000), ("firing", 9_900),
        ]  # fmt: skip


class TestChildren:
    KEY = "child bull:q:7 failed"

    def parent(self, **more):
        hashed = job(deferred_failure=self.KEY) if more.pop("deferred", False) else job()
        return Life(
            entry("added", BORN, job()),
            entry("waiting-children", BORN, job(), seq=1),
            entry("waiting", 1_500, hashed, fields={"prev": "waiting-children"}),
            entry("active", 2_000, job(**RAN)),
        )

    @pytest.mark.parametrize("deferred", [True, False])
    def test_a_parent_that_is_taken_only_to_be_failed(self, deferred):
        life = self.parent(deferred=deferred)
        life.apply(failing(reason=self.KEY))
        assert life.alerts[0]["cause"] == "child_failed"

    @pytest.mark.parametrize(
        "reason", ["child process failed", "child of mine", f"{KEY} badly", "a child bull:q:7 failed"]
    )
    def test_a_text_of_its_own_is_not_that_of_a_child(self, reason):
        life = self.parent()
        life.apply(failing(reason=reason))
        assert life.alerts[0]["cause"] == "unrecoverable"

    def test_a_retry_by_hand_forgets_where_it_came_from(self):
        life = self.parent()
        life.apply(failing(reason=self.KEY))
        life.apply(entry("waiting", 5_000, job(attempts_made=0), fields={"prev": "failed"}))
        life.apply(entry("active", 6_000, job(**RAN)))
        life.apply(failing(at=7_000, reason=self.KEY))
        assert [a["cause"] for a in life.alerts if a["status"] == "firing"] == ["child_failed", "unrecoverable"]

    def test_found_failed_where_it_waited_for_children_only_the_text_tells(self):
        for reason, cause in ((self.KEY, "child_failed"), ("no", "unrecoverable")):
            life = Life(entry("added", BORN, job()), entry("waiting-children", BORN, job(), seq=1))
            hashed = job(**RAN, finished_on=3_000, failed_reason=reason, attempts_made=1)
            life.apply(look("failed", 5_000, hashed, stream_id="1000-1"))
            assert life.alerts[0]["cause"] == cause


def test_an_error_is_as_long_as_the_rules_allow_and_shorter_in_the_history():
    rules = Rules(max_text_bytes=5_000)
    life = running(rules=rules)
    text = "\N{SNOWMAN}" * 100_000
    life.apply(entry("failed", 3_000, fields={"failedReason": text}))
    (alert,) = life.alerts
    told = [life.live["failed_reason"], life.transitions[-1]["error"], alert["job"]["failed_reason"]]
    assert len(set(told)) == 1
    assert 4_990 < len(told[0].encode()) <= 5_000
    assert told[0].endswith("\N{SNOWMAN}… (300000 bytes)")
    past = life.live["history"][-1]["error"]
    assert 1_990 < len(past.encode()) <= 2_000
    assert past.endswith("… (300000 bytes)"), "of the original, though it was cut twice"
