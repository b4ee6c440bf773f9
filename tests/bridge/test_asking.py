"""What does not come back in time is asked for in smaller pieces, and who refuses is left out."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ResponseError

from streams.bridge.asking import Asking, Question
from streams.bridge.bullmq import Keys
from streams.bridge.identity import Reach
from streams.bridge.link import PROGRESS_S
from streams.bridge.metrics import NoMetrics
from streams.bridge.outage import Outage
from streams.bridge.stream import Stream


class Slow:
    """A link that answers no more than so many bytes in time. It stands for Link, whose own tests are with a server."""

    def __init__(self, most: int, refuses: str = "") -> None:
        self.most, self.refuses = most, refuses
        self.flights: list[int] = []
        self.timeouts: list[float] = []

    async def transactions(self, groups: list[list[bytes]], *, timeout_s: float) -> list[Any]:
        size = sum(len(command) for group in groups for command in group)
        self.flights.append(size)
        self.timeouts.append(timeout_s)
        if size > self.most and timeout_s < 30:
            raise TimeoutError
        return [ResponseError("NOPERM") if self.refuses.encode() in group else group for group in groups]


class NoWait(Outage):
    async def wait(self, what: str, error: object, who: str = "") -> None:
        self.say(what, error, who)


def question(stream: Stream, jobs: list[bytes], answered: list[bytes]) -> Question:
    def halves() -> list[Question]:
        if len(jobs) < 2:
            return [question(stream, jobs, answered)]
        middle = len(jobs) // 2
        return [question(stream, half, answered) for half in (jobs[:middle], jobs[middle:])]

    return Question(stream, jobs, sum(map(len, jobs)), answered.extend, halves)


def ask(link: Slow, questions: list[Question]) -> tuple[Asking, list[str]]:
    outage, failed = NoWait(), []
    asking = Asking("s", link, Reach(outage, ""), NoMetrics())  # type: ignore[arg-type]  # a link's methods are all it uses

    async def all_of_them() -> None:
        assert await asking.all(questions, asyncio.Event(), lambda stream, _: failed.append(stream.queue))

    asyncio.run(all_of_them())
    assert outage.missing == []
    return asking, failed


def stream(name: str) -> Stream:
    return Stream("s", name, Keys("bull", name))


def test_what_is_late_comes_in_halves_until_it_is_in_time():
    answered: list[bytes] = []
    jobs = [b"%03d" % n for n in range(100)]
    link = Slow(40)
    asking, _ = ask(link, [question(stream("q"), jobs, answered)])
    assert answered == jobs
    assert min(link.flights) <= 40
    assert asking.flight_bytes < 4_000_000


def test_what_cannot_be_halved_gets_more_time():
    answered: list[bytes] = []
    link = Slow(10)
    ask(link, [question(stream("q"), [b"x" * 100], answered)])
    assert answered == [b"x" * 100]
    assert link.timeouts == [PROGRESS_S, 2 * PROGRESS_S, 4 * PROGRESS_S, 8 * PROGRESS_S]


def test_a_refusal_and_a_failure_concern_their_own_stream():
    answered: list[bytes] = []
    one, two, three = stream("1"), stream("2"), stream("3")

    def fails(_: list[Any]) -> None:
        raise ValueError

    questions = [
        question(one, [b"no"], answered),
        Question(two, [b"y"], 1, fails, list),
        question(three, [b"z"], answered),
        question(one, [b"later"], answered),
        question(three, [b"end"], answered),
    ]
    _, failed = ask(Slow(1000, "no"), questions)
    assert failed == ["1", "2"]
    assert answered == [b"z", b"end"]
