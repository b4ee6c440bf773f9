"""A Kafka with logins and rights, as in production: each user may do what it was allowed, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest

from tests import login_kafka

TOPIC, GROUP, TRANSACTION = 2, 3, 5
OPERATIONS: Final = {
    "Read": 3, "Write": 4, "Create": 5, "Alter": 7, "Describe": 8, "DescribeConfigs": 10, "AlterConfigs": 11,
}  # fmt: skip
"""Numbers of Kafka's protocol."""
USERS: Final = ("admin", "limited", "bridge", "worker", "apply", "reader")
_LITERAL, _PREFIXED = 3, 4
_ALLOW: Final = 3


@dataclass(frozen=True)
class AclKafka:
    """`open` asks for no login and may do all; `bootstrap` asks for one."""

    open: str
    bootstrap: str

    def login(self, user: str, password: str | None = None) -> dict[str, str]:
        """Settings without their common beginning."""
        return {
            "KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA__SASL_MECHANISM": "PLAIN",
            "KAFKA__SASL_USERNAME": user,
            "KAFKA__SASL_PASSWORD": password or f"pw-{user}",
        }

    async def allow(self, user: str, kind: int, name: str, operations: tuple[str, ...], *, begins: bool) -> None:
        """Allow these operations on what is called so, or (`begins`) whose name begins so."""
        client = AIOKafkaClient(bootstrap_servers=self.open)
        await client.bootstrap()
        pattern = _PREFIXED if begins else _LITERAL
        try:
            for operation in operations:
                number = OPERATIONS[operation]
                request = CreateAclsRequest(kind, name, pattern, f"User:{user}", "*", number, _ALLOW)
                response = await client.send(client.get_random_node(), request)
                assert not response.creation_responses[0][0], response
        finally:
            await client.close()

    def allow_all(self, user: str, prefix: str, kind: int, *operations: str) -> None:
        """The same on all of this kind whose name begins with `prefix`, outside a loop."""
        asyncio.run(self.allow(user, kind, prefix, operations, begins=True))


def acl_kafka(folder: Path) -> Iterator[AclKafka]:
    """A broker of its own, until the generator is closed."""
    passwords = {user: f"pw-{user}" for user in USERS}
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
    }
    with login_kafka.broker(folder, "SASL_PLAINTEXT", passwords, rights) as (bootstrap, login):
        yield AclKafka(bootstrap, f"127.0.0.1:{login}")
