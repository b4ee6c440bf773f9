"""Whatever stands in an entry or a hash, each record made of it is as published."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import topology, wire
from streams.bridge import hashes
from streams.bridge.bullmq import Keys
from streams.bridge.encode import Encoder, Record, fit
from streams.bridge.limits import Limits
from streams.bridge.sequencer import take
from streams.bridge.stream import Entry, Look, Stream
from streams.docs.schemas import words
from tests.docs.test_schemas import validator

NOW_MS = 1795478836845
SMALL = {topology.EVENTS: 3_000, topology.DEAD_LETTERS: 3_000}


def of_redis(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encoder(limits: dict[str, int] | None = None, epoch: int = 0) -> Encoder:
    stream = Stream("default", "q/1", Keys("bull", "q/1"), epoch=epoch)
    known = Limits()
    known.learn(limits or {})
    made = Encoder(stream, 8, lambda: NOW_MS, max_text_bytes=256, limits=known)
    made.begin()
    return made


def check(records: list[Record], limits: dict[str, int] | None = None) -> None:
    for record in records:
        if limits:
            size = len(record.key) + len(record.value) + sum(len(n) + len(v) for n, v in record.headers)
            assert size <= limits[record.topic]
        headers = {name: value.decode() for name, value in record.headers}
        if record.topic == topology.EVENTS:
            value = wire.loads(record.value)
            validator("Entry" if value["kind"] == "entry" else "Observation", closed=True).validate(value)
            assert record.key.decode() == f"default/q%2F1/{value['job_id']}"
            assert {"ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion", "content-type"} == set(headers)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", headers["ce_time"])
        else:
            assert record.topic == topology.DEAD_LETTERS
            assert headers["dlq_reason"] in get_args(words.DeadLetterReason)
            assert re.fullmatch(r"\d+", headers["dlq_at"])
        assert 0 <= record.timestamp_ms <= NOW_MS + 60_000


BYTES = st.binary(max_size=30) | st.sampled_from(
    [b"waiting", b"failed", b"observed", b"active", b"\xed\xa0\x80", b"\x00", b"\xff", b"x" * 2_000, b"\xc3\xa9" * 999]
)
PAIRS = st.lists(st.tuples(st.sampled_from([b"event", b"jobId", b"failedReason", b"prev"]) | BYTES, BYTES), max_size=6)
IDS = st.tuples(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1))
NUMBERS = st.sampled_from([b"1e400", b"-1e400", b"NaN", b"9" * 40, b"1.5", b"1e20", b"18446744073709551616"])
DEEP = st.integers(1, 400).map(lambda n: b"[" * n + b"]" * n)
HASH = st.dictionaries(
    st.sampled_from([name.encode() for name in hashes.FIELDS]) | BYTES, BYTES | NUMBERS | DEEP, max_size=10
)


@given(st.lists(st.tuples(IDS, PAIRS), max_size=4), HASH, st.booleans(), st.sampled_from([0, 3]))
@example(
    [((1, 0), [(b"event", b"failed"), (b"failedReason", b"\xff" * 400)])], {b"data": b"[" * 300 + b"]" * 300}, True, 0
)
@settings(deadline=None)
def test_any_entry_with_any_hash(entries, hash_, small, epoch):
    made = encoder(SMALL if small else None, epoch)
    stream: Stream = made._stream
    for (ms, seq), pairs in sorted(entries, key=lambda entry: entry[0]):
        stream.buffer.append((f"{ms}-{seq}", [of_redis(each) for pair in pairs for each in pair]))
    taken = take(stream, 100)
    job = {of_redis(name): of_redis(text) for name, text in hash_.items()}
    records: list[Record] = []
    for item in taken.items:
        assert isinstance(item, Entry)
        item.job, item.job_as_of = job, item.stream_id
        records += made.entry(item)
    records += [made.malformed(raw) for raw in taken.malformed]
    check(records, SMALL if small else None)
    assert len(made.set_aside) == sum(record.topic == topology.DEAD_LETTERS for record in records)


@given(BYTES, HASH, st.one_of(st.none(), st.sampled_from(["wait", "failed"])), st.integers(-(2**63), 2**63 - 1))
@settings(deadline=None)
def test_any_look(job_id, hash_, where, due_at):
    look = Look(
        (5, 1), (5, 1), of_redis(job_id), "probe", 7, found=True, where=where, queue_paused=False, due_at=due_at
    )
    look.job = {of_redis(name): of_redis(text) for name, text in hash_.items()}
    check(encoder().look(look))


def entry(**fields: str) -> Entry:
    event = fields.pop("event", "completed")
    return Entry((NOW_MS, 0), f"{NOW_MS}-0", event, fields.pop("job_id", "1"), fields, queue_paused=False)


class TestIds:
    def test_of_the_first_epoch_are_those_of_0_1(self):
        (record,) = encoder().entry(entry())
        assert dict(record.headers)["ce_id"] == f"default/q%2F1/{NOW_MS}-0".encode()

    def test_name_the_epoch_from_the_second_on(self):
        made = encoder(epoch=2)
        (record,) = made.entry(entry())
        assert dict(record.headers)["ce_id"] == f"default/q%2F1/{NOW_MS}-0~2".encode()
        (record,) = made.look(Look((5, 1), (5, 1), "1", "probe", 7, found=False, where=None, queue_paused=False))
        assert dict(record.headers)["ce_id"] == b"default/q%2F1/1/observed/5-1~2/7"


class TestSizes:
    def test_what_the_topic_takes_is_whole(self):
        (record,) = encoder().entry(entry(returnvalue="x" * 1_000_000))
        assert len(wire.loads(record.value)["fields"]["returnvalue"]) == 1_000_000

    def test_a_topic_that_takes_less_gets_a_light_record_and_a_dead_letter(self):
        made = encoder({topology.EVENTS: 262_144})
        light, dead = made.entry(entry(returnvalue="x" * 262_144))
        assert wire.loads(light.value)["fields"] == {}
        assert wire.loads(dead.value) == {"event": "completed", "jobId": "1", "returnvalue": "x" * 262_144}
        assert "dlq_length" not in dict(dead.headers)

    def test_what_was_left_out_of_a_hash_is_named(self):
        made, large = encoder(), entry()
        large.job, large.job_as_of, large.left_out = {"name": "n"}, "6-0", {"data": 5_000_000}
        record, dead = made.entry(large)
        value = wire.loads(record.value)
        assert (value["enriched"], value["job"]["name"], value["cut"]) == (False, "n", ["job.data"])
        assert b"data 5000000" in dict(dead.headers)["dlq_error"]

    def test_our_own_fault_tells_type_and_place_and_no_data(self):
        with pytest.raises(KeyError) as caught:
            dict[str, str]()["secret"]
        dead = encoder().failed(entry(x="y"), caught.value)
        headers = dict(dead.headers)
        assert headers["dlq_reason"] == b"internal"
        assert re.fullmatch(rb"KeyError at test_encode:\d+", headers["dlq_error"])
        assert wire.loads(dead.value) == {"x": "y"}


class TestFit:
    """Records that were made before a topic's limit fell."""

    def limits(self, **more: int) -> Limits:
        limits = Limits()
        limits.learn({topology.EVENTS: 10_000, topology.DEAD_LETTERS: 10_000, **more})
        return limits

    def test_small_ones_stay(self):
        (record,) = encoder().entry(entry())
        assert fit(record, self.limits()) == [record]

    def test_large_ones_become_light_and_a_dead_letter(self):
        (record,) = encoder().entry(entry(returnvalue="x" * 9_000, other="x" * 5_000))
        light, dead = fit(record, self.limits())
        check([light])
        assert (light.topic, len(light.value) < 10_000, dead.topic) == (topology.EVENTS, True, topology.DEAD_LETTERS)
        assert (
            dict(dead.headers)["dlq_length"]
            == str(len(b'{"event":"completed","jobId":"1","returnvalue":"","other":""}') + 14_000).encode()
        )
        assert len(dead.value) < 10_000

    def test_dead_letters_are_cut_and_say_so_once(self):
        made = encoder({topology.EVENTS: 3_000})
        _, dead = made.entry(entry(returnvalue="x" * 20_000))
        (cut,) = fit(dead, self.limits())
        assert (len(cut.value) < 10_000, dict(cut.headers)["dlq_length"]) == (True, str(len(dead.value)).encode())
        limits = self.limits()
        limits.learn({topology.DEAD_LETTERS: 5_000})
        (again,) = fit(cut, limits)
        assert [name for name, _ in again.headers].count("dlq_length") == 1

    def test_those_of_tables_are_left(self):
        record = Record(topology.CHECKPOINTS, 0, b"k", b"x" * 20_000, 1, [])
        assert fit(record, self.limits(**{topology.CHECKPOINTS: 10_000})) == [record]


@pytest.mark.parametrize("topic", [topology.EVENTS, topology.STATUS])
def test_a_topic_whose_limit_is_not_known_takes_kafkas_default(topic):
    assert Limits().of(topic) == 1_048_588
