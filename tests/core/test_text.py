from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.core.text import LARGEST, cut, parse_json, whole
from streams.wire import dumps, loads

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("null", None),
        (" null ", None),
        ("", ""),
        ("not json", "not json"),
        ("42", 42),
        ('"42"', "42"),
        ('{"a":[1,2.5,true]}', {"a": [1, 2.5, True]}),
        ("[1", "[1"),
        ("NaN", "NaN"),
        ("[-Infinity]", "[-Infinity]"),
        (DEEP, DEEP),
    ],
)
def test_a_json_text_is_its_value_and_any_other_itself(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), float(2**63)),
        ("100000000000000000000", 1e20),
        ("-100000000000000000000", -1e20),
        ("9" * 400, "9" * 400),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_numbers_beyond_64_bits_are_the_floats_that_they_are_in_javascript(text, value):
    found = parse_json(text)
    assert (found, type(found)) == (value, type(value))
    dumps(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [(r'"a\ud83d"', "a\ufffd"), (r'["\udc00", "\ud83d\ude00"]', ["\ufffd", "\N{GRINNING FACE}"]), (r'"\u00e9"', "é")],
)
def test_lone_surrogates_are_replaced(text, value):
    assert parse_json(text) == value


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(values.filter(lambda value: "Infinity" not in json.dumps(value)), st.booleans())
def test_any_json_reads_back(value, ensure_ascii):
    assert parse_json(json.dumps(value, ensure_ascii=ensure_ascii)) == value


@given(st.one_of(st.text(), st.from_regex(r'\A[\[{"\\ud8c0e9.\-]{0,12}\Z')))
def test_whatever_comes_out_can_be_written(text):
    loads(dumps(parse_json(text)))


@pytest.mark.parametrize(
    ("text", "limit", "wanted"),
    [
        ("short", 5, "short"),
        ("\N{SNOWMAN}" * 4, 12, "\N{SNOWMAN}" * 4),
        ("a" * 100, 30, "a" * 15 + "… (100 bytes)"),
        ("\N{SNOWMAN}" * 40, 30, "\N{SNOWMAN}" * 5 + "… (120 bytes)"),
        ("a" * 50 + "… (9999 bytes)", 30, "a" * 14 + "… (9999 bytes)"),
        ("x\ud800y", 99, "x\N{REPLACEMENT CHARACTER}y"),
        ("a" * 9, 3, "… (9 bytes)"),
    ],
)
def test_a_text_is_cut_at_a_character_and_says_how_long_it_was(text, limit, wanted):
    assert cut(text, limit) == wanted


@given(st.text(), st.integers(40, 200))
def test_what_was_cut_fits_and_can_be_written(text, limit):
    found = cut(text * 5, limit)
    assert len(found.encode()) <= limit
    assert cut(found, limit) == found


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (2**63, LARGEST),
        (-(2**64), -LARGEST),
        (1.9, 1),
        (1e308, LARGEST),
        (-1e308, -LARGEST),
        (float("inf"), LARGEST),
        (float("-inf"), -LARGEST),
        (float("nan"), None),
        (True, None),
        ("5", None),
        (None, None),
    ],
)
def test_a_whole_number_of_64_bits_is_the_nearest(value, number):
    assert whole(value) == number


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[" * 500 + "]" * 500, False),
        ("[" * 501 + "]" * 501, True),
        ('"' + "[" * 600 + '"', False),
        ("[" + "[]," * 600 + "[]]", False),
        ('{"a":' * 501 + '"\\"["' + "}" * 501, True),
    ],
)
def test_what_is_nested_too_deep_stays_text(text, deep):
    assert (parse_json(text) == text) is deep
    assert wire.loads(wire.pack(parse_json(text))) == (text if deep else json.loads(text))
