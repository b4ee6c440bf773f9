"""Queues that cannot be read: why, since when, and what is told of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from streams.bridge import encode
from streams.bridge.bullmq import raw
from streams.bridge.link import is_refusal
from streams.clock import wall_ms
from streams.core.job import escape
from streams.escape import printable as escape_text

if TYPE_CHECKING:
    from streams.bridge.metrics import Metrics
    from streams.bridge.publish import Chunk

log = logging.getLogger(__name__)

Reason = Literal["wrong_type", "no_permission", "bad_name", "unreadable"]
REASONS: Final[tuple[Reason, ...]] = ("wrong_type", "no_permission", "bad_name", "unreadable")
LONGEST_NAME_BYTES: Final = 1000
"""Kafka's keys, label values and log lines all carry a queue's name."""
_TOLD_CHARACTERS: Final = 200
_LINES_AT_ONCE: Final = 20
_LONGEST_PAUSE: Final = 32
_TOLD_AGAIN_S: Final = 600.0
"""Who looks at the newest records alone is to find it too."""


def printable(text: str) -> str:
    r"""A name or an error for a terminal or a line of a log, bytes that are no text as `\xff`. Shortened if long."""
    shown = escape_text(raw(text).decode("utf-8", "backslashreplace"), _TOLD_CHARACTERS)
    return shown if len(shown) <= _TOLD_CHARACTERS else f"{shown[:_TOLD_CHARACTERS]}…"


def bad_name(queue: str) -> str | None:
    """What is wrong with a queue's name, None where nothing is."""
    try:
        size = len(queue.encode())
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    return f"the name has {size:,} bytes" if size > LONGEST_NAME_BYTES else None


def reason_of(error: BaseException) -> Reason:
    """Which of REASONS an exception is."""
    if is_refusal(error):
        text = str(error)
        if "WRONGTYPE" in text or "wrong kind of value" in text:
            return "wrong_type"
        if "NOPERM" in text or "permission" in text:
            return "no_permission"
    return "unreadable"


def replies(answer: list[Any] | Exception) -> list[Any]:
    """What Redis has answered to a queue's commands. Raises what it was refused with."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def said_by(error: BaseException) -> str:
    """Redis' own words; of any other exception type and place, since its text may hold data."""
    return printable(str(error)) if is_refusal(error) else encode.where(error)


@dataclass(slots=True)
class Refusal:
    """Why a queue is not read. It is looked at again after `pause` discoveries."""

    reason: Reason
    error: str
    pause: int = 0
    tries: int = 0
    told_at_s: float = 0.0


class Refusals:
    """Those of one source."""

    def __init__(self, source: str, metrics: Metrics) -> None:
        """`metrics` counts them."""
        self._source = source
        self._metrics = metrics
        self._queues: dict[str, Refusal] = {}
        self._untold: list[dict[str, Any]] = []
        self._lines = 0
        self._counts: Counter[str] = Counter()

    def __contains__(self, queue: str) -> bool:
        return queue in self._queues

    def __iter__(self) -> Any:
        return iter(list(self._queues))

    def add(self, queue: str, reason: Reason, error: str) -> None:
        """A queue is passed over; told where that is news."""
        known = self._queues.get(queue)
        tries = known.tries + 1 if known is not None and reason == "unreadable" else 0
        # A right or a key is mended by somebody; what failed inside would fail the same way again, so it waits longer.
        pause = min(2**tries - 1, _LONGEST_PAUSE)
        told_at_s = 0.0 if known is None else known.told_at_s
        self._queues[queue] = Refusal(reason, error, pause, tries, told_at_s)
        if known is None or known.reason != reason:
            if known is not None:
                self._count(known.reason, -1)
            self._count(reason, 1)
            self._tell(queue, "refused", reason, error)

    def remove(self, queue: str) -> None:
        """It is read, or gone."""
        known = self._queues.pop(queue, None)
        if known is not None:
            self._count(known.reason, -1)
            self._tell(queue, "readmitted", known.reason, known.error)

    def due(self, queue: str) -> bool:
        """Whether it is to be looked at again in this discovery; to be asked once in each."""
        refusal = self._queues[queue]
        refusal.pause -= 1
        return refusal.pause < 0

    def begin(self) -> None:
        """A discovery begins: so many lines more may be logged, and what was told long ago is told again."""
        if self._lines > _LINES_AT_ONCE:
            log.warning("and %d queues more of source %s like that", self._lines - _LINES_AT_ONCE, self._source)
        self._lines = 0
        now_s = time.monotonic()
        for queue, refusal in self._queues.items():
            if refusal.told_at_s + _TOLD_AGAIN_S <= now_s:
                self._record(queue, "refused", refusal.reason, refusal.error)

    def _record(self, queue: str, status: str, reason: Reason, error: str) -> None:
        if queue in self._queues:
            self._queues[queue].told_at_s = time.monotonic()
        name = printable(queue)
        self._untold.append(
            {"source": self._source, "queue": name, "at": wall_ms(), "status": status, "reason": reason, "error": error}
        )

    def _tell(self, queue: str, status: str, reason: Reason, error: str) -> None:
        self._record(queue, status, reason, error)
        name = printable(queue)
        self._lines += 1
        if self._lines <= _LINES_AT_ONCE:
            level = logging.WARNING if status == "refused" else logging.INFO
            log.log(level, "queue %s of source %s %s: %s, %s", name, self._source, status, reason, error)

    def _count(self, reason: Reason, more: int) -> None:
        self._counts[reason] += more
        self._metrics.set("bridge_queues_refused", self._counts[reason], {"source": self._source, "reason": reason})

    def tell(self, chunk: Chunk) -> None:
        """What is news, as records on health."""
        for value in self._untold:
            name = f"{escape(self._source)}/{escape(value['queue'])}"
            ce_id = f"{name}/refused/{value['status']}/{value['at']}"
            chunk.records.append(encode.health(name, "refused", value, value["at"], ce_id))
        self._untold.clear()
