"""Which Redis the sample application works on: the same settings as the bridge's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from streams.settings import Settings
from streams.settings.model import DEFAULT_SOURCE


@dataclass(frozen=True, slots=True)
class Connection:
    """A Redis and BullMQ's prefix in it."""

    url: SecretStr
    prefix: str

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
