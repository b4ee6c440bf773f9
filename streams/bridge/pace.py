"""How fast jobs are looked at that nobody waits for. Pure: the time is given."""

from __future__ import annotations

from typing import Final

COMPARED_PER_S: Final = 5_000
"""Jobs of a source: about 4 % of its Redis' time. Who compares a queue of a million has waited for longer things."""


class Pace:
    """So many a second, those of one turn at once."""

    def __init__(self, per_s: float = COMPARED_PER_S) -> None:
        """Nothing was done yet."""
        self._per_s = per_s
        self._free_at_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until the next ones."""
        return max(self._free_at_s - now_s, 0.0)

    def spend(self, count: int, now_s: float) -> None:
        """So many are done now."""
        self._free_at_s = max(self._free_at_s, now_s) + count / self._per_s
