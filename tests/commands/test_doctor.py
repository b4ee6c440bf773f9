from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from streams.commands import doctor_redis
from streams.commands.findings import Finding
from tests.commands.support import free_port, run, servers

pytestmark = pytest.mark.system

READ_ONLY = [
    "+xread",
    "+xrange",
    "+xinfo|stream",
    "+hgetall",
    "+hstrlen",
    "+hmget",
    "+lpos",
    "+lrange",
    "+llen",
    "+zscore",
    "+zrange",
    "+zcard",
    "+pttl",
    "+exists",
    "+hstrlen",
    "+scan",
    "+time",
    "+multi",
    "+exec",
    "+info",
    "+role",
    "+ping",
    "+hello",
    "+auth",
    "+client|setname",
    "+client|id",
    "+select",
]


@pytest.fixture
def settings(kafka, prefix, redis_server):
    settings = servers(kafka, prefix) | {"SOURCES__DEFAULT__URL": redis_server, "SOURCES__DEFAULT__PREFIX": prefix}
    assert run("topics", "apply", **settings).exit_code == 0
    return settings


@pytest.fixture
def client(redis_server) -> Iterator[Any]:
    with redis.Redis.from_url(redis_server, decode_responses=True) as client:
        yield client


def findings(*arguments: str, code: int, **settings: str) -> list[dict[str, str]]:
    result = run("doctor", "--json", *arguments, **settings)
    assert result.exit_code == code, result.output
    value = json.loads(result.stdout)
    assert value["ok"] is (code == 0)
    assert all(finding["remedy"] for finding in value["findings"] if finding["level"] in ("error", "warning"))
    found: list[dict[str, str]] = value["findings"]
    return found


def messages(found: list[dict[str, str]], level: str) -> list[str]:
    return [finding["message"] for finding in found if finding["level"] == level]


def test_all_is_well(settings, client, prefix):
    client.hset(f"{prefix}:crawl:meta", mapping={"opts.maxLenEvents": "10000", "version": "bullmq:5.81.5"})
    found = findings(code=0, **settings)
    assert messages(found, "error") == messages(found, "warning") == []
    said = " | ".join(finding["message"] for finding in found)
    assert "1 queue: crawl" in said
    assert "last written by: bullmq:5.81.5 (1)" in said
    assert "1 queue with BullMQ's default of 10,000 stream entries" in said
    assert "8 topics may be read" in said


def test_streams_that_are_too_short_and_old_versions(settings, client, prefix):
    for number in range(7):
        client.hset(f"{prefix}:q{number}:meta", mapping={"opts.maxLenEvents": "100", "version": "bullmq:3.1.0"})
    client.hset(f"{prefix}:other:meta", "paused", "1")
    warnings = messages(findings(code=0, **settings), "warning")
    assert any("less than 10,000 entries in: q0, q1, q2, q3, q4 and 2 more" in warning for warning in warnings)
    assert any("bullmq:3.1.0 is older" in warning for warning in warnings)


def test_no_queue_is_a_warning(settings):
    assert any("no queue matches *" in message for message in messages(findings(code=0, **settings), "warning"))


def test_missing_topics_are_errors(settings, prefix):
    found = findings(code=1, **settings | {"KAFKA__TOPIC_PREFIX": f"{prefix}x"})
    assert len(messages(found, "error")) == 8


@pytest.fixture
def user(client, prefix) -> Iterator[Any]:
    """Makes an ACL user with these rules; gives its URL's login."""
    names: list[str] = []

    def make(*rules: str) -> str:
        name = f"{prefix}-{len(names)}"
        client.execute_command(
            "ACL", "SETUSER", name, "on", ">pw-of-the-user", "resetkeys", "resetchannels", "-@all", *rules
        )
        names.append(name)
        return f"{name}:pw-of-the-user@"

    yield make
    for name in names:
        client.acl_deluser(name)


def as_user(settings: dict[str, str], login: str) -> dict[str, str]:
    return settings | {
        "SOURCES__DEFAULT__URL": settings["SOURCES__DEFAULT__URL"].replace("redis://", f"redis://{login}")
    }


