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
_MOST_DOUBLINGS: Final = 10


class Outage:
    """What is missing right now, by name (`kafka`, `topics`, `redis`).

    Each user of a server has a back-off of its own: that one gets an answer neither hides that another gets none,
    nor begins the other's waiting anew.
    """

    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._away: dict[str, dict[str, float]] = {}
        self._tries: dict[tuple[str, str], int] = {}

    def expect(self, what: str) -> None:
        """It counts as missing until it has answered once."""
        self._expected.add(what)

    @property
    def missing(self) -> list[str]:
        """For readiness: the kinds of what is missing, each once."""
        return sorted({what.partition(" ")[0] for what in (*self._away, *self._expected)})

    def say(self, what: str, error: object, who: str = "") -> None:
        """It is away for `who`; logged where it is for the first."""
        if what not in self._away:
            remedy = " (bullmq-streams doctor says what is missing)" if isinstance(error, REFUSALS) else ""
            log.warning("%s cannot be used, trying again: %s%s", what, _text(error), remedy)
        self._away.setdefault(what, {}).setdefault(who, time.monotonic())

    async def wait(self, what: str, error: object, who: str = "") -> None:
        """It is away for `who`: sleep before the next try."""
        self.say(what, error, who)
        tries = self._tries[what, who] = self._tries.get((what, who), 0) + 1
        longest = min(_FIRST_S * 2 ** min(tries - 1, _MOST_DOUBLINGS), _LONGEST_S)
        await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret

    def over(self, *names: str, who: str = "") -> None:
        """They answer `who`; logged where one had been away and now is for nobody."""
        for what in names:
            self._tries.pop((what, who), None)
            self._expected.discard(what)
            waiting = self._away.get(what)
            since = waiting.pop(who, None) if waiting else None
            if since is not None and not waiting:
                del self._away[what]
                log.info("%s can be used again, after %.1f s", what, time.monotonic() - since)


def _text(error: object) -> str:
    text = str(error)
    named = not isinstance(error, Exception) or text.startswith(type(error).__name__)  # aiokafka's name themselves
    return text if named else f"{type(error).__name__}: {text}"
