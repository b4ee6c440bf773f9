"""Gauges that are worked out when somebody asks: how far the commits are behind, and what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.bridge.buffer import WHATS
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Collection

    from streams.bridge.buffer import Buffer
    from streams.bridge.metrics import Asked
    from streams.bridge.source import Source
    from streams.bridge.stream import Stream


class Gauges:
    """Of all sources together."""

    def __init__(self, metrics: Asked, buffer: Buffer, sources: Collection[Source]) -> None:
        """Nothing is kept up to date in between."""
        self._metrics = metrics
        self._buffer = buffer
        self._sources = sources

    def refresh(self) -> None:
        """As it is now; queues that are gone are not named any more."""
        streams = [(source.name, stream) for source in self._sources for stream in source.streams]
        buffered: dict[tuple[str, ...], float] = {(name, stream.queue): len(stream.buffer) for name, stream in streams}
        now = wall_ms()
        lags: dict[tuple[str, ...], float] = {(name, stream.queue): lag_s(stream, now) for name, stream in streams}
        self._metrics.replace("bridge_buffered_entries", buffered)
        self._metrics.replace("bridge_source_lag_seconds", lags)
        held: dict[tuple[str, ...], float] = {(what,): self._buffer.held[what] for what in WHATS}
        self._metrics.replace("bridge_memory_held_bytes", held)


def lag_s(stream: Stream, now_ms: int) -> float:
    """How long ago the first entry was written that is not on Kafka; 0 where none is missing.

    Of entries not read yet only the last is known: the time since the last one on Kafka is then the most it can be.
    """
    if stream.committed >= max(stream.last, stream.newest):
        return 0.0
    first = stream.buffer[0][0].partition("-")[0] if stream.buffer else None
    since_ms = int(first) if first else min(stream.newest, stream.last)[0]
    return max(now_ms - since_ms, 0) / 1000
