"""What a fault is, what it may use, and the table that all of them are entered in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tests.faults.application import Application
from tests.faults.stage import Stage

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class Hand:
    """What a fault may ask for: the stage, chance, and how long pauses may be."""

    stage: Stage
    dice: random.Random
    longest_s: float
    """Of what may take up to 70 s."""

    def pause(self, least_s: float, most_s: float) -> Awaitable[None]:
        """A time between the two, or as long as the run allows."""
        return asyncio.sleep(min(self.dice.uniform(least_s, most_s), self.longest_s))

    def application(self) -> Application:
        return self.dice.choice(self.stage.applications)


Deed = Callable[[Hand], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """`kind` groups those that hit the same thing."""

    name: str
    kind: str
    deed: Deed


TABLE: Final[dict[str, Fault]] = {}


def fault(kind: str) -> Callable[[Deed], Deed]:
    def enter(deed: Deed) -> Deed:
        name = deed.__name__
        TABLE[name] = Fault(name, kind, deed)
        return deed

    return enter


@asynccontextmanager
async def unread(hand: Hand) -> AsyncIterator[None]:
    """While the bridge is frozen, or gone: it has to find out afterwards."""
    processes, gone = hand.stage.processes, hand.dice.random() < 0.3
    processes.kill("bridge") if gone else processes.freeze("bridge")
    try:
        yield
    finally:
        processes.start("bridge") if gone else processes.thaw("bridge")


async def on_redis(hand: Hand, *command: str | bytes | int) -> None:
    def run() -> None:
        with hand.stage.redis.direct as client:
            client.execute_command(*command)

    await asyncio.to_thread(run)
