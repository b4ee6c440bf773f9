"""What a worker knows of its rows without reading them: when each is due, its state, its open alerts.

One index per assigned partition: rebuilt from the rows on recovery, moved on by committed batches only, so an
aborted batch leaves no trace. Keys wait in buckets by due time; a bucket may hold keys that have moved on since,
they are passed over when their bucket comes up. A key whose due time lies in the past goes to a bucket of the past.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from streams.core.alerts import OPEN
from streams.core.deadlines import VERIFY, action_of
from streams.core.job import parse_key
from streams.core.lifecycle import FINISHED
from streams.core.row import NOTES, Row
from streams.wire import loads

BUCKET_MS: Final = 250
FIRST_RETRY_MS: Final = 2_000
MAX_RETRY_MS: Final = 60_000


_NOTES_BEGIN: Final = b',"%s":{' % NOTES.encode()
"""Text inside a row cannot hold this: there a quotation mark has a backslash before it. Nor can data behind the notes:
there is none, they are a row's last field."""
_NOTES_SKIP: Final = len(_NOTES_BEGIN) - 1


@lru_cache(maxsize=4096)
def _queue_of(prefix: bytes) -> tuple[str, str]:
    """Source and queue of the keys that begin with this."""
    address = parse_key(prefix.decode() + "/")
    return address.source, address.queue


class Group(NamedTuple):
    """What rows are counted by."""

    source: str
    queue: str
    state: str


class PartitionIndex:
    """The rows of one partition, by due time."""

    __slots__ = (
        "_asked", "_buckets", "_due", "_group", "_heap", "_interned", "_overdue", "_to_verify", "alerts", "counts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._group: dict[bytes, Group] = {}
        self._interned: dict[tuple[str, str, str], Group] = {}
        self._buckets: dict[int, list[bytes]] = {}
        self._heap: list[int] = []
        self._overdue: dict[bytes, None] = {}
        self._to_verify: dict[bytes, None] = {}
        self._asked: dict[bytes, int] = {}
        self.counts: dict[Group, int] = {}
        self.alerts: dict[bytes, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[bytes]:
        """The keys of all rows."""
        return iter(self._due)

    def may_be_asked(self, key: bytes, *, finished: bool) -> bool:
        """Whether a row is unfinished or has an open alert, or, with `finished`, is there at all."""
        group = self._group.get(key)
        return group is not None and (finished or group.state not in FINISHED or key in self.alerts)

    def put(self, key: bytes, row: Row) -> None:
        """The row as it now stands."""
        self._put(key, (row["source"], row["queue"], row["state"]), row[NOTES])

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """All rows of a table as it was read back. Of each only the notes are decoded, which stand at its end."""
        for key, raw in rows.items():
            notes = loads(raw[raw.rindex(_NOTES_BEGIN) + _NOTES_SKIP : -1])
            self._put(key, (*_queue_of(key[: key.index(b"/", key.index(b"/") + 1)]), notes["state"]), notes)

    def _put(self, key: bytes, group: tuple[str, str, str], notes: dict[str, Any]) -> None:
        self._regroup(key, group)
        due: int = notes["due"]
        if self._due.get(key) != due:
            self._due[key] = due
            self._not_overdue(key)
            self._enqueue(key, due)
        if self._asked:
            self._asked.pop(key, None)
        opened: dict[str, Any] | None = notes.get(OPEN)
        if opened:
            self.alerts[key] = tuple(opened)
        elif self.alerts:
            self.alerts.pop(key, None)

    def drop(self, key: bytes) -> None:
        """The row is gone."""
        self._due.pop(key, None)
        self._not_overdue(key)
        self._asked.pop(key, None)
        self.alerts.pop(key, None)
        group = self._group.pop(key, None)
        if group is not None:
            self.counts[group] -= 1

    def due_keys(self, now_ms: int, verify: int) -> list[bytes]:
        """Keys that are due, the longest overdue first; behind them at most `verify` of those to be verified.

        Apart, because thousands may wait to be verified, and a running job's lock must not wait behind them.
        Takes nothing out: `asked` and `put` move them on.
        """
        self._sweep(now_ms)
        return [*self._overdue, *islice(self._to_verify, verify)]

    def asked(self, keys: list[bytes], now_ms: int) -> None:
        """These keys were looked after: they come up again, later each time, unless an answer moves them on."""
        for key in keys:
            if key in self._due:
                tries = self._asked.get(key, 0)
                self._asked[key] = tries + 1
                self._due[key] = due = now_ms + min(FIRST_RETRY_MS << min(tries, 10), MAX_RETRY_MS)
                self._enqueue(key, due)
                self._not_overdue(key)

    def _sweep(self, now_ms: int) -> None:
        """Forget what waits in buckets of the past and has moved on. Changes nothing that can be seen."""
        while self._heap and (self._heap[0] + 1) * BUCKET_MS <= now_ms:
            bucket = heapq.heappop(self._heap)
            for key in self._buckets.pop(bucket):
                if key in self._due and self._due[key] // BUCKET_MS == bucket:
                    quiet = action_of(self._group[key].state) == VERIFY
                    (self._to_verify if quiet else self._overdue)[key] = None

    def _not_overdue(self, key: bytes) -> None:
        self._overdue.pop(key, None)
        self._to_verify.pop(key, None)

    def _enqueue(self, key: bytes, due: int) -> None:
        bucket = due // BUCKET_MS
        keys = self._buckets.get(bucket)
        if keys is None:
            self._buckets[bucket] = [key]
            heapq.heappush(self._heap, bucket)
        else:
            keys.append(key)

    def _regroup(self, key: bytes, name: tuple[str, str, str]) -> None:
        was = self._group.get(key)
        if was == name:
            return
        group = self._interned.get(name)
        if group is None:
            group = self._interned[name] = Group(*name)
        self._group[key] = group
        self.counts[group] = self.counts.get(group, 0) + 1
        if was is not None:
            self.counts[was] -= 1