def test_the_documented_rights_suffice(settings, user, prefix):
    found = findings(code=0, **as_user(settings, user(f"%R~{prefix}:*", *READ_ONLY)))
    assert any("all that the bridge reads may be read" in message for message in messages(found, "ok"))


@pytest.mark.parametrize("right", [rule for rule in READ_ONLY if rule[1:] in doctor_redis.COMMANDS])
def test_each_right_that_is_missing_is_named(settings, user, prefix, right, monkeypatch):
    monkeypatch.setattr("streams.commands.doctor_kafka.examine", _nothing)
    login = user(f"%R~{prefix}:*", *(rule for rule in READ_ONLY if rule != right))
    (error,) = [f for f in findings(code=1, **as_user(settings, login)) if f["level"] == "error"]
    name = login.partition(":")[0]
    assert error["message"] == f"the user {name} may not: {right[1:]}"
    assert error["remedy"] == f"as an administrator: ACL SETUSER {name} {right}"


async def _nothing(_: object) -> list[Finding]:
    return []


def test_keys_that_may_not_be_read_are_named(settings, user, prefix, monkeypatch):
    monkeypatch.setattr("streams.commands.doctor_kafka.examine", _nothing)
    login = user("%R~other:*", *(rule for rule in READ_ONLY if rule not in ("+time", "+info", "+role")))
    (error,) = [f for f in findings(code=1, **as_user(settings, login)) if f["level"] == "error"]
    assert error["message"].endswith(f"may not: read the keys {prefix}:*, info, role, time")
    assert error["remedy"].endswith(f" %R~{prefix}:* +info +role +time")


def test_only_what_the_configuration_reads_is_asked_for(settings, user, client, prefix, monkeypatch):
    monkeypatch.setattr("streams.commands.doctor_kafka.examine", _nothing)
    client.hset(f"{prefix}:mail:meta", "opts.maxLenEvents", "10000")
    login = user(f"%R~{prefix}:mail:*", f"%R~{prefix}:pay[^xb]*", *READ_ONLY)
    narrow = as_user(settings, login) | {"SOURCES__DEFAULT__QUEUES": '["mail", "pay[!x]?", "pay*"]'}
    found = findings(code=1, **narrow)
    (error,) = [f for f in found if f["level"] == "error"]
    assert error["message"].endswith(f"may not: read the keys {prefix}:pay*:*")
    assert error["remedy"].endswith(f" %R~{prefix}:pay*:*")
    assert "1 queue: mail" in " ".join(messages(found, "ok"))
    assert not messages(findings(code=0, **narrow | {"SOURCES__DEFAULT__QUEUES": '["mail", "pay[!x]?"]'}), "error")


@pytest.mark.parametrize("pattern", ["*", "a", "a*b", "?x", "[ab]c", "[!a]*", "x[!a-y]", "[a-c]?[!z]"])
def test_the_sample_of_a_pattern_matches_it(pattern):
    assert fnmatch.fnmatchcase(doctor_redis.sample(pattern), pattern)


def test_refused_queues_are_named_and_the_others_examined(settings, client, user, prefix, monkeypatch):
    monkeypatch.setattr("streams.commands.doctor_kafka.examine", _nothing)
    client.set(f"{prefix}:cache:meta", "1")
    client.rpush(f"{prefix}:list:meta", "1")
    client.hset(f"{prefix}:events:meta", "version", "bullmq:5.81.5")
    client.set(f"{prefix}:events:events", "no stream")
    client.hset(f"{prefix}:evil\x1b[31m\n:meta", "version", "bullmq:5.81.5")
    client.set(f"{prefix}:evil\x1b[31m\n:events", "x")
    client.hset(f"{prefix}:secret:meta", "version", "bullmq:5.81.5")
    client.hset(f"{prefix}:good:meta", mapping={"version": "bullmq:5.81.5", "opts.maxLenEvents": "0"})
    with redis.Redis.from_url(settings["SOURCES__DEFAULT__URL"]) as raw:
        raw.hset(prefix.encode() + b":caf\xe9:meta", "version", "bullmq:5.81.5")
        raw.hset(prefix.encode() + b":" + b"long" * 300 + b":meta", "version", "bullmq:5.81.5")
    names = ("cache", "list", "events", "evil*", "good", "caf*")
    login = user(*(f"%R~{prefix}:{name}:*" for name in names), *READ_ONLY)
    found = findings(code=1, **as_user(settings, login))
    errors = " | ".join(messages(found, "error"))
    assert "the bridge refuses 4 queues (wrong_type): cache, events, evil\\x1b[31m\\n, list; " in errors
    assert "the bridge refuses 1 queue (no_permission): secret; " in errors
    assert "the bridge refuses 2 queues (bad_name): caf\\xe9, longlong" in errors
    assert any("1 queue: good" in message for message in messages(found, "ok"))
    assert any("keeps next to nothing (100 entries or less) in: good" in m for m in messages(found, "warning"))


