"""The fold over every recorded scenario of the real BullMQ 4, 5 and 6."""

from __future__ import annotations

import copy
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from streams.core.fold import fold
from streams.core.rules import DEFAULT_RULES
from tests.core.known_differences import KNOWN, expand
from tests.core.replay import Bridge, Table, cases, differences, expected_rows, recording

CASES = cases()
CHAIN = (
    "job_id", "life", "seq", "from", "to", "source_from", "source_to", "at", "duration_ms", "cause", "error",
    "attempts_made", "max_attempts", "final", "name",
)  # fmt: skip
OWN = {"_"}


def folded(version: str, scenario: str, later: int = 0, *, gone: bool = False) -> Table:
    steps = recording(version)[scenario]
    bridge, table = Bridge(steps), Table()
    for k in range(len(steps)):
        for event in bridge.entries(k, later, gone=gone):
            table.apply(event)
    return table


def chains(table: Table) -> list[tuple[Any, ...]]:
    return [tuple(transition[name] for name in CHAIN) for transition in table.transitions]


def test_all_scenarios_are_there():
    assert len(CASES) == 39 + 46 + 45


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_after_each_step_rows_equal_hash_place_and_lock(version, scenario):
    steps = recording(version)[scenario]
    bridge, table = Bridge(steps), Table()
    found = set()
    for k, step in enumerate(steps):
        for event in bridge.entries(k):
            table.apply(event)
        found |= {(k + 1, key.partition("/")[2], field) for key, field, _, _ in differences(table, step)}
    assert found == expand(version, scenario), "rows differ from Redis where no exception is listed, or no longer do"


def test_the_list_of_exceptions_names_only_recorded_scenarios():
    named = {(version, known.scenario) for known in KNOWN for version in known.versions}
    assert named <= set(CASES)
    assert all(known.reason for known in KNOWN)


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_later_hashes_give_the_same_rows_and_chains(version, scenario):
    exact = folded(version, scenario)
    for later in range(1, len(recording(version)[scenario])):
        late = folded(version, scenario, later)
        assert chains(late) == chains(exact), f"hashes {later} steps late"
        for key, row in exact.rows.items():
            other = late.rows[key]
            if row is None or other is None:
                assert other is row
                continue
            assert {k: v for k, v in other.items() if k not in OWN} == {k: v for k, v in row.items() if k not in OWN}


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_without_hashes_states_are_the_same_and_what_is_not_known_is_said(version, scenario):
    exact, late = folded(version, scenario), folded(version, scenario, later=99, gone=True)
    for key, row in exact.live().items():
        other = late.rows[key]
        assert other is not None
        assert other["state"] == row["state"]
        if other["enriched"]:
            continue
        unknown = {*other["estimated"], *OWN, "data", "max_attempts", "priority", "parent", "enriched", "estimated"}
        unknown |= {"source_state", "history", "since", "seq", "life", "failed_reason", "delay"}
        assert {k for k in row if other[k] != row[k]} <= unknown


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_one_look_at_the_end_mends_everything(version, scenario):
    steps = recording(version)[scenario]
    table = folded(version, scenario)
    look_at(table, steps)
    assert_equal_to_redis(table, steps[-1])


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_one_look_alone_makes_the_rows(version, scenario):
    steps = recording(version)[scenario]
    table = Table()
    look_at(table, steps)
    assert_equal_to_redis(table, steps[-1])
    assert not [alert for alert in table.alerts if alert["rule"] == "failed"], "found failed by a snapshot: no alert"
    assert all(transition["cause"] in ("observed", "lock_lost") for transition in table.transitions)


def look_at(table: Table, steps: list[dict[str, Any]]) -> None:
    """One look at each job; jobs without a lock are asked about a second time, as the worker does."""
    bridge = Bridge(steps)
    last = len(steps) - 1
    for event in bridge.looks(last):
        table.apply(event)
        suspected = (table.rows[f"default/{event['queue']}/{event['job_id']}"] or {}).get("_", {}).get("suspect")
        if suspected:
            again = {**event, "reason": "probe", "observed_at": event["observed_at"] + DEFAULT_RULES.check_interval_ms}
            table.apply(again)


