"""Ask Redis what a turn needs: so many bytes at a time, each queue's failure its own, what is late in pieces."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from streams.bridge.link import PROGRESS_S, Away, Late, is_refusal
from streams.bridge.sizes import MULTI_BYTES, MULTI_JOBS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from streams.bridge.identity import Reach
    from streams.bridge.link import Link
    from streams.bridge.metrics import Metrics
    from streams.bridge.stream import Stream

_LEAST_STEP_BYTES: Final = 65_536
_MOST_COMMANDS: Final = 10_000
_LONGEST_S: Final = 60.0
_GROUP_BYTES: Final = 800
"""Reply to a head, which every group begins with."""
WHO: Final = "pump"


@dataclass(slots=True, frozen=True)
class Question:
    """One MULTI about one stream. `halves` makes smaller ones of it; none: it is left, and asked in a later turn."""

    stream: Stream
    commands: Sequence[bytes]
    expected_bytes: int
    answer: Callable[[list[Any]], None]
    halves: Callable[[], list[Question]]


class Asking:
    """The pump's questions to one Redis."""

    def __init__(self, source: str, link: Link, reach: Reach, metrics: Metrics) -> None:
        """`link` is used by nobody else."""
        self.source = source
        self._labels = {"source": source}
        self._link = link
        self._reach = reach
        self._metrics = metrics
        self._timeout_s = PROGRESS_S
        self.flight_bytes = MULTI_BYTES
        """Bytes of reply that may be on their way at once."""
        self.jobs = MULTI_JOBS
        """Jobs of one MULTI."""

    async def lengths(self, commands: list[bytes], stop: asyncio.Event) -> list[Any] | None:
        """Plain commands; None where `stop` came while Redis was away."""
        replies: list[Any] = []
        while len(replies) < len(commands):
            part = commands[len(replies) : len(replies) + _MOST_COMMANDS]
            try:
                replies += _usable(await self._link.send(part, len(part)))
            except Away as error:
                if stop.is_set():
                    return None
                await self.away(error)
        return replies

    async def all(
        self, questions: Iterable[Question], stop: asyncio.Event, failed: Callable[[Stream, Exception], None]
    ) -> bool:
        """Each question's answer; False where `stop` came while Redis was away.

        `failed` is told of a refusal, and of whatever else goes wrong with one stream's answer; no more is asked about
        that stream then.
        """
        plan = deque(questions)
        while plan:
            flight = self._flight(plan)
            try:
                answers = await self._link.transactions([each.commands for each in flight], timeout_s=self._timeout_s)
            except Away as error:
                if isinstance(error, Late):
                    self._halve(plan, flight)
                if stop.is_set():
                    return False
                await self.away(error)
                continue
            self._in_time()
            bad: set[Stream] = set()
            for question, answer in zip(flight, answers, strict=True):
                plan.popleft()
                wrong = None if question.stream in bad else _answer(question, answer)
                if wrong is not None:
                    bad.add(question.stream)
                    failed(question.stream, wrong)
            if bad:
                plan = deque(each for each in plan if each.stream not in bad)
        return True

    def _flight(self, plan: deque[Question]) -> list[Question]:
        flight: list[Question] = []
        size_bytes = commands = 0
        for question in plan:
            size_bytes += _size_bytes(question)
            commands += len(question.commands)
            if flight and (size_bytes > self.flight_bytes or commands > _MOST_COMMANDS):
                break
            flight.append(question)
        return flight

    def _halve(self, plan: deque[Question], flight: list[Question]) -> None:
        self._metrics.inc("bridge_turns_halved_total", 1, self._labels)
        self.flight_bytes = min(self.flight_bytes, sum(map(_size_bytes, flight))) // 2
        self.jobs = max(self.jobs // 2, 1)
        if len(flight) > 1:
            return
        halves = plan.popleft().halves()
        if len(halves) == 1:  # it cannot be made smaller, so it gets more time
            self._timeout_s = min(self._timeout_s * 2, _LONGEST_S)
        plan.extendleft(reversed(halves))

    async def away(self, error: Exception) -> None:
        """Wait before the next try."""
        await self._reach.wait(error, WHO)

    def _in_time(self) -> None:
        self._reach.over(WHO)
        self._timeout_s = PROGRESS_S
        self.flight_bytes = min(self.flight_bytes + max(self.flight_bytes // 4, _LEAST_STEP_BYTES), MULTI_BYTES)
        self.jobs = min(self.jobs + self.jobs // 4 + 1, MULTI_JOBS)


def _size_bytes(question: Question) -> int:
    return question.expected_bytes + _GROUP_BYTES


def _answer(question: Question, answer: list[Any] | ResponseError) -> Exception | None:
    """What went wrong with it."""
    if isinstance(answer, ResponseError):
        return answer
    try:
        question.answer(answer)
    except Exception as error:  # noqa: BLE001 - whatever a queue holds concerns that queue alone
        return error
    return None


def _usable(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception) and not is_refusal(reply):
            raise reply
    return replies
