from __future__ import annotations

import pytest
from pipeshub_sdk.models import JobStatus

from streams.core.row import (
    NOTES,
    SEED_FIELDS,
    attempts_of,
    certain,
    estimate,
    max_attempts_of,
    new_row,
    note,
    seed_of,
    started,
    take_all,
    take_creation,
)
from tests.core.build import entry, job, look

CONTRACT = {
    *SEED_FIELDS, "source", "queue", "life", "source_state", "since", "due_at", "position", "observed_at", "seq",
    "max_attempts", "priority", "stalled_count", "return_value", "parent", "enriched", "estimated", "history",
    "epoch", "_",
}  # fmt: skip


NOTED = {"due": 0, "state": "waiting", "fails": 0, "starts": 0, "at": 1_234, "spread": 669}


def fresh():
    return new_row(entry("added", 1_234, fields={"name": "crawl"}), 1_234)


def test_a_new_row_has_the_fields_of_the_contract():
    row = fresh()
    assert set(row) == CONTRACT
    assert (row["id"], row["name"], row["source"], row["queue"]) == ("1", "crawl", "s", "q")
    assert (row["timestamp"], row["since"], row["life"], row["seq"]) == (1_234, 1_234, 1_234, 0)
    assert row["progress"] == 0
    assert row["estimated"] == ["timestamp"]
    assert row["enriched"] is False


def test_a_row_of_a_look_has_no_name_yet():
    assert new_row(look("wait", 5_000, stream_id="4000-0"), 7)["name"] == ""
    assert new_row(look("wait", 5_000, stream_id="4000-0"), 7)["since"] == 4_000


def test_the_seed_fields_alone_and_the_row_whole_are_the_published_model():
    row = fresh()
    crawl = {
        "connector": "drive", "connectorId": "c1", "scheduleConfig": {"scheduleType": "hourly", "minute": 5},
        "orgId": "o1", "userId": "u1", "timestamp": "2026-11-24T20:57:53.123Z",
    }  # fmt: skip
    take_creation(row, job(data=crawl))
    assert list(seed_of(row)) == list(SEED_FIELDS)
    for value in (row, seed_of(row)):
        model = JobStatus.model_validate(value)
        assert (model.name, model.state) == ("crawl", "waiting")


def test_a_note_of_none_is_taken_away_and_the_old_notes_stay_as_they_were():
    row = fresh()
    before = row[NOTES]
    note(row, suspect={"at": 1}, v4=True)
    note(row, v4=None, never=None)
    assert row[NOTES] == {**NOTED, "suspect": {"at": 1}}
    assert before == NOTED


def test_estimates_are_named_once_and_can_be_taken_back():
    row = fresh()
    before = row["estimated"]
    estimate(row, "delay", "timestamp")
    estimate(row, "delay")
    assert row["estimated"] == ["timestamp", "delay"]
    certain(row, "timestamp", "cause")
    assert row["estimated"] == ["delay"]
    certain(row, "delay")
    certain(row, "delay")
    assert row["estimated"] == []
    assert before == ["timestamp"]


@pytest.mark.parametrize(
    ("opts", "most"),
    [({}, 1), ({"attempts": 0}, 1), ({"attempts": 1}, 1), ({"attempts": 5}, 5), ({"attempts": "5"}, 1)],
)
def test_how_often_bullmq_tries(opts, most):
    assert max_attempts_of({"opts": opts}) == most
    assert max_attempts_of({}) == 1


def test_creation_is_name_data_time_priority_parent_and_attempts():
    row = fresh()
    take_creation(row, job(name="other", data=[1], priority=3, parent={"id": "9"}, timestamp=999, progress=50))
    assert (row["name"], row["data"], row["priority"], row["parent"]) == ("other", [1], 3, {"id": "9"})
    assert (row["timestamp"], row["max_attempts"], row["enriched"]) == (999, 3, True)
    assert row["estimated"] == []
    assert row["progress"] == 0


def test_creation_keeps_what_the_hash_lacks():
    row = fresh()
    take_creation(row, {})
    assert (row["name"], row["timestamp"], row["priority"], row["max_attempts"]) == ("crawl", 1_234, 0, 1)


def test_a_look_takes_everything():
    row = fresh()
    estimate(row, "cause", "delay")
    whole = job(
        progress={"p": 1}, delay=7, attempts_made=2, attempts_started=3, processed_on=5, finished_on=6,
        failed_reason="no", return_value=[1], stalled_count=4, stacktrace=["a", "b"],
    )  # fmt: skip
    take_all(row, whole, running=False, max_text_bytes=99)
    assert {name: row[name] for name in whole if name in row} == {
        name: value for name, value in whole.items() if name in row
    }
    assert row["estimated"] == []
    assert row[NOTES] == {**NOTED, "fails": 2, "starts": 3}


def test_a_look_at_a_bare_hash_leaves_nothing_of_before():
    row = fresh()
    take_all(
        row,
        job(progress=1, return_value=1, failed_reason="no", counts_starts=True, stacktrace=["a"]),
        running=True,
        max_text_bytes=99,
    )
    assert row[NOTES]["v4"] is True
    take_all(row, {"timestamp": 5}, running=False, max_text_bytes=99)
    assert (row["progress"], row["return_value"], row["failed_reason"], row["stalled_count"]) == (0, None, None, 0)
    assert row[NOTES] == NOTED


@pytest.mark.parametrize(
    ("hashed", "running", "ended"),
    [
        ({"attempts_made": 2}, True, 2),
        ({"attempts_made": 2, "counts_starts": True}, True, 1),
        ({"attempts_made": 2, "counts_starts": True}, False, 2),
        ({"attempts_made": 0, "counts_starts": True}, True, 0),
        ({}, True, 0),
    ],
)
def test_attempts_that_have_ended(hashed, running, ended):
    assert attempts_of(hashed, running=running) == ended


@pytest.mark.parametrize(
    ("hashed", "starts"),
    [
        ({}, 0),
        ({"attempts_started": 3, "attempts_made": 1}, 3),
        ({"attempts_made": 2}, 0),
        ({"attempts_made": 2, "counts_starts": True}, 2),
    ],
)
def test_how_often_a_job_was_started(hashed, starts):
    assert started(hashed) == starts