def assert_equal_to_redis(table: Table, step: dict[str, Any]) -> None:
    wanted = expected_rows(step)
    rows = table.live()
    for key, want in wanted.items():
        assert {field: rows[key][field] for field in want} == want
    left = {key: row["state"] for key, row in rows.items() if key not in wanted}
    assert set(left.values()) <= {"completed", "failed"}, "unfinished jobs that BullMQ no longer has are gone"


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_a_repeated_event_changes_nothing(version, scenario):
    steps = recording(version)[scenario]
    bridge, table = Bridge(steps), Table()
    for k in range(len(steps)):
        for event in bridge.entries(k):
            result = table.apply(event)
            again = fold(result.row, event)
            if result.row is not None:
                assert again.row is result.row
                assert not again.transitions
                assert not again.alerts


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_the_fold_is_pure(version, scenario):
    steps = recording(version)[scenario]
    bridge, table = Bridge(steps), Table()
    for k in range(len(steps)):
        for event in [*bridge.entries(k), *bridge.looks(k)]:
            key = f"{event['source']}/{event['queue']}/{event['job_id']}"
            row = table.rows.get(key)
            before, event_before = copy.deepcopy(row), copy.deepcopy(event)
            first, second = fold(row, event), fold(row, event)
            assert row == before
            assert event == event_before
            assert (first.row, first.transitions, first.alerts) == (second.row, second.transitions, second.alerts)
            table.apply(event)


@pytest.mark.parametrize(("version", "scenario"), CASES)
def test_transitions_are_a_chain_per_life(version, scenario):
    table = folded(version, scenario)
    lives = defaultdict(list)
    for transition in table.transitions:
        lives[transition["queue"], transition["job_id"], transition["life"]].append(transition)
    for chain in lives.values():
        assert [transition["seq"] for transition in chain] == list(range(1, len(chain) + 1))
        assert chain[0]["from"] is None
        for before, after in pairwise(chain):
            assert (after["from"], after["source_from"]) == (before["to"], before["source_to"])
            assert after["duration_ms"] == max(after["at"] - before["at"], 0)
        for transition in chain:
            assert transition["final"] == (transition["to"] in ("completed", "failed", "removed"))


def test_causes_of_the_seeds_job():
    table = folded("v5", "realistic_crawl")
    assert [(t["to"], t["cause"], t["error"]) for t in table.transitions] == [
        ("delayed", "scheduled", None),
        ("waiting", "due", None),
        ("active", "picked_up", None),
        ("delayed", "attempt_failed", "Kafka broker unreachable"),
        ("waiting", "due", None),
        ("active", "picked_up", None),
        ("completed", "completed", None),
    ]


@pytest.mark.parametrize(
    ("version", "scenario", "causes"),
    [
        ("v4", "rate_limit", ["added", "picked_up", "rate_limited", "picked_up", "completed"]),
        ("v6", "rate_limit", ["added", "picked_up", "rate_limited", "picked_up", "completed"]),
        ("v4", "move_to_delayed", ["added", "picked_up", "moved", "due", "picked_up", "completed"]),
        ("v6", "move_to_delayed", ["added", "picked_up", "moved", "due", "picked_up", "completed"]),
        ("v5", "delayed_promoted", ["scheduled", "promoted", "picked_up", "completed"]),
        ("v6", "stalled_rescued", ["added", "picked_up", "stalled", "picked_up", "completed"]),
        (
            "v6",
            "manual_retry_failed",
            ["added", "picked_up", "failed", "retried", "picked_up", "completed", "retried", "picked_up", "completed"],
        ),
    ],
)
def test_causes(version, scenario, causes):
    table = folded(version, scenario)
    assert [t["cause"] for t in table.transitions if t["job_id"] == "1"] == causes


@pytest.mark.parametrize(
    ("version", "scenario", "causes"),
    [
        ("v6", "final_failure", ["attempts_exhausted"] * 3),
        ("v6", "unrecoverable", ["unrecoverable", "attempts_exhausted"]),
        ("v4", "stalled_too_often", ["stalled_too_often"]),
        ("v6", "stalled_too_often", ["stalled_too_often"]),
        ("v4", "flow_child_fails", ["attempts_exhausted", "child_failed"]),
        ("v6", "flow_child_fails", ["attempts_exhausted", "child_failed"]),
        ("v6", "success", []),
    ],
)
def test_causes_of_failed_alerts(version, scenario, causes):
    table = folded(version, scenario)
    assert sorted(a["cause"] for a in table.alerts if a["status"] == "firing") == sorted(causes)


def test_a_retried_failure_resolves_its_alert():
    first, second = folded("v6", "manual_retry_failed").alerts
    assert (first["status"], first["ends_at"], first["resolved_by"]) == ("firing", None, None)
    assert (second["status"], second["resolved_by"]) == ("resolved", "retried")
    assert second["fingerprint"] == first["fingerprint"]
    assert second["starts_at"] == first["starts_at"] <= second["ends_at"]


def test_only_what_bullmq_did_not_do_is_called_illegal():
    odd = {case: folded(*case).anomalies for case in CASES}
    assert {case: anomalies for case, anomalies in odd.items() if anomalies} == {
        ("v5", "custom_event"): ["waiting_to_completed", "completed_to_active"],
        ("v6", "custom_event"): ["waiting_to_completed", "completed_to_active"],
    }
