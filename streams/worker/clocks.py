"""The worker's clocks, and how far another one is from them, as the bridge's heartbeats tell.

Deadlines run on elapsed time, so a wrong clock delays none. But a row that is read back from the table is as old as the
clocks say; so nothing is let go while they disagree, or while nobody tells what another one says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from streams.clock import steady_ms, wall_ms
from streams.telemetry import Metrics
from streams.telemetry.skew import Skew

TRUSTED_MS: Final = 300_000
"""Nothing expires while the newest heartbeat and the wall clock are further apart."""
WINDOW_MS: Final = 30_000
"""Heartbeats take a while, some longer: within a window the one that came fastest counts."""
BETWEEN: Final = "bridge-worker"
_MATTERS: Final = f"nothing expires while they are more than {TRUSTED_MS // 60_000} minutes apart"


class Clocks:
    """`wall` and `steady`: ms since the epoch; only the first may be set while the process runs."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        wall: Callable[[], int] = wall_ms,
        steady: Callable[[], int] = steady_ms,
    ) -> None:
        self.wall = wall
        self.steady = steady
        self._skew = Skew(metrics, BETWEEN, "the bridge", _MATTERS)
        self._newest: int | None = None
        self._ahead: int | None = None
        self._window_ends = steady() + WINDOW_MS

    @property
    def trusted(self) -> bool:
        """Whether what the clocks say may end something for good."""
        return self._newest is not None and abs(self._newest - self.wall()) <= TRUSTED_MS

    def take(self, record: Mapping[str, Any]) -> None:
        """A record of `health`; all but heartbeats are passed over. Raises what a strange one leads to: KeyError,
        TypeError, ValueError.
        """
        if record["type"] != "heartbeat":
            return
        at = int(record["at"])
        self._newest = at
        ahead = at - self.wall()
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)
        if self.steady() >= self._window_ends:
            self._skew.tell(self._ahead)
            self._ahead, self._window_ends = None, self.steady() + WINDOW_MS
