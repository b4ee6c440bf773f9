"""Walks over a queue's jobs, page by page: after a pause or resume, and at first sight of a queue.

While a walk goes on, jobs come and go. Pages are numbered from the end of a list or set that does not
move away under it, so jobs may be met twice, but none that stays is passed over.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from streams.bridge import bullmq

if TYPE_CHECKING:
    from streams.bridge.bullmq import Keys

PAUSE_PAGE: Final = 1000
SNAPSHOT_PAGE: Final = 1000
_PAUSE_PLACES: Final = ("wait", "paused", "prioritized")
_OVERLAP: Final = 20


@dataclass(slots=True)
class Walk:
    """Where a walk stands: the place, and how many of its elements have been passed."""

    reason: str
    places: deque[str]
    page: int
    from_tail: bool
    passed: int = 0
    ids: deque[str] = field(default_factory=deque)
    jobs: int = 0
    done: int = 0
    told_at: float = 0.0
    started: bool = False

    @property
    def looks(self) -> bool:
        """Whether each job is looked at; else its place in the page is all that is told."""
        return self.reason == "snapshot"

    @property
    def over(self) -> bool:
        """Nothing left to page through or to look at."""
        return not self.places and not self.ids

    def command(self, keys: Keys) -> bytes:
        """The read of the next page."""
        place, first, last = self.places[0], self.passed, self.passed + self.page - 1
        if self.from_tail and place in bullmq.LISTS:
            return keys.page(place, -last - 1, -first - 1)
        return keys.page(place, first, last)

    def turn(self, elements: list[str]) -> tuple[str, list[str]]:
        """The place and the elements of a page, BullMQ 4's markers among them, and on to the next."""
        place = self.places[0]
        if len(elements) < self.page:
            self.places.popleft()
            self.passed = 0
        else:
            self.passed += self.page - _OVERLAP
        return place, elements

    def due(self, interval_s: float = 5.0) -> bool:
        """Whether it is time to tell how far it has come."""
        now = time.monotonic()
        if now - self.told_at < interval_s:
            return False
        self.told_at = now
        return True


def pause_walk(*, paused: bool) -> Walk:
    """All jobs to which a pause or resume matters.

    Paused, a list only grows at its head: counted from the tail, nothing shifts. Resumed, workers take
    from the tail: counted from the head.
    """
    return Walk("pause" if paused else "resume", deque(_PAUSE_PLACES), PAUSE_PAGE, from_tail=paused)


def snapshot_walk() -> Walk:
    """All jobs of a queue."""
    return Walk("snapshot", deque(bullmq.PLACES), SNAPSHOT_PAGE, from_tail=False)
