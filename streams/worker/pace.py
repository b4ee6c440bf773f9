"""Which rows a tick looks after: as many as the source may be asked about, and as the loop may be held for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Final

from streams.core.deadlines import due_of
from streams.core.row import NOTES, Row
from streams.core.rules import Rules
from streams.worker.clocks import Clocks
from streams.worker.index import PartitionIndex

TICK_INTERVAL_S: Final = 0.25
PROBES_PER_TICK: Final = 500
"""Most questions that a worker sends at one tick: a bound on what a restart after a long stop can ask at once."""
EXPIRIES_PER_TICK: Final = 500
"""Most rows that one partition lets go at one tick."""
HELD_S: Final = 0.02
"""A tick begins with no further row after so long at work: rows may be large. Others wait for the next tick."""


class Pace:
    """Limits are for the whole worker: its partitions, which tick together, share them. One with nothing to ask leaves
    its share to the others.
    """

    def __init__(self, per_s: float, rules: Rules, clocks: Clocks) -> None:
        self._verify_per_tick = max(int(per_s * TICK_INTERVAL_S), 1)
        self._rules = rules
        self._clocks = clocks

    def due(self, index: PartitionIndex, indexes: Collection[PartitionIndex]) -> Iterator[bytes]:
        """Keys to look after now, of one of the worker's partitions."""
        now = self._clocks.steady()
        index.sweep(now)
        asking = max(sum(one.asking for one in indexes), 1)
        probes, verify = (max(limit // asking, 1) for limit in (PROBES_PER_TICK, self._verify_per_tick))
        expire = EXPIRIES_PER_TICK if self._clocks.trusted else 0
        keys = index.due_keys(now, verify, probes=probes, expire=expire)
        began = time.thread_time()
        for key in keys:
            yield key
            if time.thread_time() - began > HELD_S:
                return

    def left(self, partitions: int, asked: int) -> int:
        """How many questions one of the worker's partitions may ask beside those of its tick: one at least."""
        return max(self._verify_per_tick // max(partitions, 1) - asked, 1)

    def source_now(self, index: PartitionIndex, key: bytes, row: Row) -> int:
        """The ms of the source's clock to judge a row by: when it came due there, and how long ago that was here."""
        return due_of(row[NOTES], self._rules) + max(index.late_ms(key, self._clocks.steady()), 0)
