"""Comparisons of whole queues, as the bridge tells of them on `health`.

The bridge looks at every job that it finds. What its looks did not touch is in the table only, and nobody but the
worker knows of it: `repair.py` asks about it, once a partition has folded past what stood on `events` when the bridge
was done. Nothing here is kept: a worker that starts reads the last minutes of `health` again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.core.compare import FAILOVER, Start, must_ask
from streams.core.row import Row

KEPT_MS: Final = 600_000
"""How long a comparison is remembered: one whose end was not heard of within this time is begun again by its cause."""

_MOST_KEPT: Final = 10_000
"""Whoever writes to `health` may name as many as there are words."""

Queue = tuple[str, str]
"""Source and queue."""


@dataclass(slots=True)
class Comparison:
    """One comparison. `ends` = per partition of `events` what stood there when the bridge had finished."""

    request: str
    name: Queue
    start: Start
    reason: str
    common_id: str | None
    """Where a history has just ended: the last id that it shares with this one, None where there is none."""
    heard_s: float
    finished: bool = False
    ends: Mapping[int, int] | None = None
    compared: set[int] = field(default_factory=set)
    corrected_before: Counter[int] = field(default_factory=Counter)
    """Per partition: rows of the queue that looks had corrected before it began."""

    @property
    def concerns_finished(self) -> bool:
        """Whether finished rows may be wrong too."""
        return self.reason == FAILOVER

    def must_ask(self, row: Row) -> bool:
        """Whether a row that stands in the table at the end is to be asked about."""
        return must_ask(row, self.start, reason=self.reason, common_id=self.common_id)


class Comparisons:
    """Those of the last minutes, in the order in which they began."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._by_request: dict[str, Comparison] = {}
        self._common: dict[Queue, str] = {}
        self.corrected: dict[Queue, Counter[int]] = {}
        """Rows that looks have corrected since this process began, by queue and partition."""

    def take(self, record: Mapping[str, Any]) -> None:
        """A record of `health` in its order; what is not about comparisons is passed over. Raises what a record that
        is none of ours leads to: KeyError, TypeError, ValueError.
        """
        kind = record["type"]
        if kind == "gap":
            self._gap(record)
        elif kind == "snapshot":
            self._snapshot(record)

    def _gap(self, record: Mapping[str, Any]) -> None:
        """A history that ended: rows that were told something behind the common id may be wrong, finished ones too."""
        if record["cause"] in ("failover", "reset", "rewound"):
            name = (str(record["source"]), str(record["queue"]))
            self._common.pop(name, None)
            self._common[name] = str(record["from_id"])
            if len(self._common) > _MOST_KEPT:
                del self._common[next(iter(self._common))]

    def _snapshot(self, record: Mapping[str, Any]) -> None:
        request, status = str(record["request"]), record["status"]
        if status == "started":
            self._start(request, record)
            return
        known = self._by_request.get(request)
        if known is None:
            return
        if status == "finished":
            known.finished = True
        elif status == "compared":
            known.compared.add(int(record["partition"]))

    def _start(self, request: str, record: Mapping[str, Any]) -> None:
        name = (str(record["source"]), str(record["queue"]))
        start = Start(int(record["epoch"]), str(record["stream_id"]), int(record["observed_at"]))
        self._by_request.pop(request, None)  # begun again after a stop of the bridge
        found = Comparison(request, name, start, str(record["reason"]), self._common.get(name), self._now_s())
        found.corrected_before = Counter(self.corrected.get(name, {}))
        self._by_request[request] = found
        if len(self._by_request) > _MOST_KEPT:
            del self._by_request[next(iter(self._by_request))]
        self._forget(before_s=found.heard_s - KEPT_MS / 1000)

    def _forget(self, before_s: float) -> None:
        """By when they were heard of: the clock of a bridge may be an hour ahead of the last one's."""
        for request in [each.request for each in self._by_request.values() if each.heard_s < before_s]:
            del self._by_request[request]

    def unplaced(self) -> list[Comparison]:
        """Finished ones of which nobody has yet asked what stood on `events` by then."""
        return [each for each in self._by_request.values() if each.finished and each.ends is None]

    def due(self, partition: int) -> Iterator[Comparison]:
        """Those that this partition has still to compare, the oldest first."""
        for each in self._by_request.values():
            if each.ends is not None and partition not in each.compared:
                yield each

    def corrected_in(self, name: Queue, partition: int) -> int:
        """Rows of a queue that looks have corrected in a partition since this process began."""
        counts = self.corrected.get(name)
        return 0 if counts is None else counts[partition]

    def note_corrected(self, partition: int, rows: Mapping[Queue, int]) -> None:
        """Rows that committed looks have corrected."""
        for name, count in rows.items():
            self.corrected.setdefault(name, Counter())[partition] += count
