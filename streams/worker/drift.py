"""How far the table is from Redis: the bridge counts jobs by place, the worker by state; both should agree.

Each partition's owner tells its counts on `health`; the worker that has partition 0 adds them up (`counts.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from streams.core import lifecycle as lc

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
FORGOTTEN_S: Final = 600.0
"""A queue without a heartbeat for so long is gone."""
COMPARED: Final = (lc.WAITING, lc.ACTIVE, lc.DELAYED, lc.PAUSED)
"""Finished jobs stay in the table when BullMQ has forgotten them: their counts need not agree."""

Queue = tuple[str, str]


def by_state(heartbeat: Mapping[str, Any]) -> dict[str, int]:
    """Jobs by our states, out of a heartbeat's counts by place. A stuck job is in BullMQ's active list."""
    counts: dict[str, int] = dict.fromkeys(COMPARED, 0)
    for place, count in (heartbeat.get("counts") or {}).items():
        source_state = lc.SOURCE_STATE_OF_PLACE.get(place)
        if source_state is None:
            continue
        paused = place == "paused" or bool(heartbeat.get("paused"))
        state = lc.state_of(source_state, queue_paused=paused)
        if state in counts:
            counts[state] += count
    return counts


def drift(
    jobs: Mapping[tuple[str, ...], float],
    redis: Mapping[Queue, Mapping[str, int]],
    lost: Mapping[Queue, int],
) -> dict[tuple[str, ...], float]:
    """The table's count less the one in Redis, for each queue that both know.

    A stuck job is in BullMQ's active list, but for the `lost`, which are in none of its places.
    """
    found: dict[tuple[str, ...], float] = {}
    for queue, counts in redis.items():
        for state, count in counts.items():
            ours = jobs.get((*queue, state), 0)
            if state == lc.ACTIVE:
                ours += jobs.get((*queue, lc.STUCK), 0) - lost.get(queue, 0)
            found[*queue, state] = ours - count
    return found


class Heartbeats:
    """The newest counts of each queue, as the bridge tells them on `health`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._heard: dict[Queue, float] = {}
        self.counts: dict[Queue, dict[str, int]] = {}

    def take(self, record: Mapping[str, Any]) -> None:
        """Remember a heartbeat; anything else on `health` is passed over. Raises what a strange record leads to:
        KeyError, TypeError, ValueError, AttributeError.
        """
        source, queue = record["source"], record["queue"]
        if record["type"] == "heartbeat" and isinstance(source, str) and isinstance(queue, str):
            self._note((source, queue), by_state(record))

    def _note(self, queue: Queue, counts: dict[str, int]) -> None:
        now = self._now_s()
        self.counts[queue] = counts
        self._heard.pop(queue, None)
        self._heard[queue] = now
        while now - self._heard[first := next(iter(self._heard))] > FORGOTTEN_S:
            del self._heard[first], self.counts[first]
