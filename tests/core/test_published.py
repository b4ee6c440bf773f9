"""Whatever stands in an event that was accepted: the fold goes on, and what it makes is what the schemas publish."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streams import wire
from streams.core.events import check
from streams.core.fold import fold
from streams.core.job import job_key
from streams.core.rules import Rules
from streams.core.shed import lighter
from streams.core.step import Result
from streams.core.text import LARGEST
from streams.docs.topics import definitions
from streams.worker.records import event_of, row_of
from tests.core.build import Life, entry, job, look

RULES = Rules(max_text_bytes=300)
DEEP: Any = json.loads("[" * 300 + "]" * 300)
TEXTS = (
    "", "a", "\x00\n", "\N{SNOWMAN}" * 200, "\ud83d", "x\udc00y", "null", "NaN", "Infinity", "-Infinity", "1e308",
    "1e999", "9" * 400, "-" + "9" * 30, "[" * 300 + "]" * 300, "[" * 900 + "]" * 900, "[" * 5_000, '"\\ud800"', "{",
    "1_0", " 7 ", "1.7976931348623157e+308", "job stalled more than allowable limit", "child bull:q:7 failed", "0",
    "5000", "active", "failed", "completed", "delayed", "waiting-children", "… (9 bytes)",
)  # fmt: skip
NUMBERS = (None, 0, 1, -1, 2, 3, 1_000, 2_000, LARGEST, LARGEST - 1, -LARGEST, -(2**63))
STREAM_IDS = ("0-0", "1-0", "1000-0", "2000-5", "2000-6", "9223372036854775807-0", "18446744073709551615-1")
EVENTS = (
    "added", "waiting", "active", "delayed", "waiting-children", "completed", "failed", "stalled", "progress",
    "removed", "duplicated", "retries-exhausted", "observed", "crawl:page", "",
)  # fmt: skip

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from(NUMBERS)
values = st.one_of(
    st.none(), texts.filter(str.isprintable), st.sampled_from([0, 1.5, 1e308, True, [1], {"a": None}, DEEP])
)
options = st.fixed_dictionaries(
    {},
    optional={
        "attempts": st.one_of(values, st.sampled_from([3, 10**30, -5])),
        "delay": st.one_of(values, st.sampled_from([5, 10**30])),
        "priority": values,
        "removeOnFail": st.one_of(values, st.just({"count": 5})),
    },
)
NAMES = (
    "timestamp", "delay", "priority", "attempts_made", "attempts_started", "stalled_count", "processed_on",
    "finished_on",
)  # fmt: skip
hashes = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, numbers),
        "name": st.one_of(st.none(), texts.map(lambda text: text.encode(errors="replace").decode())),
        "failed_reason": st.one_of(st.none(), texts),
        "data": values, "opts": options, "progress": values, "return_value": values, "counts_starts": st.just(True),
        "stacktrace": st.lists(values, max_size=3), "deferred_failure": texts,
        "parent": st.sampled_from([None, {"id": "5", "queue": None, "more": 1}]),
    },
)  # fmt: skip
fields = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("prev", "delay", "data", "failedReason", "returnvalue", "name", "attemptsMade"), texts)
)
epochs = st.sampled_from([0, 0, 0, 1, LARGEST])
common = {
    "source": st.just("s"), "queue": st.just("q"), "job_id": st.sampled_from(["1", "0:tenant:42"]),
    "stream_id": st.sampled_from(STREAM_IDS), "epoch": epochs, "job": st.one_of(st.none(), hashes),
    "queue_paused": st.booleans(),
}  # fmt: skip
entries = st.fixed_dictionaries(
    {**common, "kind": st.just("entry"), "event": st.sampled_from(EVENTS), "fields": fields},
    optional={"stalled": st.just(True), "exhausted": numbers, "where": st.sampled_from([None, "wait", "prioritized"])},
)
PLACES = (None, "wait", "paused", "active", "delayed", "prioritized", "waiting-children", "completed", "failed", "odd")
looks = st.fixed_dictionaries(
    {
        **common, "kind": st.just("look"), "event": st.just("observed"), "found": st.booleans(),
        "observed_at": st.sampled_from([0, 1_000, 2_500, 9_000, LARGEST]), "where": st.sampled_from(PLACES),
    },
    optional={"due_at": numbers, "lock_ttl_ms": numbers, "reason": texts, "replica": st.booleans()},
)  # fmt: skip


@functools.cache
def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": definitions()}})


def integers(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from integers(inner)


def published(result: Result) -> list[tuple[str, Any]]:
    rows = [] if result.row is None else [("JobStatus", result.row)]
    return [
        *rows,
        *[("Transition", one) for one in result.transitions],
        *[("Alert", one) for one in result.alerts],
    ]


def conforms(result: Result) -> None:
    for name, record in published(result):
        value = wire.loads(wire.pack(record))
        errors = [f"{error.json_path}: {error.message}" for error in schema(name).iter_errors(value)]
        assert not errors, (name, errors)
        ours = {field: inner for field, inner in record.items() if field not in ("data", "progress", "return_value")}
        assert all(-(2**63) <= number < 2**63 for number in integers(ours))
    if result.row is not None:
        assert list(result.row)[-1] == "_"
        assert set(result.row["estimated"]) <= {*result.row, "cause"}


@given(st.lists(st.one_of(entries, looks), max_size=8))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_made_of_any_events_is_what_is_published(events):
    rows: dict[str, Any] = {}
    for event in events:
        key = job_key("s", "q", event["job_id"])
        result: Result | None = fold(rows.get(key), check(event, key.encode()), RULES)
        assert result is not None
        rows[key] = result.row
        while result is not None:
            conforms(result)
            result = lighter(result)
        for name, record in published(fold(None, event, RULES)):
            texts_of = [record.get("failed_reason"), record.get("error")] if name != "Alert" else []
            assert all(len(text.encode()) <= RULES.max_text_bytes for text in texts_of if text)


@given(st.lists(st.one_of(entries, looks), max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_as_bytes_they_come_to_the_same(events):
    """What the worker does: events and rows go through JSON between two folds."""
    rows: dict[str, Any] = {}
    for event in events:
        try:
            value = wire.dumps(event)
        except TypeError:  # what no JSON can say never reaches a worker
            continue
        key = job_key("s", "q", event["job_id"])
        result = fold(rows.get(key), event_of(value, key.encode()), RULES)
        conforms(result)
        rows[key] = None if result.row is None else row_of(wire.pack(result.row))


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (entry("waiting", 2_000, job(priority=None)), "priority"),
        (entry("waiting", 2_000, job(timestamp=None)), "timestamp"),
        (entry("waiting", 2_000, job(timestamp=LARGEST)), "timestamp"),
        (entry("waiting", 2_000, job(opts={"attempts": 1e300})), "max_attempts"),
        (entry("added", 2_000, job(opts={"delay": 1e300})), "delay"),
        (entry("delayed", 2_000, job(delay=LARGEST), fields={"delay": "3000"}), "delay"),
        (entry("delayed", 2_000, job(), fields={"delay": "1e300"}), "due_at"),
        (entry("delayed", 2_000, job(), fields={"delay": "inf"}), "due_at"),
        (entry("delayed", 2_000, job(), fields={"delay": "soon"}), "due_at"),
        (entry("active", 2_000, job(processed_on=None)), "processed_on"),
        (entry("completed", 2_000, job(finished_on=None)), "finished_on"),
        (look("completed", 2_000, job(finished_on=None)), "finished_on"),
        (look("active", 2_000, job(attempts_made=None)), "attempts_made"),
        (look("active", 2_000, job(stalled_count=-(2**63))), "stalled_count"),
        (look("delayed", 2_000, job(), due_at=LARGEST), "due_at"),
        (look("wait", 2_000, job(delay=None)), "delay"),
    ],
)
def test_a_number_that_is_none_or_lies_beyond_is_named(event, named):
    life = Life(event)
    assert named in life.live["estimated"]
    assert named in {*life.live, "cause"}


def test_what_is_named_is_named_no_longer_when_it_is_known():
    life = Life(entry("waiting", 2_000, job(priority=None, timestamp=None)))
    life.apply(entry("active", 3_000, job(processed_on=3_000, timestamp=None)))
    assert life.live["estimated"] == ["timestamp"]
    life.apply(look("active", 3_000, job(processed_on=3_000, timestamp=None), stream_id="3000-0", lock_ttl_ms=5))
    assert life.live["estimated"] == ["timestamp"]


@pytest.mark.parametrize("text", ["not json", "NaN", "Infinity", "1e999", "[" * 5_000, "{"])
def test_progress_that_is_no_json_changes_nothing(text):
    life = Life(entry("active", 2_000, job()), entry("progress", 2_001, fields={"data": "7"}))
    life.apply(entry("progress", 2_002, fields={"data": text}))
    assert life.live["progress"] == 7
