"""The commands on a Kafka with logins and rights, as in production."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from streams import topology
from tests.acl_kafka import GROUP, TOPIC, TRANSACTION, AclKafka, acl_kafka
from tests.commands.support import run, servers

pytestmark = pytest.mark.system

RIGHTS_IN_FORCE_S: Final = 15


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclKafka]:
    yield from acl_kafka(tmp_path_factory.mktemp("acl-kafka"))


def settings_of(secure: AclKafka, prefix: str, user: str, password: str | None = None) -> dict[str, str]:
    return servers(secure.bootstrap, prefix) | secure.login(user, password)


def doctor(settings: dict[str, str], redis_server: str, code: int) -> list[dict[str, str]]:
    result = run("doctor", "--json", **settings, SOURCES__DEFAULT__URL=redis_server)
    assert result.exit_code == code, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return [finding for finding in found if not finding["check"].startswith("redis")]


def errors(found: list[dict[str, str]]) -> list[str]:
    return [finding["message"] for finding in found if finding["level"] == "error"]


def test_a_refused_login(secure, prefix):
    result = run("topics", "check", **settings_of(secure, prefix, "admin", "pw-of-somebody-else"))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: Kafka at {secure.bootstrap} refuses the login; "
        "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password\n"
    )


def test_with_all_rights(secure, prefix, redis_server):
    settings = settings_of(secure, prefix, "admin")
    assert run("topics", "apply", **settings).exit_code == 0
    assert not errors(doctor(settings, redis_server, 0))
    assert run("status", **settings).exit_code == 0


def test_without_rights_nothing_is_seen_or_created(secure, prefix, redis_server):
    run("topics", "apply", **servers(secure.open, prefix))
    settings = settings_of(secure, prefix, "limited")
    result = run("topics", "apply", **settings)
    assert result.exit_code == 1
    assert "cannot be created" in result.stderr
    found = doctor(settings, redis_server, 1)
    assert any("the group" in message and "may not be used" in message for message in errors(found))
    assert any("the transactional id" in message for message in errors(found))
    assert errors(found).count("may not be described by this Kafka user") == len(topology.TOPICS)


def soon(settings: dict[str, str], redis_server: str, wanted: Callable[[list[str]], bool]) -> None:
    """What doctor finds once the broker has taken the rights over: it answers a grant before it obeys it."""
    end = time.monotonic() + RIGHTS_IN_FORCE_S
    while True:
        result = run("doctor", "--json", **settings, SOURCES__DEFAULT__URL=redis_server)
        findings = [one for one in json.loads(result.stdout)["findings"] if not one["check"].startswith("redis")]
        if wanted(errors(findings)):
            assert result.exit_code == (1 if errors(findings) else 0)
            return
        assert time.monotonic() < end, errors(findings)
        time.sleep(0.1)


def test_rights_that_are_missing_one_by_one(secure, prefix, redis_server):
    run("topics", "apply", **servers(secure.open, prefix))
    settings = settings_of(secure, prefix, "limited")
    secure.allow_all("limited", prefix, TOPIC, "Describe")
    soon(settings, redis_server, lambda found: any("settings of" in one and "cannot be read" in one for one in found))
    secure.allow_all("limited", prefix, TOPIC, "DescribeConfigs")
    soon(settings, redis_server, lambda found: any(one.startswith("may not be read") for one in found))
    secure.allow_all("limited", prefix, TOPIC, "Read")
    secure.allow_all("limited", prefix, GROUP, "Read")
    soon(settings, redis_server, lambda found: len(found) == 1 and "the transactional id" in found[0])
    secure.allow_all("limited", prefix, TRANSACTION, "Write", "Describe")
    soon(settings, redis_server, lambda found: not found)
    well = doctor(settings, redis_server, 0)
    assert any("whether it creates topics by itself is not known" in finding["message"] for finding in well)
