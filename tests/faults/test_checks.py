"""Each check of the suite, held against a small world that is right, and against worlds that are wrong in one thing.

A check that passes everything would prove nothing, so each wrong world says which words must come of it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from streams.core.alerts import fingerprint
from tests.faults import checks
from tests.faults.history import History, parse_id
from tests.faults.topics import Published, is_look

LIMIT = 1_000


def job(job_id: str, state: str, **more: Any) -> dict[str, Any]:
    """A job as BullMQ says."""
    return {
        "id": job_id, "name": "crawl", "data": {"n": 1}, "progress": 0, "delay": 0, "timestamp": 5, "attempts_made": 1,
        "finished_on": None, "processed_on": 7, "failed_reason": None, "return_value": None, "priority": 0,
        "state": state, "locked": False, **more,
    }  # fmt: skip


def row(job_id: str, state: str, source_state: str = "", **more: Any) -> dict[str, Any]:
    """The row of that job."""
    fields = {name: job(job_id, state)[name] for name in checks.COMPARED}
    return {
        **fields, "state": state, "source_state": source_state or state, "queue": "q", "life": 5, "seq": 2,
        "position": "9-0", "observed_at": None, "estimated": [], **more,
    }  # fmt: skip


def transition(job_id: str, seq: int, from_: str | None, to: str, **more: Any) -> dict[str, Any]:
    return {"queue": "q", "job_id": job_id, "life": 5, "seq": seq, "from": from_, "to": to, "observed": False, **more}


def alert(rule: str, job_id: str, status: str = "firing", starts_at: int = 10, **more: Any) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(rule, f"default/q/{job_id}", 5), "rule": rule, "status": status,
        "starts_at": starts_at, "queue": "q", "job_id": job_id, "life": 5, "resolved_by": None, **more,
    }  # fmt: skip


class World:
    """One job in each of some places, and everything that is told of them, all right."""

    def __init__(self) -> None:
        self.jobs = {
            "1": job("1", "active", locked=True),
            "2": job("2", "active"),
            "3": job("3", "failed", failed_reason="no"),
            "4": job("4", "prioritized", priority=3),
            "5": job("5", "unknown"),
            "6": job("6", "completed", failed_reason="x" * 2_000),
        }
        self.dump: dict[str, Any] = {"q": {"paused": True, "jobs": self.jobs}}
        self.rows: dict[str, Any] = {
            "default/q/1": row("1", "active"),
            "default/q/2": row("2", "stuck", "active"),
            "default/q/3": row("3", "failed", failed_reason="no"),
            "default/q/4": row("4", "paused", "prioritized", priority=3),
            "default/q/5": row("5", "stuck", "unknown"),
            "default/q/6": row("6", "completed", failed_reason="x" * 900 + "… (2000 bytes)"),
            "default/q/7": row("7", "completed"),
            "default/q/8": None,
        }
        self.transitions = [
            each
            for key, told in self.rows.items()
            for each in (
                transition(key[-1], 1, None, "waiting"),
                transition(key[-1], 2, "waiting", told["state"] if told else "removed"),
            )
        ]
        self.alerts = [alert("stuck", "2"), alert("failed", "3"), alert("stuck", "5")]
        self.logs = [
            {"queue": "q", "id": "7", "state": "completed", "timestamp": 5, "name": "crawl", "attempts_made": 1,
             "finished_on": 9, "stays": True},
        ]  # fmt: skip
        self.history = History()
        self.gone: dict[tuple[str, str], bool] = {}
        self.published: list[Published] = []

    def found(self) -> list[str]:
        return [
            *checks.rows(self.rows, self.dump, LIMIT),
            *checks.forgotten(self.rows, self.dump, self.logs, self.history, self.published),
            *checks.chains(self.transitions, self.rows),
            *checks.alerts(self.alerts, self.rows, self.dump, self.transitions, self.logs, self.gone),
        ]


@pytest.fixture
def world() -> World:
    return World()


def test_the_right_world_is_right(world):
    assert world.found() == []


def only(world: World, *words: str) -> None:
    """At least one line, and all of them with these words."""
    found = world.found()
    assert found
    assert all(all(word in line for word in words) for line in found), found


class TestRows:
    @pytest.mark.parametrize("field", checks.COMPARED)
    def test_every_field_is_compared(self, world, field):
        world.rows["default/q/1"][field] = "wrong"
        only(world, f"default/q/1: {field} is 'wrong', BullMQ says")

    @pytest.mark.parametrize("field", ["state", "source_state"])
    def test_so_are_the_states(self, world, field):
        world.jobs["4"]["state"] = "waiting" if field == "source_state" else "completed"
        assert any(f"default/q/4: {field} is" in line for line in world.found())

    def test_a_missing_row(self, world):
        del world.rows["default/q/1"]
        world.rows["default/q/4"] = None  # a tombstone is none, either
        found = world.found()
        assert "default/q/1: no row, BullMQ says active" in found
        assert "default/q/4: no row, BullMQ says prioritized" in found

    @pytest.mark.parametrize(
        "text",
        [
            "x" * 2_000,
            "x" * 900,
            "x" * 900 + "… (1999 bytes)",
            "y" + "x" * 899 + "… (2000 bytes)",
            "x" * 990 + "… (2000 bytes)",
            None,
        ],
    )
    def test_a_text_that_is_cut_wrongly(self, world, text):
        world.rows["default/q/6"]["failed_reason"] = text
        only(world, "default/q/6: failed_reason")

    def test_a_short_text_must_not_be_cut(self, world):
        world.jobs["3"]["failed_reason"] = "x" * 50
        world.rows["default/q/3"]["failed_reason"] = "x" * 10 + "… (50 bytes)"
        only(world, "default/q/3: failed_reason")

    def test_of_hostile_jobs_only_the_state_is_compared(self, world):
        world.dump["hostile"] = {
            "paused": False,
            "jobs": {
                "1": job("1", "waiting", delay="1e20"),
                "2": {"id": "2", "error": "x", "state": "waiting", "locked": False},
            },
        }
        world.rows["default/hostile/1"] = row("1", "waiting", queue="hostile", delay=5, seq=0)
        world.rows["default/hostile/2"] = row("2", "waiting", queue="hostile", seq=0)
        assert world.found() == []
        world.rows["default/hostile/1"]["state"] = "completed"
        only(world, "default/hostile/1: state")


class TestForgottenJobs:
    def test_an_unfinished_row_is_wrong(self, world):
        del world.jobs["1"]
        only(world, "default/q/1: active (active), but BullMQ has no such job")

    @pytest.mark.parametrize("field", checks.KNOWN_BY_THE_APPLICATION)
    def test_what_the_application_saw_is_compared(self, world, field):
        world.logs[0][field] = "wrong" if field != "timestamp" else 5
        if field == "timestamp":  # another life: nothing is known of this one
            world.logs[0]["timestamp"] = 6
            assert world.found() == []
            return
        only(world, f"default/q/7: {field}", "the application saw 'wrong'")

    def test_a_job_whose_end_was_lost_is_not(self, world):
        for at, event in (("8-0", b"active"), ("9-0", b"completed")):
            world.history.apply([b"XADD", b"bull:q:events", at.encode(), b"event", event, b"jobId", b"7"])
        world.logs[0]["attempts_made"] = 3
        world.published = [Published("q", (each, 0), 0, b"", False, "events") for each in (8, 9)]
        only(world, "default/q/7: attempts_made is 1, the application saw 3")
        del world.published[1]
        assert world.found() == []

    def test_what_is_said_to_be_estimated_is_not(self, world):
        world.logs[0]["attempts_made"] = 3
        world.rows["default/q/7"]["estimated"] = ["attempts_made"]
        assert world.found() == []

    def test_a_row_of_something_undone(self, world):
        world.history.apply([b"XADD", b"bull:q:events", b"8-0", b"event", b"added", b"jobId", b"7"])
        world.history.apply([b"XADD", b"bull:q:events", b"9-0", b"event", b"completed", b"jobId", b"7"])
        assert world.found() == []
        world.history.become({b"bull:q:events": [(b"8-0", [b"event", b"added", b"jobId", b"7"])]})
        only(world, "default/q/7: completed by entry 9-0, which was undone")


class TestChains:
    def test_a_hole(self, world):
        world.transitions = [each for each in world.transitions if (each["job_id"], each["seq"]) != ("1", 1)]
        found = world.found()
        assert "q/1 life 5: seq is [2], expected 1 to 1" in found
        assert "q/1 life 5: begins from waiting, expected null" in found

    def test_twice(self, world):
        world.transitions.append(copy.copy(world.transitions[1]))
        assert any("seq is [1, 2, 2]" in line for line in world.found())

    def test_from_where_it_was_not(self, world):
        world.transitions[1]["from"] = "delayed"
        only(world, "q/1 life 5: waiting (seq 1), then from delayed")

    def test_a_row_that_went_on_alone(self, world):
        world.rows["default/q/7"]["seq"] = 3
        only(world, "default/q/7: the row is at (5, 3, 'completed'), its chain ends at (5, 2, 'completed')")

    def test_a_row_of_another_life(self, world):
        world.rows["default/q/7"]["life"] = 6
        only(world, "default/q/7", "its chain ends at")

    def test_a_row_without_a_chain(self, world):
        world.transitions = [each for each in world.transitions if each["job_id"] != "7"]
        only(world, "default/q/7", "its chain ends at None")

    def test_a_row_that_vanished_without_a_word(self, world):
        world.transitions[-1]["to"] = "active"
        only(world, "default/q/8: its row is gone, its chain ends in active")


class TestAlerts:
    @pytest.mark.parametrize(("number", "words"), [(0, "stuck"), (1, "failed"), (2, "stuck")])
    def test_a_missing_one(self, world, number, words):
        del world.alerts[number]
        only(world, f"{words} by BullMQ's word, and no alert is open")

    def test_none_is_expected_for_what_was_found_failed(self, world):
        del world.alerts[1]
        world.transitions = [each for each in world.transitions if each["job_id"] != "3"]
        world.transitions.append(transition("3", 1, None, "failed", observed=True))
        world.rows["default/q/3"]["seq"] = 1
        assert world.found() == []

    @pytest.mark.parametrize("rule", ["stuck", "failed"])
    def test_one_too_many(self, world, rule):
        world.alerts.append(alert(rule, "1"))
        only(world, "default/q/1", f"alert {rule} is open, BullMQ does not say so; the row says active")

    def test_one_of_a_life_before(self, world):
        world.alerts.append({**alert("failed", "3"), "life": 4, "fingerprint": fingerprint("failed", "default/q/3", 4)})
        only(world, "default/q/3 life 4: alert failed is open")

    def test_a_failed_job_that_was_cleaned_away(self, world):
        world.alerts.append(alert("failed", "7"))
        world.rows["default/q/7"]["state"] = world.logs[0]["state"] = "failed"
        world.transitions[-3]["to"] = "failed"
        only(world, "default/q/7", "alert failed is open")
        world.gone = {("q", "7"): True}  # nobody could see its hash when it failed
        assert world.found() == []
        world.gone = {("q", "7"): False}
        world.logs[0]["stays"] = False  # BullMQ removed it by itself
        assert world.found() == []

    def test_firing_twice(self, world):
        world.alerts.append(alert("stuck", "2", starts_at=20))
        only(world, "fires at 20 while it is open since 10")

    @pytest.mark.parametrize("before", [None, 4])
    def test_resolved_without_firing_then(self, world, before):
        world.alerts += [alert("failed", "1", starts_at=before)] if before else []
        world.alerts.append(alert("failed", "1", "resolved", starts_at=5))
        only(world, f"resolved for 5, open was {before}")

    def test_an_incident_that_is_over(self, world):
        world.alerts += [alert("failed", "1", starts_at=4), alert("failed", "1", "resolved", starts_at=4)]
        assert world.found() == []


def test_looks_and_entries_are_told_apart():
    look = {"event": "observed", "observed_at": 5, "found": True}
    assert is_look(look)
    assert is_look({**look, "kind": "look"})
    assert not is_look({**look, "fields": {}})
    assert not is_look({**look, "kind": "entry"})
    assert not is_look({"event": "active", "fields": {}})


def test_long_lists_are_cut():
    assert checks.some(["a"] * 3) == "a\na\na"
    assert checks.some(["a"] * 30).endswith("… and 5 more")
    assert checks.some(["a\nb\x1b[2J"]) == "a\\nb\\x1b[2J"
    assert parse_id("5-7") == (5, 7)
