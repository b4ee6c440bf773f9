"""Who is served in a turn, and with how many entries: deficit round robin over bytes. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from streams.bridge import bullmq

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.bridge.stream import Stream

ENTRIES_PER_TURN: Final = 3000
_LEAST_ENTRIES: Final = 100
_LEAST_BYTES: Final = 65_536
_STREAMS_PER_TURN: Final = 100


class Shares:
    """The streams of one source, in the order in which they are served next."""

    def __init__(self) -> None:
        """None yet."""
        self._order: deque[Stream] = deque()

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._order)

    def add(self, stream: Stream) -> None:
        """Serve it too."""
        self._order.append(stream)

    def remove(self, stream: Stream) -> None:
        """Serve it no more."""
        self._order.remove(stream)

    def idle_s(self, paced_s: float, longest_s: float) -> float:
        """How long nothing is to be done, 0 where a turn would get on; `paced_s` = until comparisons may go on."""
        if any(stream.ready for stream in self._order):
            return 0.0
        return min(paced_s, longest_s) if any(stream.walking for stream in self._order) else longest_s

    def turn(self, budget_bytes: int) -> list[tuple[Stream, int]]:
        """Streams with something to do, and how many entries each may hand on; about `budget_bytes` together.

        What a stream could not use up, since its next entry is larger, it has more of the next time.
        """
        busy = sum(1 for stream in self._order if stream.busy)
        quantum = max(budget_bytes // max(busy, 1), _LEAST_BYTES)
        most = max(ENTRIES_PER_TURN // max(busy, 1), _LEAST_ENTRIES)
        entries = ENTRIES_PER_TURN
        served: list[tuple[Stream, int]] = []
        for _ in range(len(self._order)):
            if budget_bytes <= 0 or entries <= 0 or len(served) >= _STREAMS_PER_TURN:
                break
            stream = self._order[0]
            self._order.rotate(-1)
            if not stream.busy or stream.unsure:
                continue
            count, cost = _affordable(stream, quantum, min(most, entries), budget_bytes)
            entries -= count
            budget_bytes -= cost
            served.append((stream, count))
        return served


def _affordable(stream: Stream, quantum: int, limit: int, budget_bytes: int) -> tuple[int, int]:
    """How many entries from the first on, and what they cost: all that has been saved up, but not more than is left."""
    stream.deficit += quantum
    job_bytes = int(stream.sizes.mean_bytes)
    count = spent = 0
    for size_bytes in islice(stream.held, limit):
        cost = spent + size_bytes + job_bytes
        if cost > stream.deficit or (count and cost > budget_bytes):
            break
        spent = cost
        count += 1
    # Unused where nothing more stands there: a share cannot be saved up for later.
    stream.deficit = stream.deficit - spent if count < min(limit, len(stream.held)) else 0
    return count, spent


def fitting(stream: Stream, count: int, budget_bytes: int) -> int:
    """How many of the first `count` entries fit, once the sizes of their jobs' hashes are known; one at least."""
    spent = 0
    for n, (size_bytes, entry) in enumerate(zip(islice(stream.held, count), stream.buffer, strict=False)):
        spent += size_bytes + stream.sizes.of(bullmq.job_of(entry[1])).size_bytes
        if n and spent > budget_bytes:
            return n
    return count
