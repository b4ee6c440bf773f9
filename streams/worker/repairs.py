"""Repair of this worker's partitions: their parts of comparisons, what they tell of their counts, what they ask for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from streams.core.row import Row
from streams.engine import Tx
from streams.worker.comparisons import Comparison, Comparisons, Queue
from streams.worker.counts import JUDGE, Balance, Telling, Told
from streams.worker.index import PartitionIndex
from streams.worker.outputs import Outputs
from streams.worker.repair import FoldedTo, PartitionRepair


def gap(partition: int, offsets: int) -> dict[str, Any]:
    """Records of `events` that expired before they were read; which queues' they were nobody knows."""
    unknown = dict.fromkeys(("from_id", "to_id", "lost", "undone"))
    return {**unknown, "cause": "expired", "epoch": 0, "partition": partition, "offsets": offsets}


class Repaired(NamedTuple):
    """What a tick has told: `done` = the comparison that is over, `telling` = the counts."""

    done: Comparison | None
    telling: Telling | None


class Repairs:
    """By partition."""

    def __init__(
        self,
        outputs: Outputs,
        comparisons: Comparisons | None = None,
        balance: Balance | None = None,
    ) -> None:
        self._outputs = outputs
        self._comparisons = comparisons or Comparisons()
        self._balance = balance or Balance()
        self.folded_to: FoldedTo = lambda _: None
        """The engine's, once there is one: until then nothing is compared."""
        self._parts: dict[int, tuple[PartitionIndex, PartitionRepair, Told]] = {}
        self._expired: dict[int, int] = {}

    def assigned(self, partition: int, index: PartitionIndex) -> None:
        """The rows of a partition are complete. All its counts are told anew: their reader may be new as well."""
        repair = PartitionRepair(partition, index, self._comparisons, self._outputs, self.folded_to)
        self._parts[partition] = (index, repair, Told())

    def revoked(self, partition: int) -> None:
        """It is somebody else's now."""
        self._parts.pop(partition, None)
        self._expired.pop(partition, None)

    def expired(self, partition: int, offsets: int) -> None:
        """At most so many records of a partition were never read: told with its next tick."""
        self._expired[partition] = offsets

    def on_tick(self, tx: Tx, now_ms: int, budget: int) -> Repaired | None:
        """What is due; returns what it has told, for `committed`."""
        found = self._parts.get(tx.partition)
        if found is None:
            return None
        index, repair, told = found
        if tx.partition in self._expired:
            value = gap(tx.partition, self._expired[tx.partition])
            self._outputs.health(tx, "gap", value, now_ms, str(tx.partition), None)
        telling = told.due(index.counts, index.lost, now_ms)
        for number, (counts, whole) in enumerate(telling.records if telling else ()):
            value = {"partition": tx.partition, "counts": counts, "whole": whole}
            self._outputs.health(tx, "table", value, now_ms, f"{tx.partition}.{number}", None)
        if tx.partition == JUDGE:
            self._judge(tx, now_ms)
        return Repaired(repair.on_tick(tx, now_ms, budget), telling)

    def _judge(self, tx: Tx, now_ms: int) -> None:
        asked = self._balance.due(now_ms, secrets.token_hex(8))
        if asked is not None:
            self._outputs.compare(tx, asked.queue, asked.reason, asked.request, now_ms)

    def committed(
        self,
        partition: int,
        staged: Mapping[bytes, Row | None],
        repaired: Repaired | None,
        corrected: Mapping[Queue, int],
    ) -> None:
        """A batch is on Kafka; `repaired` = what its tick has told, None where there was none."""
        found = self._parts.get(partition)
        if found is None:
            return
        _, repair, told = found
        self._comparisons.note_corrected(partition, corrected)
        repair.committed(staged, repaired.done if repaired else None)
        if repaired:
            self._expired.pop(partition, None)
            if repaired.telling:
                told.said(repaired.telling)
