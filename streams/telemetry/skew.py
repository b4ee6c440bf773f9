"""How far apart two clocks are: a gauge, and a line of the log where that begins, grows, and ends."""

from __future__ import annotations

import logging
from typing import Final, Protocol

log = logging.getLogger(__name__)

TOLD_MS: Final = (2_000, 60_000)
"""From here on a warning, and an error."""


class Gauges(Protocol):
    """Where the figure goes."""

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""


class Skew:
    """Of one other clock against this process'."""

    def __init__(self, metrics: Gauges | None, between: str, whose: str, matters: str) -> None:
        """`between` = the label's value; `whose` = the other clock, and `matters` why that is of interest, in words."""
        self._metrics = metrics
        self._between = between
        self._whose = whose
        self._matters = matters
        self._told = 0

    def tell(self, ahead_ms: float) -> None:
        """The other clock is so far ahead."""
        if self._metrics is not None:
            self._metrics.set("clock_skew_seconds", ahead_ms / 1000, {"between": self._between})
        level = sum(abs(ahead_ms) > limit for limit in TOLD_MS)
        if level > self._told:
            way = "ahead of" if ahead_ms > 0 else "behind"
            severity = logging.ERROR if level == len(TOLD_MS) else logging.WARNING
            apart_s = abs(ahead_ms) / 1000
            log.log(
                severity, "the clock of %s is %.1f s %s ours: let both follow a time server; %s",
                self._whose, apart_s, way, self._matters,
            )  # fmt: skip
        elif level < self._told and not level:
            log.info("the clock of %s and ours agree again", self._whose)
        self._told = level
