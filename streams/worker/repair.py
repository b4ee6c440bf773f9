"""A partition's part of a comparison: ask about every row that the bridge's looks did not touch, then tell what it was.

Rows are gone through in pieces, between batches, so that nothing waits for them. A scan changes nothing that can be
seen, and a question is only a wish: so both need no undoing where a batch is folded again. That a comparison is done
is told in a transaction, and known once that is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from streams.core import deadlines
from streams.core.job import job_key
from streams.core.row import Row
from streams.engine import Tx
from streams.worker.comparisons import Comparison, Comparisons
from streams.worker.index import PartitionIndex
from streams.worker.outputs import Outputs

KEYS_PER_TICK: Final = 20_000
"""Keys whose queue is looked at in one tick: two milliseconds."""
ROWS_PER_TICK: Final = 400
"""Rows that are decoded in one tick: four milliseconds."""
FIRST_RETRY_MS: Final = 2_000
MAX_RETRY_MS: Final = 60_000

FoldedTo = Callable[[int], int | None]
"""The offset of `events` up to which a partition is folded for sure; None where nothing was fetched yet."""


@dataclass(slots=True)
class Task:
    """One comparison in one partition. `open` = keys asked about: when to ask again, how often it was asked."""

    comparison: Comparison
    prefix: bytes
    keys: list[bytes]
    at: int = 0
    open: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    closed: int = 0


class PartitionRepair:
    """The comparisons of one assigned partition, one after the other."""

    def __init__(
        self,
        partition: int,
        index: PartitionIndex,
        comparisons: Comparisons,
        outputs: Outputs,
        folded_to: FoldedTo,
    ) -> None:
        self._partition = partition
        self._index = index
        self._comparisons = comparisons
        self._outputs = outputs
        self._folded_to = folded_to
        self._task: Task | None = None

    def on_tick(self, tx: Tx, now_ms: int, budget: int) -> Comparison | None:
        """Go on; at most `budget` questions. Returns the comparison that is told to be done, for `committed`."""
        task = self._task or self._begin()
        if task is None:
            return None
        self._scan(tx, task)
        self._ask(tx, task, now_ms, budget)
        if task.at < len(task.keys) or task.open:
            return None
        self._tell(tx, task, now_ms)
        return task.comparison

    def _begin(self) -> Task | None:
        for comparison in self._comparisons.due(self._partition):
            assert comparison.ends is not None  # noqa: S101 - due() gives no others
            folded_to = self._folded_to(self._partition)
            if folded_to is None or folded_to < comparison.ends.get(self._partition, 0):
                return None
            prefix = job_key(*comparison.name, "").encode()
            self._task = Task(comparison, prefix, list(self._index))
            return self._task
        return None

    def _scan(self, tx: Tx, task: Task) -> None:
        looked_at = 0
        for key in islice(task.keys, task.at, task.at + KEYS_PER_TICK):
            if looked_at == ROWS_PER_TICK:
                return
            task.at += 1
            if key.startswith(task.prefix) and self._index.may_be_asked(
                key, finished=task.comparison.concerns_finished
            ):
                looked_at += 1
                if self._untouched(tx, task, key):
                    task.open[key] = (0, 0)

    @staticmethod
    def _untouched(tx: Tx, task: Task, key: bytes) -> bool:
        row = tx.get(key)
        return row is not None and task.comparison.must_ask(row)

    def _ask(self, tx: Tx, task: Task, now_ms: int, budget: int) -> None:
        due = [key for key, (again_at, _) in task.open.items() if again_at <= now_ms]
        for key in due[:budget]:
            row = tx.get(key)
            if row is None or not task.comparison.must_ask(row):
                del task.open[key]
                continue
            address = {"source": row["source"], "queue": row["queue"], "job_id": row["id"]}
            self._outputs.probe(tx, key, address, deadlines.VERIFY, now_ms)
            _, tries = task.open[key]
            task.open[key] = (now_ms + min(FIRST_RETRY_MS << min(tries, 10), MAX_RETRY_MS), tries + 1)

    def _tell(self, tx: Tx, task: Task, now_ms: int) -> None:
        comparison, partition = task.comparison, self._partition
        corrected = self._comparisons.corrected_in(comparison.name, partition)
        value = {
            "status": "compared",
            "request": comparison.request,
            "partition": partition,
            "corrected": corrected - comparison.corrected_before[partition],
            "closed": task.closed,
        }
        mark = f"compared/{comparison.request}/{partition}"
        self._outputs.health(tx, "snapshot", value, now_ms, mark, comparison.name)

    def committed(self, staged: Mapping[bytes, Row | None], done: Comparison | None) -> None:
        """A batch is on Kafka: what it changed need not be asked about any more."""
        if done is not None:
            done.compared.add(self._partition)
            self._task = None
        if self._task is not None and self._task.open:
            self._answered(self._task, staged)

    @staticmethod
    def _answered(task: Task, staged: Mapping[bytes, Row | None]) -> None:
        keys: Collection[bytes] = task.open.keys() & staged.keys()
        for key in keys:
            del task.open[key]
            task.closed += staged[key] is None
