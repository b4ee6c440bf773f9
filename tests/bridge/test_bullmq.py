"""BullMQ's hashes and places as recorded from versions 4, 5 and 6."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streams import wire
from streams.bridge import bullmq, hashes
from streams.bridge.encode import dump_job

CAPTURES = Path(__file__).parent.parent / "captures"


def steps(version: str) -> list[dict[str, Any]]:
    with gzip.open(CAPTURES / f"{version}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def jobs(version: str) -> list[tuple[dict[str, Any], str, dict[str, str]]]:
    return [
        (queue, job_id, hash_)
        for step in steps(version)
        for queue in step["queues"].values()
        for job_id, hash_ in queue["jobs"].items()
    ]


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
def test_every_recorded_hash_decodes_alike_parsed_and_embedded(version):
    seen = jobs(version)
    assert len(seen) > 300
    for _, _, hash_ in seen:
        job = bullmq.decode_job(hash_)
        assert wire.loads(dump_job(hash_)) == job
        assert job["name"] == hash_["name"]
        assert job["timestamp"] == int(hash_["timestamp"])
        assert job["data"] == json.loads(hash_["data"])
        assert isinstance(job["opts"], dict)
        assert job["attempts_made"] == int(hash_.get("attemptsMade") or hash_.get("atm") or 0)
        assert ("counts_starts" in job) == (version == "v4" and "attemptsMade" in hash_)
        assert all(isinstance(frame, str) for frame in job.get("stacktrace", []))


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
def test_parents_are_told_by_id_and_queue(version):
    children = [hash_ for _, _, hash_ in jobs(version) if "parentKey" in hash_]
    assert children
    for hash_ in children:
        parent = bullmq.decode_job(hash_)["parent"]
        assert hash_["parentKey"].endswith(f":{parent['queue']}:{parent['id']}")


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
def test_the_place_follows_from_the_probe_as_bullmq_says(version):
    checked = 0
    for step in steps(version):
        for name, queue in step["queues"].items():
            for job_id in queue["jobs"]:
                where, due_at, lock_ttl_ms = bullmq.where_of(probe_replies(queue, job_id))
                if where is None:
                    where = bullmq.waits_in(search_replies(queue, job_id), paused_list=False)
                state = step["states"][name][job_id]
                assert {"wait": "waiting", "paused": "waiting", None: "unknown"}.get(where, where) == state
                assert (due_at is not None) == (where == "delayed")
                assert lock_ttl_ms == queue["locks"].get(job_id)
                checked += 1
    assert checked > 300


def probe_replies(queue: dict[str, Any], job_id: str) -> list[Any]:
    active = queue["lists"]["active"]
    scores = [queue["zsets"][zset].get(job_id) for zset in ("completed", "failed", "delayed", "prioritized")]
    children = queue["zsets"]["waiting-children"].get(job_id)
    return [
        active.index(job_id) if job_id in active else None,
        queue["locks"].get(job_id, -2),
        *(None if score is None else float(score) for score in (*scores, children)),
    ]


def search_replies(queue: dict[str, Any], job_id: str) -> list[Any]:
    lists = [queue["lists"]["wait"], queue["lists"]["paused"]]
    found = [each.index(job_id) if job_id in each else None for each in lists]
    return [*found, *found, *map(len, lists)]


@pytest.mark.parametrize(
    ("replies", "paused_list", "place"),
    [
        ([0, None, 0, None, 1, 0], False, "wait"),
        ([None, None, 3000, None, 5000, 0], True, "wait"),
        ([None, 7, None, 7, 0, 9], False, "paused"),
        ([None, None, None, 4000, 0, 5000], False, "paused"),
        ([None, None, None, None, 2000, 2000], True, None),
        ([None, None, None, None, 2001, 0], False, "wait"),
        ([None, None, None, None, 0, 2001], True, "paused"),
    ],
)
def test_a_job_waits_where_it_was_seen_and_stays_where_it_was_believed_only_in_a_long_list(replies, paused_list, place):
    assert bullmq.waits_in(replies, paused_list=paused_list) == place


def test_a_place_that_cannot_be_read_is_no_proof_of_absence():
    wrong = ValueError("WRONGTYPE")
    assert bullmq.where_of([wrong, -2, 4096.0 * 7, None, None, None, None]) == ("completed", None, None)
    assert bullmq.where_of([None, wrong, wrong, None, 4096.0 * 7, None, None]) == ("delayed", 7, None)
    for replies in ([wrong, -2, *[None] * 5], [None, -2, None, None, None, None, wrong]):
        with pytest.raises(bullmq.UnseenError):
            bullmq.where_of(replies)
    with pytest.raises(bullmq.UnseenError):
        bullmq.waits_in([0, wrong, 0, None, 1, 0], paused_list=False)


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
def test_due_time_of_a_delayed_job_is_that_of_its_entry(version):
    checked = 0
    for step in steps(version):
        for queue in step["queues"].values():
            last = {e["jobId"]: e["delay"] for _, e in queue["events"] if e["event"] == "delayed"}
            for job_id, score in queue["zsets"]["delayed"].items():
                if job_id in last:
                    assert bullmq.due_at(float(score)) == bullmq.number(last[job_id])
                    checked += 1
    assert checked > 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1795544600489.0002", 1795544600489),
        ("", None),
        ("x", None),
        (None, None),
        ("1e400", None),
        ("nan", None),
        ("9" * 30, None),
    ],
)
def test_numbers(text, value):
    assert bullmq.number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ('{"a":[1]}', {"a": [1]}),
        ("not json", "not json"),
        ("", ""),
        ("NaN", "NaN"),
        (r'"\ud800"', "\ufffd"),
        (r'{"k\udc00":"\ud83d\ude00"}', {"k\ufffd": "\U0001f600"}),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
    ],
)
def test_json_of_any_kind_comes_through(text, value):
    assert hashes.parsed(text) == value
    assert wire.loads(wire.dumps(hashes.embedded(text))) == value


def test_embedded_numbers_keep_every_digit():
    assert b"123456789012345678901234567890" in dump_job({"data": '{"n":123456789012345678901234567890}'})


def test_bytes_that_are_no_utf8_are_replaced_in_a_job():
    job = wire.loads(dump_job({"name": "a\udcff", "data": '"\udcff"', "failedReason": "\udcc3("}))
    assert job["name"] == "a\ufffd"
    assert job["failed_reason"] == "\ufffd("


@pytest.mark.parametrize(
    ("hash_", "parent"),
    [
        ({}, None),
        ({"parent": "[]"}, None),
        ({"parent": '{"id":"7","queueKey":"a:b:q","fpof":true}'}, {"id": "7", "queue": "q", "fpof": True}),
        ({"parent": "{}"}, {"id": None, "queue": None}),
        ({"parentKey": "bull:q:x:y"}, {"id": "x:y", "queue": "q"}),
        ({"parentKey": "bull"}, None),
    ],
)
def test_parent(hash_, parent):
    assert hashes.parent_of(hash_) == parent


def test_commands_are_resp():
    keys = bullmq.Keys("bull", "q")
    assert keys.hash(b"1") == bullmq.command(b"HGETALL", b"bull:q:1")
    assert keys.score("failed", b"1") == bullmq.command(b"ZSCORE", b"bull:q:failed", b"1")
    assert keys.is_active(b"1") == bullmq.command(b"LPOS", b"bull:q:active", b"1")
    assert keys.page("wait", -2, -1) == bullmq.command(b"LRANGE", b"bull:q:wait", b"-2", b"-1")
    assert keys.page("failed", 0, 9) == bullmq.command(b"ZRANGE", b"bull:q:failed", b"0", b"9", b"REV")
    assert keys.size("active") == bullmq.command(b"LLEN", b"bull:q:active")
    assert keys.size("delayed") == bullmq.command(b"ZCARD", b"bull:q:delayed")
    assert len([keys.hash(b"1"), *keys.probe(b"1")]) == bullmq.PROBE_WIDTH
    head, _, last, *_ = keys.search(b"1")
    assert head == bullmq.command(b"LPOS", b"bull:q:wait", b"1", b"MAXLEN", b"1000")
    assert last == bullmq.command(b"LPOS", b"bull:q:wait", b"1", b"RANK", b"-1", b"MAXLEN", b"1000")
    assert len(keys.search(b"1")) == bullmq.SEARCH_WIDTH
    assert len(keys.sizes(b"1")) == len(bullmq.SIZED)
    assert keys.data_size(b"1") == bullmq.command(b"HSTRLEN", b"bull:q:1", b"data")
    assert keys.fields(b"1", ["data"]).startswith(b"*%d\r\n$5\r\nHMGET" % (len(hashes.FIELDS) + 1))


def test_names_with_a_colon_are_no_queues():
    assert bullmq.queue_of_meta("bull", "bull:q:meta") == "q"
    assert bullmq.queue_of_meta("bull", "bull:a:b:meta") is None
    assert bullmq.queue_of_meta("{a:b}", "{a:b}:q:meta") == "q"
    assert bullmq.meta_pattern("bu*l[") == rb"bu\*l\[:*:meta"


@pytest.mark.parametrize(
    ("flat", "job_id"),
    [
        (["event", "added", "jobId", "7", "name", "n"], "7"),
        (["event", "waiting", "jobId", "7"], None),
        (["event", "added", "name", "n"], None),
        (["event", "added"], None),
    ],
)
def test_added_job(flat, job_id):
    assert bullmq.added_job(flat) == job_id


@pytest.mark.parametrize(
    ("hash_", "replies", "moved"),
    [
        ({}, [], False),
        ({"processedOn": "1"}, [], True),
        ({"finishedOn": "1"}, [None, None, None], True),
        ({"processedOn": "1"}, [None, None, None], False),
        ({"processedOn": "1"}, [0, None, None], True),
    ],
)
def test_a_job_read_with_its_waiting_may_have_moved_on(hash_, replies, moved):
    assert bullmq.moved_on(hash_, replies) == moved


def test_small_words():
    assert bullmq.is_marker("0:1795544600489")
    assert not bullmq.is_marker("10:1")
    assert bullmq.may_be_stall({"event": "waiting", "prev": "active"})
    assert bullmq.is_stalled({"event": "stalled", "jobId": "1"}, "1")
    assert bullmq.split({"event": "active", "jobId": "1"}) == ("active", "1")
    assert bullmq.split({}) == (None, "")
    assert bullmq.where_of([None, -1, *[None] * 5]) == (None, None, 0)


@pytest.mark.parametrize(
    ("hash_", "job"),
    [
        ({"timestamp": "1", "opts": "{}"}, True),
        ({"timestamp": "1"}, False),
        ({"opts": "{}"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_job_hash_has_a_time_and_options(hash_, job):
    assert bullmq.is_job(hash_) is job


def test_bytes_that_are_no_text_come_back_as_they_were():
    assert bullmq.raw(b"caf\xe9 \xff".decode("utf-8", "surrogateescape")) == b"caf\xe9 \xff"


def test_an_entry_and_whether_a_job_is_there():
    keys = bullmq.Keys("bull", "q")
    assert keys.entry(b"5-0") == bullmq.command(b"XRANGE", b"bull:q:events", b"5-0", b"5-0")
    assert keys.exists(b"7") == bullmq.command(b"EXISTS", b"bull:q:7")
