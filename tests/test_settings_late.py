"""What would only fail, or go wrong, once the processes run: named by the settings already."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.settings import load, patterns
from tests.test_settings import ENV, errors, toml

MORE_NUMBERS = [
    ("[worker]\nretention_s = true", "worker.retention_s: must be a number"),
    ("[kafka]\npartitions = true", "kafka.partitions: must be a number"),
    ("[worker]\nretention_s = nan", "worker.retention_s: must be a finite number"),
    ("[worker]\nretention_s = 1e300", "worker.retention_s: must be less than or equal to 315576000"),
    ("[worker]\nverify_per_s = inf", "worker.verify_per_s: must be a finite number"),
    ("[worker]\nverify_per_s = 1e-300", "worker.verify_per_s: must be greater than or equal to 0.01"),
    ("[worker]\nverify_after_s = -1", "worker.verify_after_s: must be greater than 0"),
    (
        "[sources.default]\ndiscover_interval_s = 1e-9",
        "sources.default.discover_interval_s: must be greater than or equal to 0.05",
    ),
    (
        "[sources.default]\ndiscover_interval_s = 1e9",
        "sources.default.discover_interval_s: must be less than or equal to 86400",
    ),
    ("[alerts.failed]\nresolve_after_s = -1", "alerts.failed.resolve_after_s: must be greater than or equal to 0"),
    ("[alerts.stuck]\ncheck_interval_s = 1e9", "alerts.stuck.check_interval_s: must be less than or equal to 86400"),
    (
        "[bridge]\nbuffer_bytes = 1_000_000_000_000_000",
        "bridge.buffer_bytes: must be less than or equal to 1099511627776",
    ),
    ("[bridge]\nmax_text_bytes = 0", "bridge.max_text_bytes: must be greater than or equal to 256"),
    ("http_host = 'a b'", "http_host: must be a host name or an address, such as 127.0.0.1"),
    ("http_host = ''", "http_host: must be a host name or an address, such as 127.0.0.1"),
    (
        "[kafka]\nbootstrap_servers = '[::g]:1'",
        "kafka.bootstrap_servers: must be host:port, several separated by commas",
    ),
    (
        "[kafka]\nbootstrap_servers = 'a..b:1'",
        "kafka.bootstrap_servers: must be host:port, several separated by commas",
    ),
    ("[kafka]\nbootstrap_servers = 'a:1,'", "kafka.bootstrap_servers: must be host:port, several separated by commas"),
    (
        "[kafka]\nbootstrap_servers = 'a:70000'",
        "kafka.bootstrap_servers: must be host:port, several separated by commas",
    ),
    (
        "[sources.default]\nqueues = ['bull:mail']",
        "sources.default.queues: has a pattern with ':', which no queue's name has; the prefix is not part of the name",
    ),
    (
        "[sources.default]\nexclude = ['a', 'x:*']",
        (
            "sources.default.exclude: has a pattern with ':', which no queue's name has; "
            "the prefix is not part of the name"
        ),
    ),
    (
        "[sources.default]\nqueues = ['a[z-a]']",
        "sources.default.queues: has a pattern that matches nothing: a range such as [z-a] is empty",
    ),
    ("[sources.default]\nexclude = ['*']", "sources.default.exclude: leaves no queue to read"),
    (
        "[sources.default]\nqueues = ['a', 'b1']\nexclude = ['[ab]*']",
        "sources.default.exclude: leaves no queue to read",
    ),
    (
        "[kafka]\nsecurity_protocol = 'SSL'\nssl_cafile = '/dev/null'",
        "kafka.ssl_cafile: cannot be loaded: no certificate in it",
    ),
    (
        "[kafka]\nsecurity_protocol = 'SSL'\nssl_certfile = '/dev/null'",
        (
            "kafka.ssl_certfile: cannot be loaded: "
            "no certificate or no private key in it, or the password of the key is wrong"
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), MORE_NUMBERS, ids=[message for _, message in MORE_NUMBERS])
def test_what_would_only_fail_later_is_named_now(tmp_path, text, message):
    assert errors([toml(tmp_path, text)]) == [f"a.toml: {message}"]


def test_a_number_too_large_for_a_float_is_no_traceback(tmp_path):
    assert errors([toml(tmp_path, f"[worker]\nretention_s = {'9' * 400}")])[0].startswith("a.toml: worker.retention_s")


def sources(**tables: dict[str, str]) -> dict[str, str]:
    return {
        f"{ENV}SOURCES__{name.upper()}__{key.upper()}": value
        for name, keys in tables.items()
        for key, value in keys.items()
    }


SAME = [
    ({"url": "redis://h"}, {"url": "redis://H:6379/0"}, "*"),
    ({"url": "redis://h?db=1"}, {"url": "rediss://u:p@h/1", "queues": '["mail"]'}, "mail"),
    ({"url": "redis://h", "queues": '["a*"]'}, {"url": "redis://h", "queues": '["*b"]'}, "a* and *b"),
    ({"url": "redis://h", "queues": '["a*"]'}, {"url": "redis://h", "queues": '["b*", "[ac]x"]'}, "a* and [ac]x"),
]
APART = [
    ({"url": "redis://h"}, {"url": "redis://h/1"}),
    ({"url": "redis://h"}, {"url": "redis://g"}),
    ({"url": "redis://h"}, {"url": "redis://h", "prefix": "other"}),
    ({"url": "redis://h", "queues": '["a*"]'}, {"url": "redis://h", "queues": '["b*"]'}),
    ({"url": "redis://h", "exclude": '["mail"]'}, {"url": "redis://h", "queues": '["mail"]'}),
    ({"url": "redis://h", "queues": '["a?"]'}, {"url": "redis://h", "queues": '["a"]'}),
]


@pytest.mark.parametrize(("one", "two", "shared"), SAME)
def test_two_sources_that_read_the_same_queues_are_warned_of(one, two, shared):
    (warning,) = load([], sources(one=one, two=two)).warnings
    assert warning.startswith(f"sources.one and sources.two read the same queues ({shared}) of one Redis and prefix")


@pytest.mark.parametrize(("one", "two"), APART)
def test_sources_that_share_no_queue_are_not(one, two):
    assert load([], sources(one=one, two=two)).warnings == ()


GLOB = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), max_size=4).map("".join)


@given(GLOB, GLOB, st.text("abc", max_size=5))
def test_patterns_that_match_the_same_name_meet(one, other, name):
    assert not (fnmatch.fnmatchcase(name, one) and fnmatch.fnmatchcase(name, other)) or patterns.meet(one, other)
    assert not (patterns.covers(one, other) and fnmatch.fnmatchcase(name, other)) or fnmatch.fnmatchcase(name, one)


def test_long_patterns_are_compared_as_well():
    assert patterns.meet("?" * patterns.LONGEST, "a*" * (patterns.LONGEST // 2))
    assert not patterns.meet("a" * patterns.LONGEST, "*b" * (patterns.LONGEST // 2))
