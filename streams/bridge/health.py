"""What the bridge tells of itself on `health`: heartbeats, gaps, snapshots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import encode
from streams.bridge.stream import format_id
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.bridge.metrics import Metrics
    from streams.bridge.publish import Chunk
    from streams.bridge.sequencer import Gap
    from streams.bridge.stream import Stream
    from streams.bridge.walk import Walk

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 10.0


class Health:
    """Records of one source, put into the chunks that go out anyway."""

    def __init__(self, metrics: Metrics) -> None:
        """`metrics` gets what concerns gaps."""
        self._metrics = metrics
        self.due = False

    def beat(self, streams: Iterable[Stream], chunk: Chunk) -> None:
        """A heartbeat per queue, if it is time."""
        if not self.due:
            return
        self.due = False
        at = wall_ms()
        for stream in streams:
            value = {
                "position": format_id(stream.position),
                "lag_ms": max(0, stream.read_to[0] - stream.position[0]),
                "entries_read": stream.entries_read,
                "entries_lost": stream.entries_lost,
                "paused": stream.paused,
                "counts": stream.counts,
            }
            self._tell(stream, "heartbeat", value, at, chunk)

    def gaps(self, stream: Stream, gaps: Iterable[Gap], chunk: Chunk) -> None:
        """Entries that were never read."""
        at = wall_ms()
        for gap in gaps:
            ids = {"from_id": format_id(gap.after), "to_id": format_id(gap.upto)}
            self._tell(stream, "gap", {**ids, "lost": gap.lost, "cause": gap.cause}, at, chunk, ids["to_id"])
            log.warning("gap in queue %s of source %s: %s", stream.queue, stream.source, gap)
            labels = {"source": stream.source, "queue": stream.queue}
            self._metrics.inc("bridge_gaps_total", 1, labels)
            self._metrics.inc("bridge_entries_lost_total", gap.lost or 0, labels)

    def snapshot(self, stream: Stream, walk: Walk, chunk: Chunk) -> None:
        """Begin, progress every few seconds, end of a snapshot."""
        status = "finished" if walk.over and not stream.looks else "progress"
        if not walk.started:
            walk.started = True
            self._snapshot(stream, walk, "started", chunk)
            walk.due()
        if status == "finished" or walk.due():
            self._snapshot(stream, walk, status, chunk)

    def _snapshot(self, stream: Stream, walk: Walk, status: str, chunk: Chunk) -> None:
        value = {"status": status, "reason": "first_sight", "jobs": walk.jobs, "done": walk.done}
        self._tell(stream, "snapshot", value, wall_ms(), chunk, status)

    def _tell(self, stream: Stream, kind: str, value: dict[str, Any], at: int, chunk: Chunk, mark: str = "") -> None:
        value = {"source": stream.source, "queue": stream.queue, "at": at, **value}
        ce_id = f"{stream.name}/{kind}/{mark}{'/' if mark else ''}{at}"
        chunk.records.append(encode.health(stream.name, kind, value, at, ce_id))
