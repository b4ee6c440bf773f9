"""A rebalance storm over the whole line: three workers and the bridge, killed and restarted 0.5 to 2.5 s apart.

The short form runs with the other tests. The long one:

    STORMS=20 STORM_RESTARTS=16 python -m pytest -m system tests/system/test_storm.py -s
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from tests.system import oracle
from tests.system.applications import Applications, everything_agrees, revive, values
from tests.system.support import Line

STORMS = int(os.environ.get("STORMS", "1"))
RESTARTS = int(os.environ.get("STORM_RESTARTS", "8"))
FIRST_SEED = int(os.environ.get("STORM_SEED", "41"))
WORKERS = 3

pytestmark = [pytest.mark.system, pytest.mark.node]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + STORMS))
async def test_nothing_is_lost_or_told_twice_in_a_storm(line, node_bullmq, seed):
    print(f"seed {seed}, {RESTARTS} restarts")  # noqa: T201 - to play a storm again
    apps = Applications(line, {version: str(node_bullmq(version)) for version in ("v5", "v6")}, 250, seed)
    await apps.prepare()
    storm = asyncio.create_task(restart(line, random.Random(seed), RESTARTS))
    await apps.run()
    await storm
    revive(line)
    await everything_agrees(apps, line)
    told = [(t["queue"], t["job_id"], t["life"], t["seq"]) for t in await values(line, "transitions")]
    assert len(told) == len(set(told))
    records = await oracle.read_all(line.bootstrap, f"{line.prefix}.transitions.v1")
    ids = [dict(record.headers)["ce_id"] for record in records]
    assert len(ids) == len(set(ids))


async def restart(line: Line, dice: random.Random, times: int) -> None:
    """Kill or end one process after the other; the next one is started at once."""
    names = ["bridge", *["worker"] * WORKERS]
    running = [line.start(name) for name in names]
    await asyncio.sleep(3)
    for _ in range(times):
        at = dice.randrange(len(names)) if dice.random() < 0.3 else dice.randrange(1, len(names))
        running[at].send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        await asyncio.sleep(dice.uniform(0.5, 2.5))
        running[at] = line.start(names[at])
