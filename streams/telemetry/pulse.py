"""Which of a process's endless loops still turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 30.0
"""A loop that has not turned for so long hangs: `/livez` says so, and whoever restarts processes may do it."""


class Pulse:
    """Hears from each loop, by a name of its own, that it goes round.

    A loop that waits for something that may stay away for long (Kafka, Redis) beats while it waits: it is alive.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` = seconds that only go on."""
        self._clock = clock
        self._beats: dict[str, float] = {}

    def expect(self, name: str) -> None:
        """A loop of this name is about to begin: from now on it has to be heard of."""
        self._beats.setdefault(name, self._clock())

    def beat(self, name: str) -> None:
        """The loop of this name has turned."""
        self._beats[name] = self._clock()

    def ended(self, name: str) -> None:
        """The loop of this name is over, as it should be."""
        self._beats.pop(name, None)

    def stale(self, now_s: float | None = None) -> list[str]:
        """Names of the loops that were last heard of more than 30 s ago, in order. `now_s` = by the same clock."""
        now = self._clock() if now_s is None else now_s
        return sorted(name for name, at in self._beats.items() if now - at > LIMIT_S)
