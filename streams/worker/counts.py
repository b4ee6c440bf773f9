"""What each partition's owner tells of its rows, and whether all of them together agree with Redis.

The bridge counts jobs by place and has no table; each worker has a part of the table. So every owner tells its counts
on `health` where they changed, and the owner of partition 0 adds them up, compares them with the heartbeats, and asks
for a comparison where they stay apart: that is how jobs that were removed without a word are noticed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from streams.core import lifecycle as lc
from streams.core.job import escape, unescape
from streams.worker.drift import by_state
from streams.worker.index import Group

JUDGE: Final = 0
"""The owner of this partition compares the counts of all with Redis: one of the workers, whoever it is."""
INTERVAL_MS: Final = 10_000
QUEUES_PER_RECORD: Final = 2_000
"""A record of so many queues is well below the least limit of a topic."""
SILENT_S: Final = 60.0
"""A queue whose last heartbeat came so much earlier than the newest of any is gone: nothing is counted there."""
SMALL_LAG_MS: Final = 2_000
FIRST_PATIENCE_MS: Final = 60_000
MAX_PATIENCE_MS: Final = 3_600_000
"""After a comparison that did not help (BullMQ 4 keeps markers in its lists) the next one waits twice as long."""
MOST_QUEUES: Final = 100_000
"""More are not kept account of."""
REPEAT_MS: Final = 5_000
"""A question that no `started` has echoed is asked again."""
DRIFT: Final = "drift"
GAP: Final = "gap"
EXPIRED: Final = "expired"
"""Cause of a gap between the events and the table: what it has cost which queue nobody knows."""

Queue = tuple[str, str]
States = dict[str, int]


def name_of(queue: Queue) -> str:
    """`<source>/<queue>`, escaped as in keys."""
    return f"{escape(queue[0])}/{escape(queue[1])}"


class Counts(NamedTuple):
    """Rows by queue and state; `whole`: nothing that was told of the partition before counts any more."""

    counts: dict[str, States]
    whole: bool


@dataclass(frozen=True, slots=True)
class Telling:
    """What a partition's owner tells of its counts, for `Told.said` once it is on Kafka."""

    records: list[Counts]
    counts: dict[str, States]
    at_ms: int


class Told:
    """What one owner of a partition has told of its counts."""

    def __init__(self) -> None:
        self._told: dict[str, States] | None = None
        self._next_ms = 0

    def due(self, counts: Mapping[Group, int], lost: Mapping[Queue, int], now_ms: int) -> Telling | None:
        """What to tell now, if it is time; `counts` = rows by group, `lost` = those of them that BullMQ has lost.

        The first record is whole: what an owner before has told last may not be so any more.
        """
        if now_ms < self._next_ms:
            return None
        now, told = self._now(counts, lost), self._told or {}
        changed = [name for name in now.keys() | told.keys() if now.get(name) != told.get(name)]
        parts = [changed[at : at + QUEUES_PER_RECORD] for at in range(0, len(changed), QUEUES_PER_RECORD)]
        if self._told is None and not parts:
            parts = [[]]
        records = [
            Counts({name: now.get(name, {}) for name in part}, whole=self._told is None and part is parts[0])
            for part in parts
        ]
        return Telling(records, now, now_ms)

    def said(self, telling: Telling) -> None:
        """It is on Kafka: till then a tick that is folded again tells the same once more."""
        self._told, self._next_ms = telling.counts, telling.at_ms + INTERVAL_MS

    @staticmethod
    def _now(counts: Mapping[Group, int], lost: Mapping[Queue, int]) -> dict[str, States]:
        found: dict[str, States] = {}
        for (source, queue, state), count in counts.items():
            if count:
                found.setdefault(name_of((source, queue)), {})[state] = count
        for name, count in lost.items():
            found.setdefault(name_of(name), {})[lc.UNKNOWN] = count
        return found


@dataclass(slots=True)
class _Heard:
    """The last heartbeat of a queue, and how the counts differed at it."""

    received_s: float
    entries_read: int
    jobs: States
    apart: States = field(default_factory=dict)


@dataclass(slots=True)
class _Asked:
    """A comparison that was asked for. `patience_ms` = how long to wait before the next."""

    reason: str
    request: str
    at: int
    asked_at: int
    started: bool = False
    patience_ms: int = FIRST_PATIENCE_MS


class Question(NamedTuple):
    """A comparison to ask for now."""

    queue: Queue
    reason: str
    request: str


