"""What the bridge tells of itself on `health`: heartbeats, gaps, snapshots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import encode
from streams.bridge.ids import format_id
from streams.bridge.refusal import printable
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.bridge.metrics import Metrics
    from streams.bridge.publish import Chunk
    from streams.bridge.sequencer import Gap
    from streams.bridge.stream import Stream
    from streams.bridge.walk import Begin, Walk

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 10.0


class Health:
    """Records of one source, put into the chunks that go out anyway."""

    def __init__(self, metrics: Metrics) -> None:
        """`metrics` gets what concerns gaps."""
        self._metrics = metrics
        self.due: set[Stream] = set()

    def beat(self, streams: Iterable[Stream], chunk: Chunk) -> None:
        """A heartbeat of each of these queues whose time it is."""
        if not self.due:
            return
        due, self.due = self.due, set()
        at = wall_ms()
        for stream in due.intersection(streams):
            value = {
                "epoch": stream.epoch,
                "position": format_id(stream.position),
                "lag_ms": max(0, stream.read_to[0] - stream.position[0]),
                "entries_read": stream.entries_read,
                "entries_lost": stream.entries_lost,
                "paused": stream.paused,
                "counts": stream.counts,
            }
            self._tell(stream, "heartbeat", value, at, chunk)

    def gaps(self, stream: Stream, gaps: Iterable[Gap], chunk: Chunk) -> None:
        """Entries that were never read, and histories that ended."""
        at = wall_ms()
        for gap in gaps:
            ids = {"from_id": format_id(gap.after), "to_id": format_id(gap.upto)}
            value = {**ids, "lost": gap.lost, "undone": gap.undone, "cause": gap.cause, "epoch": gap.epoch}
            self._tell(stream, "gap", value, at, chunk, ids["to_id"])
            log.warning("gap in queue %s of source %s: %s", printable(stream.queue), stream.source, gap)
            labels = {"source": stream.source, "queue": stream.queue}
            self._metrics.inc("bridge_gaps_total", 1, labels)
            self._metrics.inc("bridge_entries_lost_total", gap.lost or 0, labels)

    def comparison(self, stream: Stream, walk: Walk, chunk: Chunk, *, finished: bool) -> None:
        """Begin, progress every few seconds, end of a comparison, for each that asked for it."""
        if walk.begin is None:
            return
        due = walk.due()
        for request, reason in walk.requests.items():
            value = {"reason": reason, "request": request, "jobs": walk.jobs, "done": walk.done}
            if request not in walk.told:
                walk.told.add(request)
                self._snapshot(stream, "started", {**value, **_began(walk.begin)}, chunk)
            if finished:
                self._snapshot(stream, "finished", {**value, "took_ms": walk.took_ms}, chunk)
            elif due:
                self._snapshot(stream, "progress", value, chunk)

    def _snapshot(self, stream: Stream, status: str, value: dict[str, Any], chunk: Chunk) -> None:
        mark = f"{status}/{value['request']}"
        self._tell(stream, "snapshot", {"status": status, **value}, wall_ms(), chunk, mark)

    def _tell(self, stream: Stream, kind: str, value: dict[str, Any], at: int, chunk: Chunk, mark: str = "") -> None:
        value = {"source": stream.source, "queue": stream.queue, "at": at, **value}
        ce_id = f"{stream.name}/{kind}/{mark}{'/' if mark else ''}{at}"
        chunk.records.append(encode.health(stream.name, kind, value, at, ce_id))


def _began(begin: Begin) -> dict[str, Any]:
    return {"epoch": begin.epoch, "stream_id": format_id(begin.at), "observed_at": begin.observed_at}
