from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.events import REASONS, BadRecordError, check, is_after, order_of
from streams.core.fold import fold
from tests.core.build import KEY
from tests.core.strange import ABSENT, ARABIC_5, ENTRY, IDS, LOOK, changed, nearly_events

NUMBERS = (
    "timestamp", "delay", "priority", "attempts_made", "attempts_started", "stalled_count", "processed_on",
    "finished_on",
)  # fmt: skip
NO_STREAM_IDS = (
    None, 5, "", "5", "5-", "-0", "5-0-0", " 5-0", "5-0\n", "-5-0", "+5-0", "5.0-0",
    f"{ARABIC_5}-0", f"5-{ARABIC_5}", "1" * 21 + "-0", "1-" + "1" * 21,
    "18446744073709551616-0", "0-18446744073709551616",
)  # fmt: skip
WRONG: list[tuple[Any, tuple[str, ...], tuple[Any, ...]]] = [
    (ENTRY, ("source", "queue", "job_id", "event"), (None, 1, [], {})),
    (ENTRY, ("stream_id",), NO_STREAM_IDS),
    (LOOK, ("stream_id",), NO_STREAM_IDS),
    (ENTRY, ("fields",), (None, [], "a", {"prev": 1}, {"prev": None}, {"prev": {}})),
    (LOOK, ("observed_at",), (None, -1, 1.5, "1", True)),
    (LOOK, ("found",), (None, 1, "true")),
    (LOOK, ("where",), (1, [], {})),
    (LOOK, ("due_at", "lock_ttl_ms"), ("5", 1.5, True, [])),
    (ENTRY, ("job",), ([], "job", 1, False)),
    (LOOK, ("job",), ([], "job", 1, False)),
    (ENTRY, tuple(f"job.{name}" for name in NUMBERS), ("1", 1.5, True, [], {})),
    (LOOK, tuple(f"job.{name}" for name in NUMBERS), ("1", 1.5, True, [], {})),
    (ENTRY, ("job.name", "job.failed_reason"), (1, [], {}, False)),
    (ENTRY, ("job.opts",), (None, [], "{}", 1)),
    (ENTRY, ("job.stacktrace",), (None, {}, "no", 1)),
]
MISSING = [(ENTRY, name) for name in ("source", "queue", "job_id", "event", "stream_id", "fields")]
MISSING += [(LOOK, name) for name in ("source", "queue", "job_id", "stream_id", "observed_at", "found")]
BAD = [(value, name, ABSENT, "missing_field") for value, name in MISSING]
BAD += [(value, name, to, "wrong_type") for value, names, wrong in WRONG for name in names for to in wrong]


@pytest.mark.parametrize(("value", "path", "to", "reason"), BAD)
def test_a_bad_field_is_named_with_its_reason(value, path, to, reason):
    with pytest.raises(BadRecordError) as caught:
        check(changed(value, path, to), KEY.encode())
    assert caught.value.reason == reason
    assert repr(path) in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [ENTRY, LOOK])
def test_a_good_record_is_handed_through(value):
    assert check(value, KEY.encode()) is value


@pytest.mark.parametrize(
    ("value", "path", "to"),
    [
        (ENTRY, "job", None),
        (ENTRY, "job", ABSENT),
        (ENTRY, "job", {}),
        (ENTRY, "job.opts", ABSENT),
        (ENTRY, "job.name", None),
        (ENTRY, "job.failed_reason", None),
        (ENTRY, "job.unknown", object),
        *[(ENTRY, f"job.{name}", None) for name in NUMBERS],
        (ENTRY, "fields", {}),
        (ENTRY, "unknown", 1),
        (ENTRY, "stream_id", "18446744073709551615-18446744073709551615"),
        *[(LOOK, name, to) for name in ("where", "due_at", "lock_ttl_ms") for to in (None, ABSENT)],
        (LOOK, "fields", 1),
    ],
)
def test_what_is_allowed(value, path, to):
    good = changed(value, path, to)
    assert check(good, KEY.encode()) is good


@pytest.mark.parametrize("value", [None, 1, "a", [], [ENTRY], True])
def test_an_event_is_an_object(value):
    with pytest.raises(BadRecordError, match=f"JSON object, not {type(value).__name__}") as caught:
        check(value, KEY.encode())
    assert caught.value.reason == "not_object"


@pytest.mark.parametrize("key", [None, b"", b"s/q/2", b"s/q/1 ", b"\xff\xfe", b"x" * 10_000])
def test_a_key_that_is_not_the_jobs(key):
    with pytest.raises(BadRecordError, match=r"is not that of the value's job, 's/q/1'") as caught:
        check(ENTRY, key)
    assert caught.value.reason == "bad_key"
    assert len(str(caught.value)) < 300


def test_a_key_is_escaped_and_may_hold_what_no_utf8_can_say():
    value = {**ENTRY, "source": "a/b", "queue": "c%", "job_id": "\ud800/1"}
    assert check(value, b"a%2Fb/c%25/\xed\xa0\x80/1") is value


@pytest.mark.parametrize(
    ("kind", "event", "reason"),
    [("look", "completed", "wrong_type"), ("entry", "observed", "missing_field"), ("odd", "observed", "wrong_type")],
)
def test_a_look_is_called_observed_and_an_entry_has_fields(kind, event, reason):
    with pytest.raises(BadRecordError) as caught:
        check({**LOOK, "kind": kind, "event": event}, KEY.encode())
    assert caught.value.reason == reason


def test_the_reasons_are_those_of_the_contract():
    assert set(REASONS) == {"not_json", "not_object", "missing_field", "wrong_type", "bad_key", "too_large", "internal"}


def accepted(value):
    try:
        check(value, None)
    except BadRecordError as error:
        return error.reason not in ("missing_field", "wrong_type")
    return True


@given(nearly_events(), nearly_events())
@settings(max_examples=400, deadline=None)
def test_whatever_is_accepted_can_be_folded_and_told(first, second):
    row = None
    for value in (first, second):
        if accepted(value):
            result = fold(row, value)
            row = result.row
            json.dumps([result.row, result.transitions, result.alerts])


def test_a_place_in_the_stream():
    assert order_of("5-7", None) == (5, 7, False, 0)
    assert order_of("5-7", 9) == (5, 7, True, 9)


places = st.tuples(st.sampled_from(IDS), st.one_of(st.none(), st.integers(0, 3)))


@given(places, places)
def test_after_is_the_order_of_the_stream(one, other):
    assert is_after(*one, *other) == (order_of(*one) > order_of(*other))
