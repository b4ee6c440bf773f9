"""Workers killed and restarted faster than the group settles, under load; then every event is accounted for.

    python -m tests.engine.storm --runs 20 --seed 7          # on a broker of its own
    python -m tests.engine.storm --bootstrap localhost:9092

What breaks an exactly-once engine is not the transaction but which offset, which rows and which fetch it stands
on, and that shows when rebalances overlap. A run prints its seed. `aborted` counts records of transactions that were
open when their worker died: a run with none proved little.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engine import cluster
from tests.engine.counting import say

STOP_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Plan:
    """One storm. `kill_share` of the restarts are kill -9, the others SIGTERM."""

    seed: int
    workers: int = 3
    restarts: int = 16
    pauses_s: tuple[float, float] = (0.5, 2.5)
    kill_share: float = 0.4
    head_start_s: tuple[float, float] = (1.0, 4.5)
    events_per_s: int = 4_000
    keys: int = 5_000
    settle_s: float = 90.0
    options: dict[str, Any] = field(default_factory=lambda: {"linger_s": 0.0})
    """linger 0: transactions follow each other at once, so that a kill meets an open one"""


class Workers:
    """Worker processes, each with a log file of its own."""

    def __init__(self, bootstrap: str, prefix: str, options: dict[str, Any], logs: Path) -> None:
        self.command = [
            *(sys.executable, "-m", "tests.engine.counting", "--bootstrap", bootstrap, "--prefix", prefix),
            *("--options", json.dumps(options)),
        ]
        self.logs = logs
        self.started = 0
        self.running: list[asyncio.subprocess.Process] = []
        self.bad_exits: list[int] = []

    async def start(self) -> None:
        self.started += 1
        with (self.logs / f"worker-{self.started}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*self.command, stdout=log, stderr=log)
        self.running.append(process)

    async def restart(self, number: int, how: signal.Signals) -> None:
        """End one and start another at once; a terminated one may still be stopping then."""
        process = self.running.pop(number)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        ended = asyncio.create_task(self._ended(process, how))
        await self.start()
        self._ends = [*getattr(self, "_ends", []), ended]

    async def supervise(self) -> None:
        """Start another whenever the first one ends by itself, until cancelled."""
        while True:
            code = await self.running[0].wait()
            if code != 1:
                self.bad_exits.append(code)
            self.running.pop(0)
            await self.start()

    async def _ended(self, process: asyncio.subprocess.Process, how: signal.Signals) -> None:
        try:
            code = await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            code = 99
        # A signal that comes before the handler is there ends Python itself.
        if how is signal.SIGTERM and code not in (0, -signal.SIGTERM):
            self.bad_exits.append(code)

    async def stop(self) -> None:
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(self._ended(process, signal.SIGTERM) for process in self.running))
        await asyncio.gather(*getattr(self, "_ends", []))


async def storm(bootstrap: str, plan: Plan, logs: Path) -> tuple[cluster.Verdict, list[int]]:
    """Returns what the topics say afterwards, and the exit codes that should not have been."""
    chance = random.Random(plan.seed)
    prefix = f"storm-{uuid.uuid4().hex[:8]}"
    await cluster.create(bootstrap, prefix)
    load = cluster.Load(prefix, keys=plan.keys)
    workers = Workers(bootstrap, prefix, plan.options, logs)
    try:
        for _ in range(plan.workers):
            await workers.start()
        # Now and then the first events meet the first rebalances: nothing is committed then.
        await asyncio.sleep(chance.uniform(*plan.head_start_s))
        lasts = plan.restarts * sum(plan.pauses_s) / 2
        sending = asyncio.create_task(load.send(bootstrap, int(lasts * plan.events_per_s), plan.events_per_s))
        for _ in range(plan.restarts):
            await asyncio.sleep(chance.uniform(*plan.pauses_s))
            how = signal.SIGKILL if chance.random() < plan.kill_share else signal.SIGTERM
            await workers.restart(chance.randrange(len(workers.running)), how)
        await sending
        await cluster.drained(bootstrap, prefix, plan.settle_s)
    finally:
        await workers.stop()
    return await cluster.judge(bootstrap, load), workers.bad_exits


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """A broker for this command, in a folder of its own."""
    from streams.local import stack  # noqa: PLC0415 - the tests bring a broker of their own

    with tempfile.TemporaryDirectory() as folder:
        servers = stack.up(Path(folder), redis=False)
        try:
            yield servers.bootstrap
        finally:
            stack.down(Path(folder))


async def series(bootstrap: str, plans: list[Plan], logs: Path) -> int:
    failed = 0
    for plan in plans:
        folder = logs / str(plan.seed)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            verdict, bad_exits = await storm(bootstrap, plan, folder)
            passed = verdict.exact or (verdict.complete and plan.options.get("exactly_once") is False)
            text = f"{verdict}, bad exits {bad_exits}"
        except TimeoutError as error:
            passed, text = False, f"never drained: {error!r}"
        failed += not passed
        say(f"{'passed' if passed else 'FAILED'} seed {plan.seed}: {text}")
    say(f"{len(plans) - failed} of {len(plans)} storms passed; logs in {logs}")
    return 1 if failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--bootstrap", help="a broker that runs; else one is started")
    parser.add_argument("--restarts", type=int, default=16)
    parser.add_argument("--events-per-s", type=int, default=4_000)
    parser.add_argument("--options", type=json.loads, default={"linger_s": 0.0}, help="engine options, as JSON")
    parser.add_argument("--logs", type=Path, default=Path(tempfile.gettempdir()) / "engine-storm")
    given = parser.parse_args()
    plans = [
        Plan(seed, restarts=given.restarts, events_per_s=given.events_per_s, options=given.options)
        for seed in range(given.seed, given.seed + given.runs)
    ]
    with contextlib.ExitStack() as exits:
        bootstrap = given.bootstrap or exits.enter_context(broker())
        code = asyncio.run(series(bootstrap, plans, given.logs))
    sys.exit(code)


if __name__ == "__main__":
    main()
