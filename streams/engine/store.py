"""The table: rows of each partition as published bytes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import faust
from faust.stores import memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faust.types.tuples import TP

    from streams.engine.api import ConsumerRecord


class PartitionStore(memory.Store):
    """partition → key → row bytes.

    Bytes cost nothing to restore, give every reader a copy of its own, and the garbage collector does not
    walk them.
    """

    parts: defaultdict[int, dict[bytes, bytes]]
    offsets: dict[int, int]
    """Last changelog offset contained in the rows of a partition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts = defaultdict(dict)
        self.offsets = {}

    def load(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Take a whole fetch of the changelog."""
        rows = self.parts[partition]
        for record in records:
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
        self.offsets[partition] = records[-1].offset

    def apply(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], offset: int | None) -> None:
        """Take committed rows; `offset` is that of the last one, None when there was none."""
        live = self.parts[partition]
        for key, raw in rows:
            if raw is None:
                live.pop(key, None)
            else:  # a copy: what an encoder returns may hold on to a larger buffer than it fills
                live[key] = bytes(memoryview(raw))
        if offset is not None:
            self.offsets[partition] = offset

    def persisted_offset(self, tp: TP) -> int:
        """Where recovery starts. -1 is the beginning; with None Faust would go on from an offset of its own."""
        return self.offsets.get(tp.partition, -1)

    async def on_rebalance(
        self,
        assigned: set[TP],  # noqa: ARG002 - Faust's signature
        revoked: set[TP],
        newly_assigned: set[TP],  # noqa: ARG002 - Faust's signature
        generation_id: int = 0,  # noqa: ARG002 - Faust's signature
    ) -> None:
        """Drop the rows of partitions that are no longer ours, neither active nor standby."""
        for tp in revoked:
            if tp.topic == self.table.changelog_topic_name:
                self.parts.pop(tp.partition, None)
                self.offsets.pop(tp.partition, None)

    async def on_recovery_completed(self, active: set[TP], standby: set[TP]) -> None:  # noqa: ARG002 - Faust
        """Hand restored partitions to the engine, or end the process: better dead than a table with a hole."""
        # A partition that was not seeked in this assignment belongs to a recovery that is being replaced.
        sought = {tp for tp in active if tp in self.app.consumer.sought}
        for tp in sought:
            have, want = self._restored(tp)
            if have < want:
                await self.app.crash(RuntimeError(f"{tp}: restored up to offset {have} of {want}"))
                return
        try:
            await self.app.engine.recovered({tp.partition for tp in sought})
        except Exception as error:  # noqa: BLE001 - Faust would swallow it and go on with half an index
            await self.app.crash(error)

    def _restored(self, tp: TP) -> tuple[int, int]:
        """The offset a partition was restored up to, and the one it had to reach."""
        recovery = self.app.tables.recovery
        seen = recovery.active_offsets.get(tp)
        have = max(self.offsets.get(tp.partition, -1), -1 if seen is None else seen)
        return have, recovery.active_highwaters.get(tp, -1)


class BatchTable(faust.Table):
    """A table kept in a PartitionStore, changed by the engine alone."""

    def _new_store(self) -> Any:
        return PartitionStore(
            "memory://",
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
        )
