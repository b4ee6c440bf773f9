"""The published schemas, held against real records: what BullMQ was recorded to write, through bridge and fold."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from streams import topology, wire
from streams.bridge import checkpoint, encode
from streams.bridge.bullmq import Keys
from streams.bridge.health import Health
from streams.bridge.publish import Chunk
from streams.bridge.sequencer import Gap
from streams.bridge.stream import Entry, Stream
from streams.bridge.walk import Begin, comparing_walk
from streams.core import alerts, lifecycle
from streams.core.events import REASONS
from streams.core.row import HISTORY_LENGTH, SEED_FIELDS
from streams.docs import schemas
from streams.docs.schemas import events, jobs, words
from streams.docs.topics import asyncapi, definitions
from tests.core.replay import Bridge, Table, cases, recording

ROOT = Path(__file__).parents[2]
FREE = {"fields", "counts", "data", "_"}
"""Objects whose keys are not ours."""


@functools.cache
def validator(name: str, *, closed: bool = False) -> Draft202012Validator:
    known = definitions()
    if closed:
        known = {key: {**shape, "additionalProperties": key == "Parent"} for key, shape in known.items()}
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": known}},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def replayed(version: str, scenario: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(schema, record) for all that a scenario makes."""
    steps = recording(version)[scenario]
    bridge, table = Bridge(steps), Table()
    for k in range(len(steps)):
        for event in [*bridge.entries(k), *bridge.looks(k, after_ms=1)]:
            yield "Observation" if event["event"] == "observed" else "Entry", event
            row = table.apply(event).row
            if row is not None and row["position"] == event["stream_id"]:
                yield "JobStatus", row
    yield from (("Transition", each) for each in table.transitions)
    yield from (("Alert", each) for each in table.alerts)


@pytest.mark.parametrize(("version", "scenario"), cases())
def test_every_recorded_scenario_is_described_in_full(version, scenario):
    for name, record in replayed(version, scenario):
        errors = [f"{error.json_path}: {error.message}" for error in validator(name, closed=True).iter_errors(record)]
        assert not errors, (name, record)


class Silent:
    def inc(self, *_: Any) -> None: ...


def test_what_the_bridge_tells_of_itself():
    stream, chunk, health = Stream("default", "q", Keys("bull", "q")), Chunk(), Health(Silent())  # type: ignore[arg-type]
    health.due = {stream}
    health.beat([stream], chunk)
    health.gaps(stream, [Gap((1, 0), (2, 0), 7, "trimmed"), Gap((1, 0), (2, 0), None, "reset")], chunk)
    walk = comparing_walk({"r1": "first_sight", "r2": "request"})
    health.comparison(stream, walk, chunk, finished=False)
    walk.begin = Begin(1, (2, 0), 3)
    health.comparison(stream, walk, chunk, finished=False)
    health.comparison(stream, walk, chunk, finished=True)
    values = [wire.loads(record.value) for record in chunk.records]
    assert {value["type"] for value in values} == {"heartbeat", "gap", "snapshot"}
    for value in values:
        validator(value["type"].capitalize(), closed=True).validate(value)
    told = [(value["status"], value["request"]) for value in values if value["type"] == "snapshot"]
    begun = [("started", "r1"), ("progress", "r1"), ("started", "r2"), ("progress", "r2")]
    assert told == [*begun, ("finished", "r1"), ("finished", "r2")]


@pytest.mark.parametrize("pausing", [None, "pause", "resume"])
def test_a_checkpoint(pausing):
    stream = Stream("default", "q", Keys("bull", "q"))
    stream.comparisons.ask("gap")
    stream.memory.hand_on((5, 0), 3, [((5, 0), 7)], None)
    stream.memory.sample((5, 0), 99)
    value = wire.loads(checkpoint.record("bridge", checkpoint.of_stream(stream, 1)).value)
    validator("Checkpoint", closed=True).validate({**value, "pausing": pausing})


def test_a_record_of_the_encoder_has_these_fields_and_no_others():
    stream = Stream("default", "q", Keys("bull", "q"))
    encoder = encode.Encoder(stream, 8, lambda: 1, max_text_bytes=300)
    waiting = Entry((5, 0), "5-0", "waiting", "1", {"prev": "active"}, queue_paused=False)
    waiting.job, waiting.job_as_of, waiting.where, waiting.stalled = {"name": "n", "opts": "{}"}, "6-0", "wait", True
    failed = Entry((5, 0), "5-0", "failed", "1", {"failedReason": "x" * 301}, queue_paused=False, exhausted=3)
    values = [wire.loads(record.value) for entry in (waiting, failed) for record in encoder.entry(entry)]
    for value in values:
        validator("Entry", closed=True).validate(value)
    assert set(values[0]) | set(values[1]) == set(events.Entry.model_fields)


class TestClosedSets:
    def test_states(self):
        assert get_args(words.State) == lifecycle.STATES
        assert get_args(words.StateOrRemoved) == (*lifecycle.STATES, lifecycle.REMOVED)
        places = {*lifecycle.SOURCE_STATE_OF_PLACE.values(), lifecycle.UNKNOWN}
        assert set(get_args(words.SourceState)) == places
        assert set(get_args(words.SourceStateOrRemoved)) == {*places, lifecycle.REMOVED}
        assert set(get_args(words.Place)) == set(lifecycle.SOURCE_STATE_OF_PLACE)

    def test_causes(self):
        legal = {cause for causes in lifecycle.LEGAL.values() for cause in causes}
        assert set(get_args(words.Cause)) == legal

    def test_the_rest(self):
        assert get_args(words.DeadLetterReason) == REASONS
        assert set(get_args(words.Rule)) == set(alerts.ALERT_NAMES)
        assert tuple(jobs.Seed.model_fields) == SEED_FIELDS
        history = definitions()["JobStatus"]["properties"]["history"]
        assert history["maxItems"] == HISTORY_LENGTH


class TestTheDocument:
    def test_each_schema_is_one(self):
        for definition in definitions().values():
            Draft202012Validator.check_schema(definition)

    def test_every_reference_resolves(self):
        document = asyncapi()
        for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
            found: Any = document
            for part in reference.split("/"):
                found = found[part]

    def test_it_has_every_topic(self):
        assert list(asyncapi()["channels"]) == [topic.name for topic in topology.TOPICS] == list(schemas.VALUES)

    def test_every_field_says_what_it_is(self):
        bare = [
            f"{name}.{field}"
            for name, definition in definitions().items()
            for field, schema in definition["properties"].items()
            if not schema.get("description")
        ]
        assert not bare


def without_ellipses(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_ellipses(item) for name, item in value.items() if name != "…"}
    return value


@pytest.mark.parametrize("name", ["JobStatus", "Transition", "Alert"])
def test_the_readme_shows_records_as_they_are(name):
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    record = json.loads(blocks[("JobStatus", "Transition", "Alert").index(name)])
    if name == "JobStatus":
        record["_"] = {}  # the worker's notes are not shown
    errors = [
        error
        for error in validator(name, closed=True).iter_errors(without_ellipses(record))
        if not (error.validator == "required" and "job" in error.path)  # cut short with an ellipsis
    ]
    assert not errors
