"""What a worker knows of its rows without reading them: when each is due, its state, its open alerts.

One index per assigned partition: rebuilt from the rows on recovery, moved on by committed batches only, so an
aborted batch leaves no trace. Keys wait in buckets by due time; a bucket may hold keys that have moved on since,
they are passed over when their bucket comes up. A key whose due time lies in the past goes to a bucket of the past.

All times here are of the worker's own clock. A row says how long it waits (`deadlines.wait_ms`) and since when by the
source's clock; it is due so long after this worker received it. Only of a row that is read back from the table nobody
knows when it was received: there its own time counts, where that does not lie in the future.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from streams.core.alerts import OPEN
from streams.core.deadlines import EXPIRE, JITTER, PROBE, VERIFY, due_of, wait_ms
from streams.core.job import parse_key
from streams.core.lifecycle import ACTIVE, FINISHED
from streams.core.row import NOTES, Row
from streams.core.rules import DEFAULT_RULES, Rules
from streams.wire import loads

BUCKET_MS: Final = 250
FIRST_RETRY_MS: Final = 2_000
MAX_RETRY_MS: Final = 60_000
PIECE: Final = 1_000
"""Rows that are taken back without a pause: 10 to 20 ms."""
SWEPT: Final = 10_000
"""Keys that one look at the clock takes out of their buckets at most: 20 ms."""
DOUBTED: Final = 10_000
"""Jobs asked about because of an entry that are remembered, so that nobody asks at each of their entries."""

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


class Asked(NamedTuple):
    """A question that no look has answered yet."""

    tries: int
    again_ms: int
    due_ms: int
    """When the row came due at first."""


def _again(asked: Asked, now_ms: int) -> Asked:
    pause_ms = min(FIRST_RETRY_MS << min(asked.tries, 10), MAX_RETRY_MS)
    return Asked(asked.tries + 1, now_ms + pause_ms, asked.due_ms)


class PartitionIndex:
    """The rows of one partition, by due time."""

    __slots__ = (
        "_asked", "_bucket", "_buckets", "_doubted", "_due", "_group", "_heap", "_interned", "_lost", "_passing",
        "_ready", "_rules", "_running", "_suspects", "alerts", "counts", "firing", "lost", "queues",
        "unreadable",
    )  # fmt: skip

    def __init__(self, rules: Rules = DEFAULT_RULES) -> None:
        self._rules = rules
        self._due: dict[bytes, int] = {}
        self._group: dict[bytes, Group] = {}
        self._interned: dict[tuple[str, str, str], Group] = {}
        self._buckets: dict[int, list[bytes]] = {}
        self._heap: list[int] = []
        self._bucket, self._passing = 0, list[bytes]()
        """A bucket that is over, and what is still to be taken out of it."""
        self._ready: dict[str, dict[bytes, None]] = {PROBE: {}, EXPIRE: {}, VERIFY: {}}
        """Keys that are due, by what they are visited for."""
        self._asked: dict[bytes, Asked] = {}
        self._doubted: dict[bytes, Asked] = {}
        self._running: dict[bytes, tuple[int, int]] = {}
        """Of running jobs: since when (source's clock) and how long they wait. Their entries do not begin it anew."""
        self._suspects: set[bytes] = set()
        self._lost: set[bytes] = set()
        self.lost: dict[tuple[str, str], int] = {}
        """By source and queue: stuck rows whose jobs are in none of BullMQ's places, and so in none of its counts."""
        self.counts: dict[Group, int] = {}
        self.queues: dict[tuple[str, str], int] = {}
        """Rows by source and queue."""
        self.alerts: dict[bytes, tuple[str, ...]] = {}
        self.firing: dict[str, int] = {}
        """Open alerts by rule."""
        self.unreadable: list[bytes] = []
        """Keys that `restore` could not take."""

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[bytes]:
        """The keys of all rows."""
        return iter(self._due)

    def may_be_asked(self, key: bytes, *, finished: bool) -> bool:
        """Whether a row is unfinished or has an open alert, or, with `finished`, is there at all."""
        group = self._group.get(key)
        return group is not None and (finished or group.state not in FINISHED or key in self.alerts)

    @property
    def asking(self) -> bool:
        """Whether jobs are to be asked about, by the last `sweep`."""
        return bool(self._ready[PROBE] or self._ready[VERIFY])

    def put(self, key: bytes, row: Row, now_ms: int | None = None, *, answered: bool = False) -> None:
        """The row as it now stands, received at `now_ms` (None: when its own time says).

        `answered` = a look is among what has changed it: only that ends the retries of a question.
        """
        self._put(key, (row["source"], row["queue"], row["state"]), row[NOTES], now_ms, answered=answered)

    def restore(self, rows: Mapping[bytes, bytes], now_ms: int) -> Iterator[None]:
        """Take all rows of a table as it was read back, in pieces: a pause is due at each step.

        Of each row only the notes are decoded, which stand at its end. A row that is gone meanwhile is left out. What
        is no row, whoever wrote it to the topic, is named in `unreadable`.
        """
        keys = list(rows)
        for at in range(0, len(keys), PIECE):
            for key in keys[at : at + PIECE]:
                raw = rows.get(key)
                if raw is not None:
                    try:
                        self._restore(key, raw, now_ms)
                    except Exception:  # noqa: BLE001 - whatever stands there: it costs this row alone
                        self.drop(key)
                        self.unreadable.append(key)
            yield

    def _restore(self, key: bytes, raw: bytes, now_ms: int) -> None:
        notes = loads(raw[raw.rindex(_NOTES_BEGIN) + _NOTES_SKIP : -1])
        group = (*_queue_of(key[: key.index(b"/", key.index(b"/") + 1)]), notes["state"])
        self._put(key, group, notes, min(notes.get("at", now_ms), now_ms))

    def _put(
        self,
        key: bytes,
        group: tuple[str, str, str],
        notes: dict[str, Any],
        received_ms: int | None,
        *,
        answered: bool = False,
    ) -> None:
        finished = self._regroup(key, group)
        self._note_alerts(key, notes.get(OPEN))
        if "suspect" in notes:
            self._suspects.add(key)
        elif self._suspects:
            self._suspects.discard(key)
        self._note_lost(key, group[:2], lost="lost" in notes)
        if answered and self._doubted:
            self._doubted.pop(key, None)
        self._schedule(key, self._local_due(key, notes, received_ms), forget=answered or finished)

    def _local_due(self, key: bytes, notes: dict[str, Any], received_ms: int | None) -> int:
        rules = self._rules
        since = notes.get("at")
        if since is None:  # a row of 0.1 says only when it is due, by the source's clock
            longest_ms = max(rules.retention_ms, rules.verify_after_ms + rules.verify_after_ms // JITTER)
            due = due_of(notes, rules)
            return due if received_ms is None else min(due, received_ms + longest_ms)
        wait = wait_ms(notes, rules)
        if notes["state"] == ACTIVE:
            known = self._running.get(key)
            self._running[key] = (since, wait)
            if known == (since, wait):
                asked = self._asked.get(key)
                return self._due[key] if asked is None else asked.due_ms
        elif self._running:
            self._running.pop(key, None)
        due = (since if received_ms is None else received_ms) + wait
        return int(due)

    def _schedule(self, key: bytes, due: int, *, forget: bool) -> None:
        """Due then, but where a question is still unanswered not before it may be asked again."""
        asked = self._asked.get(key) if self._asked else None
        if asked is not None:
            if forget:
                del self._asked[key]
            else:
                self._asked[key] = asked._replace(due_ms=due)
                due = max(due, asked.again_ms)
        before = self._due.get(key)
        if before == due and not self._is_ready(key):
            return
        self._due[key] = due
        if self._is_ready(key):
            self._not_ready(key)
        elif before is not None and before // BUCKET_MS == due // BUCKET_MS and before // BUCKET_MS in self._buckets:
            return
        self._enqueue(key, due)

    def drop(self, key: bytes) -> None:
        """The row is gone."""
        self._due.pop(key, None)
        self._not_ready(key)
        self._asked.pop(key, None)
        self._running.pop(key, None)
        self._suspects.discard(key)
        self._note_alerts(key, None)
        group = self._group.pop(key, None)
        if group is not None:
            self._less(group)
            queue = group[:2]
            self._note_lost(key, queue, lost=False)
            left = self.queues[queue] - 1
            if left:
                self.queues[queue] = left
            else:
                del self.queues[queue]

    def due_keys(
        self, now_ms: int, verify: int, *, probes: int | None = None, expire: int | None = None
    ) -> list[bytes]:
        """Keys that are due: running jobs, those to let go, then those to be verified; the longest overdue first.

        At most `expire` to let go, at most `verify` to be verified, and at most `probes` to be asked about in all (None
        = any number). In this order, because thousands may wait to be verified, and a running job's lock must not.
        Takes nothing out: `asked` and `put` move them on.
        """
        self.sweep(now_ms)
        running = list(islice(self._ready[PROBE], probes))
        left = verify if probes is None else min(verify, probes - len(running))
        return [*running, *islice(self._ready[EXPIRE], expire), *islice(self._ready[VERIFY], left)]

    def late_ms(self, key: bytes, now_ms: int) -> int:
        """How long ago the row came due: negative where it has not."""
        asked = self._asked.get(key)
        return now_ms - (self._due[key] if asked is None else asked.due_ms)

    def asked(self, keys: Collection[bytes], now_ms: int) -> None:
        """These keys were looked after: they come up again, later each time, unless an answer moves them on."""
        for key in keys:
            due = self._due.get(key)
            if due is not None:
                before = self._asked.get(key)
                self._asked[key] = asked = _again(before or Asked(0, 0, due), now_ms)
                self._due[key] = asked.again_ms
                self._not_ready(key)
                self._enqueue(key, asked.again_ms)

    def doubted(self, keys: Collection[bytes], now_ms: int) -> None:
        """These jobs were asked about because of an entry, whether they have a row or not. It is due as it was."""
        for key in keys:
            before = self._doubted.pop(key, Asked(0, 0, now_ms))
            self._doubted[key] = _again(before, now_ms)
        while len(self._doubted) > DOUBTED:
            del self._doubted[next(iter(self._doubted))]

    def may_ask(self, key: bytes, now_ms: int) -> bool:
        """Whether an entry may have its job asked about: else a question is on its way."""
        asked = self._asked.get(key) or self._doubted.get(key)
        return asked is None or asked.again_ms <= now_ms

    def answered(self, keys: Collection[bytes]) -> None:
        """A look at each of these jobs has come, and has changed nothing."""
        for key in keys:
            self._doubted.pop(key, None)
            asked = self._asked.get(key)
            if asked is not None:
                self._asked[key] = asked._replace(tries=0)

    def sweep(self, now_ms: int) -> None:
        """Take what is due out of buckets of the past; some of it, if it is much. Forget what has moved on."""
        left = SWEPT
        while left > 0:
            if not self._passing:
                if not self._heap or (self._heap[0] + 1) * BUCKET_MS > now_ms:
                    return
                self._bucket = heapq.heappop(self._heap)
                self._passing = self._buckets.pop(self._bucket)
                self._passing.reverse()
            taken = self._passing[-left:]
            del self._passing[-left:]
            left -= len(taken)
            for key in reversed(taken):
                due = self._due.get(key)
                if due is not None and due // BUCKET_MS == self._bucket:
                    self._ready[self._visited_for(key)][key] = None

    def _visited_for(self, key: bytes) -> str:
        state = self._group[key].state
        if state == ACTIVE or key in self._suspects:
            return PROBE
        return EXPIRE if state in FINISHED and key not in self.alerts else VERIFY

    def _is_ready(self, key: bytes) -> bool:
        return any(key in keys for keys in self._ready.values())

    def _not_ready(self, key: bytes) -> None:
        for keys in self._ready.values():
            keys.pop(key, None)

    def _enqueue(self, key: bytes, due: int) -> None:
        bucket = due // BUCKET_MS
        keys = self._buckets.get(bucket)
        if keys is None:
            self._buckets[bucket] = [key]
            heapq.heappush(self._heap, bucket)
        else:
            keys.append(key)

    def _regroup(self, key: bytes, name: tuple[str, str, str]) -> bool:
        """Count the row by its new group. True when it has just finished."""
        was = self._group.get(key)
        if was == name:
            return False
        group = self._interned.get(name)
        if group is None:
            group = self._interned[name] = Group(*name)
        self._group[key] = group
        self.counts[group] = self.counts.get(group, 0) + 1
        if was is not None:
            self._less(was)
        else:
            self.queues[name[:2]] = self.queues.get(name[:2], 0) + 1
        return group.state in FINISHED

    def _less(self, group: Group) -> None:
        left = self.counts[group] - 1
        if left:
            self.counts[group] = left
        else:
            del self.counts[group], self._interned[group]

    def _note_lost(self, key: bytes, queue: tuple[str, str], *, lost: bool) -> None:
        if lost == (key in self._lost):
            return
        if lost:
            self._lost.add(key)
        else:
            self._lost.remove(key)
        left = self.lost.get(queue, 0) + (1 if lost else -1)
        if left:
            self.lost[queue] = left
        else:
            del self.lost[queue]

    def _note_alerts(self, key: bytes, opened: dict[str, Any] | None) -> None:
        rules = tuple(opened) if opened else ()
        before = self.alerts.get(key, ()) if self.alerts else ()
        if rules == before:
            return
        for rule in before:
            self.firing[rule] -= 1
        for rule in rules:
            self.firing[rule] = self.firing.get(rule, 0) + 1
        if rules:
            self.alerts[key] = rules
        else:
            del self.alerts[key]
