from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import wire

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_values_are_compact_utf8():
    assert wire.dumps({"name": "é", "n": [1, None, True]}) == '{"name":"é","n":[1,null,true]}'.encode()
    assert wire.loads(b'{"name":"\\u00e9"}') == {"name": "é"}


@pytest.mark.parametrize("value", [2**64, "\ud800", object()])
def test_what_json_in_utf8_cannot_say(value):
    with pytest.raises(TypeError):
        wire.dumps(value)


@pytest.mark.parametrize("text", [b"", b"{", b"nul", b"\xff", b'"\\ud800"', b"NaN"])
def test_what_is_no_json(text):
    with pytest.raises(wire.JSONDecodeError):
        wire.loads(text)


def test_raw_text_goes_out_as_it_is():
    assert wire.dumps({"job": wire.Raw('{"n": 1.00}')}) == b'{"job":{"n": 1.00}}'


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (7, "1970-01-01T00:00:00.007Z"),
        (1_795_553_873_123, "2026-11-24T20:57:53.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339(ms, text):
    assert wire.rfc3339(ms) == text.encode()


@pytest.mark.parametrize("ms", [253_402_300_800_000, 10**16, 2**63, 2**64 - 1, 10**20, 10**40])
def test_a_time_that_rfc_3339_cannot_say_is_the_last_that_it_can(ms):
    assert wire.rfc3339(ms)[:19] == b"9999-12-31T23:59:59"


@pytest.mark.parametrize("ms", [-1, -1_795_553_873_123, -(10**30)])
def test_a_time_before_the_epoch_is_the_epoch(ms):
    assert wire.rfc3339(ms) == b"1970-01-01T00:00:00.000Z"


@given(st.integers(0, 253_402_300_799_999))
def test_times_read_back(ms):
    assert datetime.fromisoformat(wire.rfc3339(ms).decode()) == EPOCH + timedelta(milliseconds=ms)


def test_headers_are_cloudevents_in_binary_mode():
    assert dict(wire.cloud_event(b"s/q/5-0", "bullmq.job.active.v1", "/s/ü", 1_795_553_873_123)) == {
        "ce_specversion": b"1.0",
        "content-type": b"application/json",
        "ce_id": b"s/q/5-0",
        "ce_type": b"bullmq.job.active.v1",
        "ce_source": "/s/ü".encode(),
        "ce_time": b"2026-11-24T20:57:53.123Z",
    }
    assert wire.NO_HEADERS == []


@pytest.mark.parametrize("value", ["\ud800", object()])
def test_what_cannot_be_packed(value):
    with pytest.raises(wire.Unpackable):
        wire.pack({"x": value})


def test_what_is_carried_is_packed_as_it_came():
    class Shape(TypedDict, total=False):
        data: wire.Carried

    assert wire.pack(wire.reader(Shape)(b'{"data":{"n": 1.00},"more":2}')) == b'{"data":{"n": 1.00}}'
