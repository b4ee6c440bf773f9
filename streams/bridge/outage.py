"""Say once when something is away, once when it is back, and wait longer and longer between tries."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from redis.exceptions import AuthenticationError, NoPermissionError

log = logging.getLogger(__name__)

REFUSALS: Final = (
    # Redis
    AuthenticationError,
    NoPermissionError,
    # Kafka
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
"""What was asked is there, and will not do it before somebody gives the right to."""
_FIRST_S: Final = 0.2
_LONGEST_S: Final = 10.0


class Outage:
    """What is missing right now, by name (`kafka`, `topics`, `redis`)."""

    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._away: dict[str, float] = {}
        self._tries: dict[str, int] = {}

    def expect(self, what: str) -> None:
        """It counts as missing until it has answered once."""
        self._expected.add(what)

    @property
    def missing(self) -> list[str]:
        """For readiness: the kinds of what is missing, each once."""
        return sorted({what.partition(" ")[0] for what in (*self._away, *self._expected)})

    def say(self, what: str, error: object) -> None:
        """It is away; logged at its first call."""
        if what not in self._away:
            self._away[what] = time.monotonic()
            remedy = " (bullmq-streams doctor says what is missing)" if isinstance(error, REFUSALS) else ""
            log.warning("%s cannot be used, trying again: %s%s", what, _text(error), remedy)

    async def wait(self, what: str, error: object) -> None:
        """It is away: sleep before the next try."""
        self.say(what, error)
        tries = self._tries[what] = self._tries.get(what, 0) + 1
        longest = min(_FIRST_S * 2 ** (tries - 1), _LONGEST_S)
        await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret

    def over(self, *names: str) -> None:
        """They answer; logged where one had been away."""
        for what in names:
            self._tries.pop(what, None)
            self._expected.discard(what)
            since = self._away.pop(what, None)
            if since is not None:
                log.info("%s can be used again, after %.1f s", what, time.monotonic() - since)


def _text(error: object) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
