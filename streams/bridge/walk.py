"""Walks over a queue's jobs, page by page: after a pause or resume, and to compare the whole queue.

While a walk goes on, jobs come and go. Pages are numbered from the end of a list or set that does not
move away under it, so jobs may be met twice, but none that stays is passed over.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from streams.bridge import bullmq

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.bridge.bullmq import Keys
    from streams.bridge.ids import Id

PAUSE_PAGE: Final = 1000
SNAPSHOT_PAGE: Final = 1000
_PAUSE_PLACES: Final = ("wait", "paused", "prioritized")
_OVERLAP: Final = 20
WAITING_IN: Final = ("wait", "paused")
_MARGIN: Final = 200
"""So far may a list have shifted since its page was read."""
SNAPSHOT: Final = "snapshot"

FIRST_SIGHT: Final = "first_sight"
GAP: Final = "gap"
FAILOVER: Final = "failover"
DRIFT: Final = "drift"
REQUEST: Final = "request"
REASONS: Final = frozenset((FIRST_SIGHT, GAP, FAILOVER, DRIFT, REQUEST))
_LONGEST_QUEUE: Final = 64
_LONGEST_REST_S: Final = 30.0


@dataclass(slots=True, frozen=True)
class Begin:
    """What a comparison's looks are newer than: the stream's place and Redis' clock when it began."""

    epoch: int
    at: Id
    observed_at: int


@dataclass(slots=True)
class Walk:
    """Where a walk stands: the place, and how many of its elements have been passed.

    A comparison answers `requests` (request → reason) at once; `told` are those whose start has been told.
    """

    reason: str
    places: deque[str]
    page: int
    from_tail: bool
    passed: int = 0
    ids: dict[str, None] = field(default_factory=dict)
    jobs: int = 0
    done: int = 0
    told_at: float = 0.0
    requests: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    begin: Begin | None = None
    begun_s: float = field(default_factory=time.monotonic)
    settled_at: Id | None = None
    waits_in: str | None = None
    page_at: int = 0

    @property
    def looks(self) -> bool:
        """Whether each job is looked at; else its place in the page is all that is told."""
        return self.reason == SNAPSHOT

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for it: a queue that is read for the first time, a pause. Else it goes at its pace."""
        return not self.looks or FIRST_SIGHT in self.requests.values()

    @property
    def request(self) -> str | None:
        """The id that its looks carry."""
        return next(iter(self.requests), None)

    @property
    def over(self) -> bool:
        """Nothing left to page through or to look at."""
        return not self.places and not self.ids

    @property
    def took_ms(self) -> int:
        """Since it was begun."""
        return int((time.monotonic() - self.begun_s) * 1000)

    def is_settled(self, position: Id, last_look: Id | None) -> bool:
        """Whether all its looks have been handed on. `last_look` = the entry that the newest look made waits for.

        None where none waits: those that waited for an entry that was trimmed are given up, and made again.
        """
        if not self.over:
            return False
        if self.settled_at is None:
            self.settled_at = position if last_look is None else last_look
        return last_look is None or position >= self.settled_at

    def command(self, keys: Keys) -> bytes:
        """The read of the next page."""
        place, first, last = self.places[0], self.passed, self.passed + self.page - 1
        if self.from_tail and place in bullmq.LISTS:
            return keys.page(place, -last - 1, -first - 1)
        return keys.page(place, first, last)

    def turn(self, elements: list[str]) -> tuple[str, list[str]]:
        """The place and the elements of a page, BullMQ 4's markers among them, and on to the next."""
        place = self.places[0]
        self.waits_in, self.page_at = place if place in WAITING_IN else None, self.passed
        if len(elements) < self.page:
            self.places.popleft()
            self.passed = 0
        else:
            self.passed += self.page - _OVERLAP
        return place, elements

    def around(self, keys: Keys) -> list[bytes]:
        """The read of the last page once more, and a bit on both sides; of a list alone, sets tell of themselves."""
        if not self.looks or self.waits_in is None:
            return []
        return [keys.page(self.waits_in, max(self.page_at - _MARGIN, 0), self.page_at + self.page + _MARGIN)]

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


def comparing_walk(requests: Mapping[str, str]) -> Walk:
    """All jobs of a queue."""
    return Walk(SNAPSHOT, deque(bullmq.PLACES), SNAPSHOT_PAGE, from_tail=False, requests=dict(requests))


@dataclass(slots=True)
class Comparisons:
    """The comparisons of one queue: one at a time; what is asked for meanwhile, all of it, is the next.

    `waiting` and `running` by request: an id that whoever asked knows, or one made here.
    """

    waiting: dict[str, str] = field(default_factory=dict)
    running: Walk | None = None
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=_LONGEST_QUEUE))
    rest_until_s: float = 0.0

    @property
    def pending(self) -> list[list[str]]:
        """`[reason, request]` of all that has not been finished: to be begun again after a stop."""
        running = {} if self.running is None else self.running.requests
        return [[reason, request] for request, reason in {**running, **self.waiting}.items()]

    def ask(self, reason: str, request: str = "") -> bool:
        """Compare soon. Asked again while it runs, its start is told again; asked again later, nothing is done.

        False where too many wait already.
        """
        if self.running is not None and request in self.running.requests:
            self.running.told.discard(request)
            return True
        if request in self.waiting or request in self.ended or (not request and reason in self.waiting.values()):
            return True
        if len(self.waiting) >= _LONGEST_QUEUE:
            return False
        self.waiting[request or secrets.token_hex(8)] = reason
        return True

    def is_due(self, now_s: float) -> bool:
        """Whether one is to be begun now. A queue that goes on losing entries is not compared without a pause."""
        if not self.waiting or self.running is not None:
            return False
        return now_s >= self.rest_until_s or any(reason != GAP for reason in self.waiting.values())

    def begin(self) -> Walk:
        """The next one, which answers all that waits."""
        self.running = comparing_walk(self.waiting)
        self.waiting.clear()
        return self.running

    def end(self, now_s: float) -> None:
        """The one that runs is finished."""
        if self.running is not None:
            self.rest_until_s = now_s + min(self.running.took_ms / 1000 + 1.0, _LONGEST_REST_S)
            self.ended.extend(self.running.requests)
            self.running = None

    def begin_again(self) -> None:
        """What has been compared so far was another history: what runs waits again, before the others."""
        if self.running is not None:
            self.waiting = {**self.running.requests, **self.waiting}
            self.running = None
