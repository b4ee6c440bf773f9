"""How walks and comparisons go on from turn to turn: begun, told of, ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streams.bridge.walk import FAILOVER, GAP, pause_walk

if TYPE_CHECKING:
    from streams.bridge.health import Health
    from streams.bridge.metrics import Metrics
    from streams.bridge.publish import Chunk
    from streams.bridge.sequencer import Taken
    from streams.bridge.stream import Stream


def walk_on(stream: Stream, taken: Taken, chunk: Chunk, health: Health, metrics: Metrics) -> None:
    """End walks that are over, begin the one that a pause asks for, and the comparison that is due."""
    over = [walk for walk in stream.walks if not walk.looks and walk.over and not stream.looks]
    if over:
        stream.walks = [walk for walk in stream.walks if walk not in over]
        stream.dirty = True
    if taken.pause_changes:
        stream.walks = [walk for walk in stream.walks if walk.looks]
        stream.walks.append(pause_walk(paused=taken.pause_changes[-1]))
        stream.dirty = True
    _end(stream, chunk, health)
    for gap in taken.gaps:
        stream.comparisons.ask(GAP if gap.cause in ("trimmed", "reset") else FAILOVER)
        stream.dirty = True
    _begin(stream, metrics)


def _end(stream: Stream, chunk: Chunk, health: Health) -> None:
    """Tell how far the comparison has come, and end it once all its looks are handed on."""
    running = stream.comparisons.running
    if running is None:
        return
    finished = running.is_settled(stream.position, stream.looks[-1].after if stream.looks else None)
    health.comparison(stream, running, chunk, finished=finished)
    if finished:
        stream.walks.remove(running)
        stream.comparisons.end(time.monotonic())
        stream.dirty = True


def _begin(stream: Stream, metrics: Metrics) -> None:
    if not stream.comparisons.is_due(time.monotonic()):
        return
    walk = stream.comparisons.begin()
    stream.walks.append(walk)
    for reason in walk.requests.values():
        metrics.inc("bridge_snapshots_total", 1, {"reason": reason})
