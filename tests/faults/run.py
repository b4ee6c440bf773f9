"""A seeded hand does one fault after the other; after each dozen all is let come to rest, and checked.

python -m tests.faults.run --seed 7 --count 50 --kinds redis,stream      # outside of pytest, with all that it says
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults import faults, inspect
from tests.faults.stage import Stage, standing
from tests.faults.table import Fault, Hand
from tests.node import bullmq

VERSIONS: Final = ("v5", "v6")
DOZEN: Final = 12
SETTLE_S: Final = 90.0
BETWEEN_S: Final = (0.5, 2.5)


@dataclass(frozen=True)
class Plan:
    """One run. `longest_s` bounds the pauses that may take up to 70 s."""

    seed: int
    count: int
    kinds: str = ""
    longest_s: float = 70.0
    jobs_per_s: float = 12.0
    settle_s: float = SETTLE_S
    go_on: bool = False
    """Whether to go on after a rest at which something was wrong."""


@dataclass
class Outcome:
    """What happened. `wrong` by rest, each with the faults before it."""

    done: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    rests: int = 0
    entries: int = 0
    jobs: int = 0
    peaks: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {peak >> 20} MiB" for name, peak in sorted(self.peaks.items()))
        return (
            f"{len(self.done)} faults, {self.rests} rests, {self.entries} entries, {self.jobs} ends of jobs; "
            f"most memory: {peaks}; {len(self.wrong)} rests with something wrong"
        )


def choose(plan: Plan) -> list[Fault]:
    """A row of faults in which every kind comes about as often, and each of a kind once before any comes again."""
    dice, able = random.Random(plan.seed), faults.chosen(plan.kinds)
    decks: dict[str, list[Fault]] = {}
    kinds: list[str] = []
    row = []
    for _ in range(plan.count):
        if not kinds:
            kinds = sorted({each.kind for each in able})
            dice.shuffle(kinds)
        kind = kinds.pop()
        if not decks.get(kind):
            decks[kind] = [each for each in able if each.kind == kind]
            dice.shuffle(decks[kind])
        row.append(decks[kind].pop())
    return row


async def run(directory: Path, plan: Plan) -> Outcome:
    """Do it. Whatever is wrong is in the outcome; servers that cannot be started raise."""
    outcome = Outcome()
    versions = {version: await asyncio.to_thread(bullmq.install, version) for version in VERSIONS}
    row = choose(plan)
    async with standing(directory, versions, plan.seed, plan.jobs_per_s) as stage:
        await rest(stage, plan, outcome, "the start")
        for begin in range(0, len(row), DOZEN):
            if outcome.wrong and not plan.go_on:
                break
            await stage.everywhere("go")
            for number, each in enumerate(row[begin : begin + DOZEN], begin):
                # Chance of its own for each fault: what one draws less changes nothing for the next.
                hand = Hand(stage, random.Random(f"{plan.seed}/{number}"), plan.longest_s)
                await asyncio.sleep(hand.dice.uniform(*BETWEEN_S))
                await one(each, hand, outcome)
            await rest(stage, plan, outcome, ", ".join(outcome.done[begin:]))
        outcome.entries = sum(len(stream.entries) for stream in stage.redis.history.streams.values())
        outcome.jobs = sum(len(application.logs) for application in stage.applications)
        outcome.peaks = dict(stage.processes.peaks)
        before = len(stage.processes.ended)
        await stage.stop()
        if stage.processes.ended[before:]:
            outcome.wrong.append("at the end:\n" + "\n".join(stage.processes.ended[before:]))
            say(outcome.wrong[-1])
    return outcome


async def one(fault: Fault, hand: Hand, outcome: Outcome) -> None:
    began = time.monotonic()
    refused = await faults.do(fault, hand)
    outcome.done.append(fault.name)
    say(f"{len(outcome.done):4} {fault.name} {time.monotonic() - began:.1f} s{f': {refused[:200]}' if refused else ''}")


async def rest(stage: Stage, plan: Plan, outcome: Outcome, after: str) -> None:
    """Heal everything, let all come to an end, and check."""
    began = time.monotonic()
    await stage.heal()
    await stage.rest()
    quiet = time.monotonic()
    found = await inspect.settled(stage, plan.settle_s)
    outcome.rests += 1
    state = "WRONG" if found else "well"
    say(f"     at rest {quiet - began:.1f} s, {state} after {time.monotonic() - quiet:.1f} s more")
    if found:
        outcome.wrong.append(f"seed {plan.seed}, rest {outcome.rests}, after {after}:\n{inspect.report(found)}")
        say(outcome.wrong[-1])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--count", type=int, default=15)
    parser.add_argument("--kinds", default="", help="names or kinds of faults, separated by commas")
    parser.add_argument("--longest-s", type=float, default=70.0)
    parser.add_argument("--settle-s", type=float, default=SETTLE_S)
    parser.add_argument("--jobs-per-s", type=float, default=12.0)
    parser.add_argument("--go-on", action="store_true", help="also after a rest at which something was wrong")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    directory = given.directory or Path(tempfile.mkdtemp(prefix="faults-"))
    plan = Plan(given.seed, given.count, given.kinds, given.longest_s, given.jobs_per_s, given.settle_s, given.go_on)
    say(f"seed {plan.seed}, {plan.count} faults, logs in {directory}")
    outcome = asyncio.run(run(directory, plan))
    say(str(outcome))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
