from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from streams.commands import doctor_clocks, doctor_kafka
from streams.local import ready
from streams.local.kafka import Kafka
from tests.commands.support import Put, free_port, put, run, servers
from tests.commands.test_status import heartbeat

NOW = 1_795_478_836_845


@pytest.mark.parametrize(
    ("past_ms", "skew_s", "level", "text"),
    [
        (None, None, "info", "no bridge has written"),
        (NOW - 5_000, None, "ok", "at most 5 s behind"),
        (NOW - 3_600_000, None, "info", "nothing on health for 3,600 s"),
        (NOW + 30_000, None, "warning", "30 s ahead of"),
        (NOW + 3_600_000, None, "error", "3,600 s ahead of"),
        (NOW - 3_600_000, -3_600.0, "error", "3,600 s behind"),
        (NOW - 3_600_000, -5.0, "warning", "5 s behind"),
        (NOW - 3_600_000, 0.3, "ok", "within 0.3 s"),
    ],
)
def test_clocks_of_processes(past_ms, skew_s, level, text):
    finding = doctor_clocks.judge("bridge", past_ms, skew_s, NOW)
    assert (finding.level, text in finding.message) == (level, True), finding
    assert bool(finding.remedy) == (level in ("warning", "error"))


@pytest.mark.parametrize(
    ("past", "odd"),
    [
        ({}, False),
        ({"worker": NOW + 99_999}, False),
        ({"bridge": NOW - 9_000}, False),
        ({"bridge": NOW - 20_000}, True),
        ({"bridge": NOW + 5_000}, True),
    ],
)
def test_it_waits_for_a_record_only_where_those_there_are_odd(past, odd):
    assert doctor_clocks.is_odd(past, NOW) is odd


def clocks(settings: dict[str, str]) -> list[dict[str, str]]:
    found = json.loads(run("doctor", "--json", **settings).stdout)["findings"]
    return [finding for finding in found if finding["check"] == "clocks"]


@pytest.fixture
def settings(kafka, prefix, redis_server):
    settings = servers(kafka, prefix) | {"SOURCES__DEFAULT__URL": redis_server, "SOURCES__DEFAULT__PREFIX": prefix}
    assert run("topics", "apply", **settings).exit_code == 0
    return settings


@pytest.mark.system
def test_a_bridge_and_a_worker_that_are_ahead(kafka, prefix, settings, monkeypatch):
    monkeypatch.setattr(doctor_clocks, "WAIT_S", 1)
    table = {"type": "table", "source": None, "queue": None, "at": int(time.time() * 1000) + 30_000, "partition": 0}
    put(
        kafka,
        prefix,
        [heartbeat("q", age_s=-3600), Put("health", "x", table, single=True), Put("health", "x", b"x", single=True)],
    )
    levels = {finding["message"].split("'")[0]: finding["level"] for finding in clocks(settings)}
    assert levels == {"the bridge": "error", "the worker": "warning", "the brokers": "info"}


@pytest.mark.system
def test_a_bridge_that_is_behind_shows_when_it_writes(kafka, prefix, settings):
    put(kafka, prefix, [heartbeat("q", age_s=3600)])
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(1):
            put(kafka, prefix, [heartbeat("q", age_s=3600)])

    writing = threading.Thread(target=write)
    writing.start()
    try:
        bridge = clocks(settings)[0]
    finally:
        ended.set()
        writing.join()
    assert bridge["level"] == "error"
    assert "s behind this host's" in bridge["message"]


@pytest.mark.system
def test_an_advertised_address_that_cannot_be_reached_is_named(tmp_path: Path, redis_server):
    port, dead, controller, open_ = (free_port() for _ in range(4))
    listeners = f"PLAINTEXT://127.0.0.1:{open_},OTHER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    kafka = Kafka(
        tmp_path,
        port=open_,
        properties={
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{open_},OTHER://127.0.0.1:{dead}",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OTHER:PLAINTEXT",
        },
    )
    kafka.start()
    try:
        ready.wait(kafka)
        settings = servers(f"127.0.0.1:{port}", "t") | {"SOURCES__DEFAULT__URL": redis_server}
        result = run("doctor", "--json", **settings)
        assert result.exit_code == 1
        found = [each for each in json.loads(result.stdout)["findings"] if each["level"] == "error"]
        assert [each["message"] for each in found] == [
            f"a broker names itself 127.0.0.1:{dead}, where it cannot be reached: Connection refused"
        ]
        assert "advertised.listeners" in found[0]["remedy"]
    finally:
        kafka.process.stop()


def test_one_broker_of_three_that_cannot_be_reached_is_an_error():
    found = doctor_kafka.judge_addresses([("a:1", ""), ("b:1", "Name or service not known"), ("c:1", "")])
    assert [finding.level for finding in found] == ["error"]
    assert "b:1" in found[0].message