class Balance:
    """All partitions' counts against the heartbeats. Fed with the records of `health` in their order."""

    def __init__(self, partitions: int = 1_000, now_s: Callable[[], float] = time.monotonic) -> None:
        """`partitions` = how many the table has."""
        self._now_s = now_s
        self._count = partitions
        self._partitions: dict[int, dict[str, States]] = {}
        self._heard: dict[Queue, _Heard] = {}
        self._asked: dict[Queue, _Asked] = {}
        self._wanted: dict[Queue, str] = {}
        """Queues to compare, and why."""
        self._newest_s = 0.0
        self._expired_s: float | None = None

    def take(self, record: Mapping[str, Any]) -> None:
        """One record; what is neither `table`, heartbeat, gap nor snapshot is passed over. Raises what a record that is
        none of ours leads to: KeyError, TypeError, ValueError, AttributeError.
        """
        kind = record["type"]
        if kind == "table":
            self._table(record)
        elif kind == "heartbeat":
            self._heartbeat((record["source"], record["queue"]), record)
        elif kind == "gap" and record["cause"] == EXPIRED:
            self._expired_s = self._now_s() if self._heard else math.inf
            self._wanted.update(dict.fromkeys(self._heard, GAP))
        elif kind == "snapshot" and record["status"] == "started":
            asked = self._asked.get((record["source"], record["queue"]))
            if asked is not None and asked.request == record["request"]:
                asked.started = True

    def _table(self, record: Mapping[str, Any]) -> None:
        """Of a partition that there is, what are counts: anybody with the right to may write to the topic."""
        partition, counts = record["partition"], record["counts"]
        if type(partition) is not int or not 0 <= partition < self._count:
            return
        told = self._partitions.setdefault(partition, {})
        if record.get("whole") is True:
            told.clear()
        for name, states in counts.items():
            if name in told or len(told) < MOST_QUEUES:
                told[name] = {state: count for state, count in states.items() if type(count) is int}

    def rows(self, queue: Queue) -> States:
        """Rows of a queue by state, all partitions together."""
        total: Counter[str] = Counter()
        for counts in self._partitions.copy().values():
            total.update(counts.get(name_of(queue), {}))
        return dict(total)

    def apart(self, queue: Queue, jobs: States) -> States:
        """By state: rows less BullMQ's jobs. A stuck job is in BullMQ's active list, or in none."""
        rows, found = self.rows(queue), {}
        for state, count in jobs.items():
            ours = rows.get(state, 0)
            if state == lc.ACTIVE:
                ours += rows.get(lc.STUCK, 0) - rows.get(lc.UNKNOWN, 0)
            found[state] = ours - count
        return found

    def drift(self) -> dict[tuple[str, ...], float]:
        """By queue and state: rows less jobs, as far as both were told of. For any thread."""
        heard = self._heard.copy()
        alive_s = self._newest_s - SILENT_S
        return {
            (*queue, state): float(count)
            for queue, each in heard.items()
            if each.received_s >= alive_s
            for state, count in self.apart(queue, each.jobs).items()
        }

    def _heartbeat(self, queue: Queue, record: Mapping[str, Any]) -> None:
        """Apart in two heartbeats by more than what has happened in between: no flow explains that."""
        jobs, before = by_state(record), self._heard.get(queue)
        if before is None and len(self._heard) >= MOST_QUEUES:
            self._forget_silent()
            if len(self._heard) >= MOST_QUEUES:
                return
        apart, asked = self.apart(queue, jobs), self._asked.get(queue)
        self._newest_s = self._now_s()
        self._heard[queue] = _Heard(self._newest_s, int(record["entries_read"]), jobs, apart)
        if asked is not None and not any(apart.values()) and (asked.started or asked.reason == DRIFT):
            del self._asked[queue]
        if self._expired_s == math.inf:
            self._expired_s = self._newest_s
        # All queues that were there when records had expired are heard of soon.
        if before is None and self._expired_s is not None and self._newest_s - self._expired_s <= SILENT_S:
            self._wanted[queue] = GAP
        if before is None or self._wanted.get(queue) == GAP or int(record["lag_ms"]) > SMALL_LAG_MS:
            return
        flow = max(int(record["entries_read"]) - before.entries_read, 0)
        if any(_stays(apart.get(state, 0), before.apart.get(state, 0), flow) for state in apart):
            self._wanted[queue] = DRIFT
        else:
            self._wanted.pop(queue, None)

    def _forget_silent(self) -> None:
        for queue in [queue for queue, each in self._heard.items() if each.received_s < self._now_s() - SILENT_S]:
            del self._heard[queue]
            self._asked.pop(queue, None)
            self._wanted.pop(queue, None)

    def due(self, now_ms: int, make_request: str) -> Question | None:
        """The next queue to ask a comparison for; `make_request` = an id for a new one."""
        for queue, asked in self._asked.items():
            if not asked.started and now_ms - asked.asked_at >= REPEAT_MS:
                asked.asked_at = now_ms
                return Question(queue, asked.reason, asked.request)
        for queue, reason in self._wanted.items():
            before = self._asked.get(queue)
            patience_ms = 0 if before is None else before.patience_ms
            if reason == DRIFT and before is not None and now_ms - before.at < patience_ms:
                continue
            longer_ms = min(max(patience_ms * 2, FIRST_PATIENCE_MS), MAX_PATIENCE_MS)
            self._asked[queue] = _Asked(reason, make_request, now_ms, now_ms, patience_ms=longer_ms)
            del self._wanted[queue]
            return Question(queue, reason, make_request)
        return None


def _stays(now: int, before: int, flow: int) -> bool:
    return now * before > 0 and min(abs(now), abs(before)) > flow


def queue_of(name: str) -> Queue:
    """The inverse of `name_of`."""
    source, _, queue = name.partition("/")
    return unescape(source), unescape(queue)
