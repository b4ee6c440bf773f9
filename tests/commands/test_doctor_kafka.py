"""The commands on a Kafka with logins and rights, as in production."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest

from streams import topology
from streams.local import ready
from streams.local.kafka import Kafka
from tests.commands.support import free_port, run, servers

pytestmark = pytest.mark.system

TOPIC, GROUP, TRANSACTION = 2, 3, 5
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
RIGHTS_IN_FORCE_S: Final = 15
_PREFIXED: Final = 4
_ALLOW: Final = 3
JAAS = (
    'org.apache.kafka.common.security.plain.PlainLoginModule required user_limited="pw-limited" user_admin="pw-admin";'
)


@dataclass(frozen=True)
class SecureKafka:
    """`open` asks for no login and may do all; `bootstrap` asks for one."""

    open: str
    bootstrap: str

    def settings(self, prefix: str, user: str, password: str | None = None) -> dict[str, str]:
        return servers(self.bootstrap, prefix) | {
            "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA__SASL_MECHANISM": "PLAIN",
            "KAFKA__SASL_USERNAME": user,
            "KAFKA__SASL_PASSWORD": password or f"pw-{user}",
        }

    def allow(self, prefix: str, kind: int, *operations: int) -> None:
        """Allow `limited` these operations on all of this kind whose name begins with `prefix`."""
        asyncio.run(self._allow(prefix, kind, operations))

    async def _allow(self, prefix: str, kind: int, operations: tuple[int, ...]) -> None:
        client = AIOKafkaClient(bootstrap_servers=self.open)
        await client.bootstrap()
        try:
            for operation in operations:
                request = CreateAclsRequest(kind, prefix, _PREFIXED, "User:limited", "*", operation, _ALLOW)
                response = await client.send(client.get_random_node(), request)
                assert not response.creation_responses[0][0], response
        finally:
            await client.close()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    port, login, controller = (free_port() for _ in range(3))
    clients = f"PLAINTEXT://127.0.0.1:{port},LOGIN://127.0.0.1:{login}"
    broker = Kafka(
        tmp_path_factory.mktemp("secure-kafka"),
        port=port,
        properties={
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": clients,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": JAAS,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:admin",
        },
    )
    broker.start()
    ready.wait(broker)
    yield SecureKafka(broker.bootstrap, f"127.0.0.1:{login}")
    broker.process.stop()


def doctor(settings: dict[str, str], redis_server: str, code: int) -> list[dict[str, str]]:
    result = run("doctor", "--json", **settings, SOURCES__DEFAULT__URL=redis_server)
    assert result.exit_code == code, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return [finding for finding in found if not finding["check"].startswith("redis")]


def errors(found: list[dict[str, str]]) -> list[str]:
    return [finding["message"] for finding in found if finding["level"] == "error"]


def test_a_refused_login(secure, prefix):
    result = run("topics", "check", **secure.settings(prefix, "admin", "pw-of-somebody-else"))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: Kafka at {secure.bootstrap} refuses the login; "
        "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password\n"
    )


def test_with_all_rights(secure, prefix, redis_server):
    settings = secure.settings(prefix, "admin")
    assert run("topics", "apply", **settings).exit_code == 0
    assert not errors(doctor(settings, redis_server, 0))
    assert run("status", **settings).exit_code == 0


def test_without_rights_nothing_is_seen_or_created(secure, prefix, redis_server):
    run("topics", "apply", **servers(secure.open, prefix))
    settings = secure.settings(prefix, "limited")
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
    settings = secure.settings(prefix, "limited")
    secure.allow(prefix, TOPIC, DESCRIBE)
    soon(settings, redis_server, lambda found: any("settings of" in one and "cannot be read" in one for one in found))
    secure.allow(prefix, TOPIC, DESCRIBE_CONFIGS)
    soon(settings, redis_server, lambda found: any(one.startswith("may not be read") for one in found))
    secure.allow(prefix, TOPIC, READ)
    secure.allow(prefix, GROUP, READ)
    soon(settings, redis_server, lambda found: len(found) == 1 and "the transactional id" in found[0])
    secure.allow(prefix, TRANSACTION, WRITE, DESCRIBE)
    soon(settings, redis_server, lambda found: not found)
    well = doctor(settings, redis_server, 0)
    assert any("whether it creates topics by itself is not known" in finding["message"] for finding in well)
