"""A job's hash, whatever stands in it: numbers that fit, texts that were cut and say so, JSON that can be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.bridge import hashes
from streams.bridge.bullmq import Keys, carries_job, exhausted, is_marker, job_of, may_be_exhausted
from streams.bridge.encode import clean, dump_job
from streams.core.events import check

LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1795544600489", 1795544600489),
        ("1.7976931348623157e+308", LARGEST),
        ("-1e20", -LARGEST),
        ("9" * 309, LARGEST),
        ("Infinity", LARGEST),
        ("-inf", -LARGEST),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("1" * 500, None),
        ("1_000", None),
        ("\u0661", None),
        ("-12.7", -12),
    ],
)
def test_times_are_the_nearest_that_fit(text, value):
    assert hashes.time_of(text) == value


@pytest.mark.parametrize(("text", "value"), [("1e20", None), ("inf", None), ("-inf", None), (str(LARGEST), LARGEST)])
def test_other_numbers_are_none_where_they_are_too_large(text, value):
    assert hashes.number(text) == value


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(float("inf"), LARGEST), (float("-inf"), -LARGEST), (float("nan"), 0), (1.9, 1), (1e300, LARGEST)],
)
def test_scores_are_the_nearest_that_fit(value, nearest):
    assert hashes.nearest(value) == nearest


@pytest.mark.parametrize(
    ("hash_", "made"),
    [
        ({}, 0),
        ({"atm": "2"}, 2),
        ({"attemptsMade": "3", "atm": "2"}, 3),
        ({"attemptsMade": "0", "atm": "2"}, 2),
        ({"attemptsMade": "x", "atm": "2"}, 2),
        ({"attemptsMade": "x"}, None),
        ({"atm": "1e30"}, None),
    ],
)
def test_attempts(hash_, made):
    assert hashes.decode_job(hash_)["attempts_made"] == made


@pytest.mark.parametrize("opts", ["[]", "1", '"x"', "", "{", "null"])
def test_options_are_an_object_or_absent(opts):
    assert "opts" not in hashes.decode_job({"opts": opts}) or opts == "{"


@given(st.text(), st.integers(min_value=256, max_value=2000))
def test_a_text_that_was_cut_fits_says_so_and_keeps_its_beginning(text, most):
    texts = hashes.Texts(most)
    long = text * (1 + 3 * most // (len(text.encode("utf-8", "surrogatepass")) + 1))
    try:
        whole = long.encode()
    except UnicodeEncodeError:
        return  # Redis' bytes become surrogates of the escaping kind alone
    fitted = texts.fit("p", long)
    assert len(fitted.encode()) <= most
    if len(whole) <= most:
        assert (fitted, texts.cut) == (long, [])
    else:
        begin, told = fitted.rsplit("…", 1)
        assert told == f" ({len(whole)} bytes)"
        assert long.startswith(begin)
        assert most - len(fitted.encode()) < 4
        assert texts.cut == ["p"]


def test_bytes_that_are_no_text_count_as_they_are():
    texts = hashes.Texts(256)
    fitted = texts.fit("p", b"\xff".decode("utf-8", "surrogateescape") * 300)
    assert fitted.endswith("… (300 bytes)")
    assert len(fitted.encode()) <= 256


def test_stacks_are_cut_one_by_one():
    texts = hashes.Texts(300)
    stacks = ["short", "x" * 1000, 7, "y" * 300]
    job = hashes.decode_job({"stacktrace": wire.dumps(stacks).decode()}, texts=texts)
    assert job["stacktrace"][0] == "short"
    assert job["stacktrace"][1].endswith("… (1000 bytes)")
    assert job["stacktrace"][2:] == stacks[2:]
    assert texts.cut == ["job.stacktrace[1]"]


def test_long_lists_of_short_stacks_stay():
    texts, stacks = hashes.Texts(300), '["' + 'x","' * 200 + '"]'
    job = hashes.decode_job({"stacktrace": stacks}, embed=True, texts=texts)
    assert wire.loads(wire.dumps(job))["stacktrace"] == wire.loads(stacks)
    assert texts.cut == []


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize(
    "text", ["", "{", "[", "{]", '{"a":', "[1", "null", "7", '"{"', "x" * 500, "{" * 300, "\ufeff{}"]
)
def test_options_that_are_no_object_and_stacks_that_are_no_list_are_left_out(text, embed):
    texts = hashes.Texts(300)
    hash_ = {"opts": text, "stacktrace": text, "failedReason": "r", "defa": "d" * 500}
    job = hashes.decode_job(hash_, embed=embed, texts=texts)
    assert not {"opts", "stacktrace"} & job.keys()
    assert (job["failed_reason"], texts.cut) == ("r", ["job.deferred_failure"])


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize(
    ("opts", "stacks"), [("{}", "[]"), (' {"a":1}', "\n[1]"), ('\t{"a":"\\ud800"}', '["\\ud800"]')]
)
def test_options_and_stacks_stay(opts, stacks, embed):
    job = wire.loads(wire.dumps(hashes.decode_job({"opts": opts, "stacktrace": stacks}, embed=embed)))
    assert (type(job["opts"]), type(job["stacktrace"])) == (dict, list)


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        ('{"id":7,"queueKey":[]}', {"id": None, "queue": None}),
        ('{"id":"1","queueKey":"b:q","id2":1}', {"id": "1", "queue": "q", "id2": 1}),
        ('{"id":"1","queue":7}', {"id": "1", "queue": None}),
        ('{"id":"1","a":' + "[" * 300 + "]" * 300 + "}", {"id": "1", "queue": None}),
    ],
)
def test_a_parent_is_told_as_published(parent, told):
    assert hashes.parent_of({"parent": parent}) == told


def test_a_hash_read_by_its_fields_is_the_same():
    whole = dict.fromkeys(hashes.FIELDS, "1")
    assert hashes.fields_read(["1"] * len(hashes.FIELDS)) == whole
    del whole["data"]
    values: list[str | None] = ["1"] * (len(hashes.FIELDS) - 1)
    assert hashes.fields_read(values, {"data"}) == whole
    assert hashes.our_name("returnvalue") == "return_value"


TEXT = st.binary(max_size=40).map(lambda b: b.decode("utf-8", "surrogateescape"))
DEEP = st.integers(1, 400).map(lambda n: "[" * n + "]" * n)
NUMBERS = st.sampled_from(["1e400", "-1e400", "NaN", "9" * 40, "1.5", "-0", "0x1", "1e20", str(2**63), str(-(2**63))])
SHAPES = st.tuples(st.sampled_from(["", " ", "\n"]), st.text('{}[]"\\,:a1', max_size=6)).map("".join)
HASHES = st.dictionaries(st.sampled_from(hashes.FIELDS) | TEXT, TEXT | DEEP | NUMBERS | SHAPES, max_size=12)


@given(HASHES)
def test_any_hash_becomes_what_the_worker_takes(hash_):
    texts = hashes.Texts(256)
    job = wire.loads(dump_job(hash_, texts))
    for name in ("timestamp", "delay", "priority", "processed_on", "finished_on", "attempts_made", "stalled_count"):
        assert job.get(name) is None or -LARGEST <= job[name] <= LARGEST
    entry = {"source": "s", "queue": "q", "job_id": "1", "event": "added", "stream_id": "1-0", "fields": {}, "job": job}
    assert check({"kind": "entry", "queue_paused": False, "enriched": True, **entry}, b"s/q/1")["job"] == job


def test_markers_are_zero_and_a_time():
    assert is_marker("0:0")
    assert is_marker("0:1795544600489")
    assert not is_marker("0:tenant:42")
    assert not is_marker("0:")
    assert not is_marker("0:7\n")


def test_attempts_used_up_are_told_behind_the_failure():
    assert may_be_exhausted({"event": "failed"})
    assert exhausted({"event": "retries-exhausted", "jobId": "1", "attemptsMade": "3"}, "1") == 3
    assert exhausted({"event": "retries-exhausted", "jobId": "2", "attemptsMade": "3"}, "1") is None
    assert exhausted({"event": "retries-exhausted", "jobId": "1"}, "1") is None
    assert exhausted({"event": "waiting", "jobId": "1", "attemptsMade": "3"}, "1") is None


@pytest.mark.parametrize(
    ("flat", "job_id", "carries"),
    [
        (["event", "active", "jobId", "7", "prev", "waiting"], "7", True),
        (["event", "progress", "jobId", "7"], "7", False),
        (["event", "drained"], "", False),
        (["jobId", "7", "event", "active"], "", False),
    ],
)
def test_an_entrys_job_before_it_is_taken(flat, job_id, carries):
    assert (job_of(flat), carries_job(flat)) == (job_id, carries)


def test_a_trial_begins_with_the_head():
    keys = Keys("bull", "q")
    assert keys.trial[: len(keys.head)] == keys.head


def test_clean_leaves_text_alone():
    assert clean("ü\x00") == "ü\x00"
