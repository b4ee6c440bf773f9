"""Which Redis the sample application works on: the same settings as the bridge's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams.commands.errors import CommandError
from streams.settings import Settings
from streams.settings.model import DEFAULT_SOURCE
from streams.settings.url import masked


@dataclass(frozen=True, slots=True)
class Connection:
    """A Redis and BullMQ's prefix in it."""

    url: SecretStr
    prefix: str

    @property
    def address(self) -> str:
        """The URL without its password."""
        return masked(self.url.get_secret_value())

    def options(self) -> dict[str, Any]:
        """Options of BullMQ's Queue and Worker."""
        return {"connection": self.url.get_secret_value(), "prefix": self.prefix}


def source_name(settings: Settings) -> str:
    """The source that the demo uses: `default`, else the first."""
    return DEFAULT_SOURCE if DEFAULT_SOURCE in settings.sources else next(iter(settings.sources))


def connection(settings: Settings) -> Connection:
    """Where the sample application puts its jobs."""
    source = settings.sources[source_name(settings)]
    return Connection(source.url, source.prefix)


async def require_redis(where: Connection) -> None:
    """Raise CommandError where the Redis does not answer."""
    client = Redis.from_url(where.url.get_secret_value(), socket_timeout=5, socket_connect_timeout=5)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        raise CommandError(
            f"Redis at {where.address} does not answer ({type(error).__name__})",
            "is it running, and are address, user and password right? sources.<name>.url or --redis names it",
        ) from None
    finally:
        await client.aclose()
