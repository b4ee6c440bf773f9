from __future__ import annotations

import time

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from streams.core.events import BadRecordError
from streams.core.job import partition_of
from streams.engine import Unwritable
from streams.wire import loads
from streams.worker.outputs import ERROR_LENGTH, Outputs, ce_source
from tests.core.build import BORN, entry, job, running
from tests.worker.build import PARTITION, Worker, record, settings

BAD = BadRecordError("wrong_type", "'found' should be true or false")


@pytest.fixture
def tx():
    return Worker().tx()


@pytest.fixture
def outputs():
    return Outputs(settings(KAFKA__PARTITIONS="12"))


def failed():
    life = running()
    life.apply(entry("failed", 3_000, job(finished_on=3_000, attempts_made=1), fields={"failedReason": "no"}))
    return life


def test_a_transition_goes_beside_its_event(outputs, tx):
    value = running().transitions[-1]
    outputs.transition(tx, b"s/q/1", value, 1_234)
    ((topic, partition, key, raw, headers, timestamp_ms),) = tx.outputs
    assert (topic, partition, key, timestamp_ms) == ("t.transitions.v1", PARTITION, b"s/q/1", 1_234)
    assert loads(raw) == value
    assert dict(headers) == {
        "ce_specversion": b"1.0", "content-type": b"application/json", "ce_id": b"s/q/1@1000/2",
        "ce_type": b"bullmq.job.transition.v1", "ce_source": b"/s/q", "ce_time": b"1970-01-01T00:00:02.000Z",
    }  # fmt: skip


def test_an_alert_goes_to_the_partition_of_its_fingerprint(outputs, tx):
    value = failed().alerts[0]
    outputs.alert(tx, value, 1_234)
    ((topic, partition, key, raw, headers, timestamp_ms),) = tx.outputs
    assert (topic, key, timestamp_ms) == ("t.alerts.v1", value["fingerprint"].encode(), 1_234)
    assert partition == partition_of(key, 12)
    assert loads(raw) == value
    assert dict(headers) == {
        "ce_specversion": b"1.0", "content-type": b"application/json",
        "ce_id": f"{value['fingerprint']}/3000/firing".encode(),
        "ce_type": b"bullmq.alert.v1", "ce_source": b"/s/q", "ce_time": b"1970-01-01T00:00:03.000Z",
    }  # fmt: skip


def test_a_resolved_alert_has_an_id_and_the_time_of_its_own(outputs, tx):
    life = failed()
    life.apply(entry("removed", 5_000))
    outputs.alert(tx, life.alerts[1], 1_234)
    headers = dict(tx.outputs[0][4])
    assert headers["ce_id"].endswith(b"/3000/resolved")
    assert headers["ce_time"] == b"1970-01-01T00:00:05.000Z"


def test_a_probe_names_the_job_and_the_reason(outputs, tx):
    outputs.probe(tx, b"s/q/1", entry("active", 2_000), "verify", 7_000)
    ((topic, partition, key, raw, headers, timestamp_ms),) = tx.outputs
    assert (topic, partition, key, headers, timestamp_ms) == ("t.probes.v1", PARTITION, b"s/q/1", [], 7_000)
    assert loads(raw) == {"source": "s", "queue": "q", "job_id": "1", "reason": "verify", "asked_at": 7_000}


def test_the_source_is_escaped_as_in_the_key():
    assert ce_source("a/b", "c%") == "/a%2Fb/c%25"


@pytest.mark.parametrize("value", [b"{", b"", None, b"\xff"])
@pytest.mark.parametrize("key", [b"s/q/1", b"\xff\x00", b"", None])
def test_a_dead_letter_is_the_record_as_it_came(outputs, tx, key, value):
    one = record(b"", key=key, offset=77)
    one.value = value
    before = int(time.time() * 1000)
    outputs.dead_letter(tx, one, BAD)
    ((topic, partition, found_key, found, headers, timestamp_ms),) = tx.outputs
    assert (topic, partition, found_key, found, timestamp_ms) == ("t.dead-letters.v1", 0, key, value, 1_234)
    headers = dict(headers)
    assert before <= int(headers.pop("dlq_at")) <= int(time.time() * 1000)
    assert headers == {
        "dlq_topic": b"t.events.v1", "dlq_partition": b"3", "dlq_offset": b"77", "dlq_reason": b"wrong_type",
        "dlq_error": b"'found' should be true or false",
    }  # fmt: skip


