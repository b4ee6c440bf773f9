from __future__ import annotations

import copy
from typing import Any

from streams.core.shed import lighter
from streams.core.step import Result
from streams.wire import dumps, loads, pack
from streams.worker.records import event_of, row_of
from tests.core.build import KEY, Life, entry, job, running

RAN = {"processed_on": 2_000, "attempts_started": 1}


def heavy() -> tuple[Life, Result]:
    """A failed job with everything that can be large, and what its last fold came to."""
    life = running()
    data = {"data": "d" * 9_000, "progress": ["p" * 9_000], "parent": {"id": "i" * 9_000, "queue": "q"}}
    first = job(**RAN, **data, name="n" * 9_000, attempts_made=1, failed_reason="e" * 9_000, stacktrace=["x"])
    life.apply(entry("waiting", 3_000, first, fields={"prev": "active"}))
    life.apply(entry("progress", 3_500, fields={"data": '"' + "p" * 9_000 + '"'}))
    life.apply(entry("active", 4_000, {**first, "attempts_started": 2}))
    last = {**first, "attempts_started": 2, "attempts_made": 2, "finished_on": 5_000}
    life.live["return_value"] = "r" * 9_000
    return life, life.apply(entry("failed", 5_000, last, fields={"failedReason": "f" * 9_000}))


def versions(result: Result) -> list[Result]:
    found: list[Result] = []
    next_one: Result | None = result
    while next_one is not None:
        found.append(next_one)
        assert len(found) < 20
        next_one = lighter(next_one)
    return found


def size(result: Result) -> int:
    return len(pack([result.row, result.transitions, result.alerts]))


def test_one_thing_after_the_other_goes_and_is_named():
    _, result = heavy()
    before = copy.deepcopy([result.row, result.transitions, result.alerts])
    every = versions(result)
    assert [result.row, result.transitions, result.alerts] == before
    named = [each.row["estimated"] for each in every if each.row is not None]
    assert named == [
        [],
        ["history"],
        ["history", "return_value"],
        ["history", "return_value", "data"],
        ["history", "return_value", "data", "progress"],
        ["history", "return_value", "data", "progress", "name", "failed_reason"],
        ["history", "return_value", "data", "progress", "name", "failed_reason", "parent"],
    ]
    sizes = [size(each) for each in every]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 30_000


def test_what_is_left_is_still_the_row_its_transition_and_its_alert():
    last = versions(heavy()[1])[-1]
    row: Any = last.row
    assert list(row)[-1] == "_"
    assert (row["state"], row["data"], row["progress"], row["return_value"], row["parent"]) == ("failed", *[None] * 4)
    assert row["failed_reason"].startswith("fff")
    assert row["failed_reason"].endswith("… (9000 bytes)")
    assert [past["cause"] for past in row["history"]][-2:] == ["picked_up", "failed"]
    assert all("error" not in past for past in row["history"])
    (alert,), (transition,) = last.alerts, last.transitions
    assert (alert["job"]["data"], alert["job"]["progress"]) == (None, None)
    assert len(alert["annotations"]["description"].encode()) <= 2_000
    assert len(transition["error"].encode()) <= 2_000


def test_payloads_that_are_carried_go_as_well():
    life, result = heavy()
    assert result.row is not None
    row = row_of(pack({**result.row, "data": None}))
    event = event_of(dumps(entry("progress", 6_000, fields={"data": "1"})), KEY.encode())
    life.row = row
    every = versions(life.apply(event))
    last = every[-1].row
    assert last is not None
    assert "history" in last["estimated"]
    assert "return_value" in last["estimated"]
    assert "data" not in last["estimated"], "there was none"
    assert all("error" not in past for past in loads(pack(last))["history"])


def test_of_a_job_that_is_gone_the_alert_sheds():
    life, _ = heavy()
    result = life.apply(entry("removed", 6_000))
    assert result.row is None
    last = versions(result)[-1]
    assert last.row is None
    assert last.alerts[0]["job"]["data"] is None
    assert len(last.transitions[0]["name"]) < 9_000


def test_a_small_one_has_nothing_to_shed():
    life = running()
    result = life.apply(entry("progress", 3_000, fields={"data": "5"}))
    small = lighter(result)
    assert small is not None
    assert small.row is not None
    assert small.row["data"] is None
    assert lighter(small) is None
