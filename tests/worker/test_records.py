from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.events import BadRecordError, check
from streams.core.fold import fold
from streams.wire import Carried, JSONDecodeError, dumps, loads, pack
from streams.worker.records import event_of, row_of
from tests.core.build import BORN, KEY, entry, job
from tests.core.strange import ENTRY, LOOK, nearly_events
from tests.worker.build import record

TAKEN = entry("active", 2_000, job(processed_on=2_000, attempts_started=1))
PAYLOAD = b'{"n":123456789012345678901234567890,"x":1.00,"deep":' + b"[" * 300 + b"]" * 300 + b"}"


def read(one):
    return event_of(one.value, one.key)


def outcome(read):
    """What came of reading an event: what its fold makes of it, or why there is none."""
    try:
        event = read()
    except BadRecordError as error:
        return error.reason, str(error)
    found = fold(None, event)
    return loads(pack([found.row, found.transitions, found.alerts, found.ask]))


def slowly(value, key):
    """As `event_of`, without its quick way."""
    try:
        event = loads(value)
    except JSONDecodeError as error:
        raise BadRecordError("not_json", f"the value is no JSON: {error}") from None
    return check(event, key)


def both_ways_alike(value, key):
    assert outcome(lambda: event_of(value, key)) == outcome(lambda: slowly(value, key))


@given(nearly_events())
@settings(max_examples=400, deadline=None)
def test_read_quickly_or_slowly_an_event_is_the_same(value):
    both_ways_alike(dumps(value), KEY.encode())


@given(st.sampled_from([ENTRY, LOOK]), st.data())
@settings(max_examples=400, deadline=None)
def test_bytes_that_were_damaged_are_the_same_too(value, data):
    whole = dumps({**value, "job": {**value["job"], "data": {"text": "\N{SNOWMAN} \\ud83d"}, "parent": {"id": "p"}}})
    at = data.draw(st.integers(0, len(whole) - 1))
    by = data.draw(st.one_of(st.binary(max_size=2), st.sampled_from([b"\\ud800", b"\xff", b"1.", b"nul", b"-", b'"'])))
    both_ways_alike(whole[:at] + by + whole[at + data.draw(st.integers(0, 3)) :], KEY.encode())


@pytest.mark.parametrize("value", [ENTRY, LOOK, {**ENTRY, "job": None}])
def test_what_is_in_order_is_read_quickly(value):
    event = event_of(dumps({**value, "unknown": 1}), KEY.encode())
    assert "unknown" not in event
    assert value["job"] is None or isinstance((event["job"] or {})["data"], Carried)


def test_a_payload_passes_untouched():
    value = dumps({**TAKEN, "job": {**job(), "data": 0}}).replace(b'"data":0', b'"data":' + PAYLOAD)
    row = fold(None, event_of(value, KEY.encode())).row
    assert PAYLOAD in pack(row_of(pack(row)))


def test_a_row_comes_back_as_it_went():
    row = fold(fold(None, entry("added", BORN, job())).row, TAKEN).row
    assert loads(pack(row_of(dumps(row)))) == row


def test_a_row_of_another_shape_is_read_all_the_same():
    assert row_of(b'{"id":1,"added_later":2}') == {"id": 1, "added_later": 2}


class TestRead:
    def test_a_good_record(self):
        assert read(record(TAKEN))["job_id"] == "1"

    @pytest.mark.parametrize(
        ("value", "reason", "text"),
        [
            (None, "not_json", "empty"),
            (b"", "not_json", "empty"),
            (b"{", "not_json", "no JSON"),
            (b"\xff\xfe", "not_json", "no JSON"),
            (b"[" * 100_000, "not_json", "no JSON"),
            (b"NaN", "not_json", "no JSON"),
            (b"[]", "not_object", "not list"),
            (b"null", "not_object", "not NoneType"),
            (b"{}", "missing_field", "'source'"),
        ],
    )
    def test_what_is_none(self, value, reason, text):
        with pytest.raises(BadRecordError, match=text) as caught:
            read(record(value, key=KEY.encode()))
        assert caught.value.reason == reason

    @pytest.mark.parametrize("key", [b"s/q/2", b"\xff"])
    def test_a_key_of_another_job(self, key):
        with pytest.raises(BadRecordError) as caught:
            read(record(TAKEN, key=key))
        assert caught.value.reason == "bad_key"

    def test_no_key(self):
        one = record(TAKEN)
        one.key = None
        with pytest.raises(BadRecordError) as caught:
            read(one)
        assert caught.value.reason == "bad_key"