def test_an_error_that_is_no_text_is_told_as_well_as_can_be(outputs, tx):
    outputs.dead_letter(tx, record(b"{"), BadRecordError("bad_key", "\ud800"))
    assert dict(tx.outputs[0][4])["dlq_error"] == b"?"


@pytest.mark.parametrize("limit", [20_000, 262_144, 1_048_588])
@pytest.mark.parametrize("key", [None, 0, 10, 0.3, 0.99, 1, 1.5])
@pytest.mark.parametrize("value", [None, 0, 5, 0.3, 0.98, 0.99, 1, 1.5, 20])
def test_what_the_topic_does_not_take_whole_is_cut_and_not_more_than_that(outputs, limit, key, value):
    """Keys and values of so many bytes, or parts of the limit: all that fits is kept, and what is kept fits."""
    key, value = (int(limit * size) if isinstance(size, float) else size for size in (key, value))
    tx = Worker(limit_bytes=limit).checked()
    one = record(b"", key=None if key is None else b"k" * key)
    one.value = None if value is None else b"v" * value
    outputs.dead_letter(tx, one, BAD)
    ((_, _, found_key, found, headers, timestamp_ms),) = tx.outputs
    lengths = {name: int(text) for name, text in headers if name.endswith("length")}
    batch = BatchBuilder(1, 0, is_transactional=1)
    batch.append(timestamp=timestamp_ms, key=found_key, value=found, headers=headers)
    assert batch.size() <= limit
    assert (found_key is None, found is None) == (key is None, value is None)
    assert lengths.get("dlq_key_length", len(found_key or b"")) == (key or 0)
    assert lengths.get("dlq_length", len(found or b"")) == (value or 0)
    if lengths:
        assert limit - batch.size() < 150
        assert (key or 0) + (value or 0) + 400 > limit


def test_a_record_of_a_million_bytes_is_kept_whole_where_kafka_is_as_it_comes(outputs):
    tx = Worker(limit_bytes=1_048_588).checked()
    one = record(b"v" * 1_000_000, key=b"k" * 30)
    outputs.dead_letter(tx, one, BAD)
    ((_, _, key, value, _, _),) = tx.outputs
    assert (key, value) == (one.key, one.value)


def test_what_is_said_about_a_dead_letter_is_bounded(outputs, tx):
    outputs.dead_letter(tx, record(b"{"), BadRecordError("not_json", "x" * 5_000))
    assert len(dict(tx.outputs[0][4])["dlq_error"]) == ERROR_LENGTH


@pytest.mark.parametrize("beyond", ["\ud800", object(), [[[]]]])
def test_what_json_cannot_say_is_unwritable_and_nothing_is_staged(outputs, tx, beyond):
    if beyond == [[[]]]:
        for _ in range(50_000):  # the C stack of Python 3.13 takes 10,000
            beyond = [beyond]
    life = failed()
    with pytest.raises(Unwritable) as caught:
        outputs.alert(tx, {**life.alerts[0], "job": {"data": beyond}}, 1_234)
    assert (caught.value.reason, caught.value.topic) == ("not_encodable", "t.alerts.v1")
    with pytest.raises(Unwritable) as caught:
        outputs.transition(tx, b"s/q/1", {**life.transitions[0], "name": beyond}, 1_234)
    assert (caught.value.reason, caught.value.topic, caught.value.key) == (
        "not_encodable",
        "t.transitions.v1",
        b"s/q/1",
    )
    assert tx.outputs == []


def test_the_names_are_those_of_the_settings():
    mine = Outputs(settings(KAFKA__TOPIC_PREFIX="other"))
    tx = Worker().tx()
    mine.probe(tx, b"s/q/1", entry("active", BORN), "probe", 1)
    assert tx.outputs[0][0] == "other.probes.v1"
