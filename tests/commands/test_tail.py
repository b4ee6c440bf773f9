from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from aiokafka.structs import ConsumerRecord

from streams import wire
from streams.commands import console, tail_text
from streams.core.job import job_key, partition_of
from tests.commands.support import PARTITIONS, Put, lines, put, row, run, servers

pytestmark = pytest.mark.system

FROM_START = ("--from", "beginning", "--max")


def transition(job_id: str, to: str, queue: str = "q", at: int = 1_795_478_836_845) -> Put:
    value = {
        "source": "default",
        "queue": queue,
        "job_id": job_id,
        "from": None,
        "to": to,
        "cause": "added",
        "error": None,
    }
    headers = {"ce_type": "bullmq.job.transition.v1"}
    return Put("transitions", job_key("default", queue, job_id), value, headers, timestamp=at)


@pytest.fixture
def settings(kafka, prefix):
    settings = servers(kafka, prefix)
    assert run("topics", "apply", **settings).exit_code == 0
    return settings


def test_one_object_a_line_with_all_of_the_record(kafka, prefix, settings):
    put(kafka, prefix, [transition("1", "waiting")])
    result = run("tail", "transitions", *FROM_START, "1", **settings)
    assert result.exit_code == 0
    key = "default/q/1"
    assert lines(result) == [
        {
            "topic": f"{prefix}.transitions.v1",
            "partition": partition_of(key.encode(), PARTITIONS),
            "offset": 0,
            "timestamp": 1_795_478_836_845,
            "key": key,
            "headers": {"ce_type": "bullmq.job.transition.v1"},
            "value": transition("1", "waiting").value,
        }
    ]


def test_filters_by_queue_and_job(kafka, prefix, settings):
    put(
        kafka,
        prefix,
        [transition(str(n), state, queue) for queue in ("a", "b") for n in range(9) for state in ("x", "y")],
    )
    found = lines(run("tail", "transitions", "--queue", "a", *FROM_START, "18", **settings))
    assert {record["value"]["queue"] for record in found} == {"a"}
    found = lines(run("tail", "transitions", "--queue", "b", "--job", "7", *FROM_START, "2", **settings))
    assert [(r["value"]["queue"], r["value"]["job_id"], r["value"]["to"]) for r in found] == [
        ("b", "7", "x"),
        ("b", "7", "y"),
    ]
    found = lines(run("tail", "transitions", "--job", "7", *FROM_START, "4", **settings))
    assert {record["value"]["queue"] for record in found} == {"a", "b"}


def test_from_a_time_on(kafka, prefix, settings):
    put(kafka, prefix, [transition("1", "old", at=1_795_000_000_000), transition("1", "new", at=1_795_000_001_000)])
    found = lines(run("tail", "transitions", "--from", "1795000000500", "--max", "1", **settings))
    assert found[0]["value"]["to"] == "new"


def test_topics_that_are_keyed_otherwise(kafka, prefix, settings):
    alert = {"source": "default", "queue": "q", "job_id": "1", "rule": "failed"}
    put(
        kafka,
        prefix,
        [
            Put("alerts", "f1", alert | {"queue": "other"}),
            Put("alerts", "f2", alert),
            Put("health", "default/a%2Fb", {"type": "gap"}, single=True),
            Put("dead-letters", None, b"{\xff", {"dlq_reason": "not_json"}, single=True),
            Put("dead-letters", b"\xfe", b'{"a": 1}', single=True),
            Put("status", "default/q/1", None),
            Put("status", "default/q/1", b"no json"),
        ],
    )
    assert lines(run("tail", "alerts", "--queue", "q", *FROM_START, "1", **settings))[0]["key"] == "f2"
    assert lines(run("tail", "health", "--queue", "a/b", *FROM_START, "1", **settings))[0]["value"] == {"type": "gap"}
    first, second = lines(run("tail", "dead-letters", *FROM_START, "2", **settings))
    assert (first["key"], first["value"], first["headers"]) == (None, "{\\xff", {"dlq_reason": "not_json"})
    assert (second["key"], second["value"]) == ("\\xfe", '{"a": 1}')
    assert [r["value"] for r in lines(run("tail", "status", *FROM_START, "2", **settings))] == [None, "no json"]


def test_aborted_records_are_not_shown_and_follows_until_ctrl_c(kafka, prefix, settings, tmp_path):
    environ = {**os.environ, **{f"BULLMQ_STREAMS_{name}": value for name, value in settings.items()}}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "tail", "status", "--from", "beginning"],
            env=environ, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while b'"a1"' not in (tmp_path / "out").read_bytes():
            put(kafka, prefix, [row("a1", "waiting")])
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert b"Traceback" not in (tmp_path / "out").read_bytes()


def shown(monkeypatch, topic: str, put_: Put) -> str:
    said: list[str] = []
    monkeypatch.setattr(console, "line", lambda *parts: said.append("".join(text for text, _ in parts)))
    key = put_.key.encode() if isinstance(put_.key, str) else put_.key
    value = put_.value if isinstance(put_.value, bytes | None) else wire.dumps(put_.value)
    headers = [(name, text.encode()) for name, text in put_.headers.items()]
    tail_text.show(topic, ConsumerRecord(topic, 0, 0, 0, 0, key, value, None, 0, 0, headers))
    return said[0].partition("  ")[2]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            Put("events", "default/q/1", {"event": "completed", "fields": {"prev": "active"}}),
            "default/q/1  completed  prev=active",
        ),
        (
            Put("events", "default/q/1", {"event": "observed", "reason": "probe", "found": True, "where": "wait"}),
            "default/q/1  observed  reason=probe found=true where=wait",
        ),
        (row("1", "failed"), "default/q/1  failed  crawl  attempt 1/3"),
        (Put("status", "default/q/1", None), "default/q/1  gone"),
        (transition("1", "waiting"), "default/q/1  · → waiting  added"),
        (
            Put("alerts", "f", {"status": "firing", "rule": "stuck", "annotations": {"summary": "it is stuck"}}),
            "f  firing stuck  it is stuck",
        ),
        (Put("health", "default/q", {"type": "gap", "at": 1, "lost": 3}), "default/q  gap  lost=3"),
        (
            Put("dead-letters", None, b"x", {"dlq_reason": "not_json", "dlq_error": "the value is no JSON"}),
            "  not_json  the value is no JSON",
        ),
        (Put("events", "default/q/1", b"broken"), "default/q/1  broken"),
        (Put("alerts", "f", {"status": "firing"}), 'f  {"status":"firing"}'),
    ],
)
def test_a_line_for_people(monkeypatch, record, text):
    assert shown(monkeypatch, record.topic, record) == text