@pytest.mark.parametrize(
    ("role", "allow", "level", "text"),
    [
        (["master", 0, []], False, "ok", "is a master"),
        (["slave", "10.0.0.1", 6379, "connected", 5], False, "error", "its role is slave, of 10.0.0.1:6379"),
        (["slave", "10.0.0.1", 6379, "connected", 5], True, "info", "no job is called stuck or gone"),
        (["sentinel", []], False, "error", "its role is sentinel"),
        ([], False, "error", "its role is unknown"),
    ],
)
def test_roles(role, allow, level, text):
    finding = doctor_redis.judge_role("redis eu", role, allow_replica=allow)
    assert (finding.level, text in finding.message) == (level, True)
    assert bool(finding.remedy) == (level == "error")
    if finding.remedy:
        assert "sources.eu.allow_replica" in finding.remedy


def test_a_refused_login(settings):
    found = findings(code=1, **as_user(settings, "nobody:wrong-password@"))
    (error,) = [f for f in found if f["level"] == "error"]
    assert "refuses the login" in error["message"]
    assert "wrong-password" not in json.dumps(found)


def test_over_tls(settings, secure_redis):
    found = findings(code=0, **settings | {"SOURCES__DEFAULT__URL": secure_redis.url()})
    assert any(message.startswith("Redis 7") for message in messages(found, "ok"))
    untrusted = secure_redis.url().partition("?")[0]
    (error,) = messages(findings(code=1, **settings | {"SOURCES__DEFAULT__URL": untrusted}), "error")
    assert error.startswith(f"no TLS connection to rediss://default:***@127.0.0.1:{secure_redis.port}/0")


def test_several_sources(settings):
    more = settings | {"SOURCES__EU__URL": f"redis://127.0.0.1:{free_port()}"}
    found = findings(code=1, **more)
    assert {f["check"] for f in found if f["check"].startswith("redis")} == {"redis default", "redis eu"}


INFO = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "maxmemory": "0"}


@pytest.mark.parametrize(
    ("info", "level", "text"),
    [
        (INFO, "ok", "Redis 7.0.15"),
        ({**INFO, "redis_version": "6.2.1"}, "error", "does not count a stream's entries"),
        ({**INFO, "redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok", "Valkey 9.1.2"),
        ({**INFO, "maxmemory_policy": "allkeys-lru", "maxmemory": "100"}, "warning", "allkeys-lru: now"),
        ({**INFO, "maxmemory_policy": "allkeys-lru"}, "info", "as soon as maxmemory is set"),
        ({**INFO, "cluster_enabled": "1"}, "error", "is a cluster"),
    ],
)
def test_servers(info, level, text):
    found = list(doctor_redis.judge_server("redis default", info))
    assert any(finding.level == level and text in finding.message for finding in found)


@pytest.mark.parametrize(("skew_s", "level"), [(0, "ok"), (0.5, "ok"), (5, "warning"), (-5, "warning"), (90, "error")])
def test_clocks(skew_s, level):
    finding = doctor_redis.judge_clock("redis default", skew_s, 0.01)
    assert finding.level == level
    if level != "ok":
        assert ("ahead of" if skew_s > 0 else "behind") in finding.message
