from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from streams.core.job import JobKey, escape, job_key, murmur2, parse_key, partition_of, unescape

names = st.text(alphabet=st.one_of(st.sampled_from("%/2F5:"), st.characters()), max_size=12)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("default/crawling/42", JobKey("default", "crawling", "42")),
        ("a%2Fb/c%25d/42", JobKey("a/b", "c%d", "42")),
        ("a/%252F/1", JobKey("a", "%2F", "1")),
        ("a/b/repeat/x%2F/", JobKey("a", "b", "repeat/x%2F/")),
        ("a/b/", JobKey("a", "b", "")),
        ("a/zwölf €/é", JobKey("a", "zwölf €", "é")),
    ],
)
def test_a_key_and_its_parts(key, parts):
    assert job_key(*parts) == key
    assert parse_key(key) == parts


@given(names, names, names)
def test_a_key_reads_back_whatever_the_names(source, queue, job_id):
    assert parse_key(job_key(source, queue, job_id)) == (source, queue, job_id)


@given(names)
def test_an_escaped_name_has_no_slash_and_reads_back(name):
    assert "/" not in escape(name)
    assert unescape(escape(name)) == name


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_different_jobs_have_different_keys(one, other):
    assert (job_key(*one) == job_key(*other)) == (one == other)


@pytest.mark.parametrize("text", ["", "a", "a/b"])
def test_what_is_no_key(text):
    with pytest.raises(ValueError, match="not enough values"):
        parse_key(text)


@given(st.binary(max_size=40))
def test_murmur2_is_that_of_the_kafka_clients(data):
    assert murmur2(data) == murmur2_of_aiokafka(data) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "signed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_murmur2_of_the_java_clients_own_test(data, signed):
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.binary(max_size=20), st.integers(1, 100))
def test_the_partition_is_that_of_the_default_partitioner(key, partitions):
    assert partition_of(key, partitions) == (murmur2_of_aiokafka(key) & 0x7FFFFFFF) % partitions
