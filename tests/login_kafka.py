"""A broker with two doors: an open one, where all may be done, and one that asks for a login."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streams.local import ready
from streams.local.kafka import Kafka
from tests.commands.support import free_port

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


@contextmanager
def broker(
    folder: Path, protocol: str, passwords: Mapping[str, str], properties: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """`host:port` of the open door, and the port of the other, which speaks `protocol` and is the listener LOGIN.

    `passwords` are by user; `properties` are added to the broker's.
    """
    port, login, controller = (free_port() for _ in range(3))
    clients = f"PLAINTEXT://127.0.0.1:{port},LOGIN://127.0.0.1:{login}"
    users = " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
    kafka = Kafka(
        folder,
        port=port,
        properties={
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": clients,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:{protocol}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": f"{_PLAIN} required {users};",
            **properties,
        },
    )
    kafka.start()
    try:
        ready.wait(kafka)
        yield kafka.bootstrap, login
    finally:
        kafka.process.stop()
