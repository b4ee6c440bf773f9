"""Repair of this worker's partitions: their parts of comparisons, what they tell of their counts, what they ask for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from streams.core.row import Row
from streams.engine import Tx
from streams.worker.comparisons import Comparison, Comparisons, Queue
from streams.worker.counts import Balance, Told
from streams.worker.index import PartitionIndex
from streams.worker.meters import JUDGE
from streams.worker.outputs import Outputs
from streams.worker.repair import FoldedTo, PartitionRepair


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

    def assigned(self, partition: int, index: PartitionIndex) -> None:
        """The rows of a partition are complete. All its counts are told anew: their reader may be new as well."""
        repair = PartitionRepair(partition, index, self._comparisons, self._outputs, self.folded_to)
        self._parts[partition] = (index, repair, Told())

    def revoked(self, partition: int) -> None:
        """It is somebody else's now."""
        self._parts.pop(partition, None)

    def on_tick(self, tx: Tx, now_ms: int, budget: int) -> Comparison | None:
        """What is due; returns the comparison that is told to be done, for `committed`."""
        found = self._parts.get(tx.partition)
        if found is None:
            return None
        index, repair, told = found
        for counts, whole in told.due(index.counts, index.lost, now_ms):
            value = {"partition": tx.partition, "counts": counts, "whole": whole}
            self._outputs.health(tx, "table", value, now_ms, str(tx.partition), None)
        if tx.partition == JUDGE:
            self._judge(tx, now_ms)
        return repair.on_tick(tx, now_ms, budget)

    def _judge(self, tx: Tx, now_ms: int) -> None:
        asked = self._balance.due(now_ms, secrets.token_hex(8))
        if asked is not None:
            queue, request = asked
            self._outputs.compare(tx, queue, "drift", request, now_ms)

    def committed(
        self,
        partition: int,
        staged: Mapping[bytes, Row | None],
        done: Comparison | None,
        corrected: Mapping[Queue, int],
    ) -> None:
        """A batch is on Kafka."""
        found = self._parts.get(partition)
        if found is not None:
            self._comparisons.note_corrected(partition, corrected)
            found[1].committed(staged, done)
