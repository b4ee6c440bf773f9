"""Faults of bridge, workers and application: killed, ended, frozen, and on another clock."""

from __future__ import annotations

import asyncio

from tests.faults.processes import NAMES, WORKERS
from tests.faults.table import HOUR_MS, Hand, fault

READY_S = 30
"""How long a start may take; longer on a busy machine, and it is shifted all the same."""

# --- processes of the product, and the application


async def killed(hand: Hand, name: str) -> None:
    hand.stage.processes.kill(name)
    await hand.pause(0.1, 5)
    hand.stage.processes.start(name)


async def ended(hand: Hand, name: str) -> None:
    await asyncio.to_thread(hand.stage.processes.end, name)
    await hand.pause(0.1, 5)
    hand.stage.processes.start(name)


async def frozen(hand: Hand, name: str) -> None:
    hand.stage.processes.freeze(name)
    await hand.pause(5, 70)
    hand.stage.processes.thaw(name)


async def shifted(hand: Hand, name: str, by_ms: int) -> None:
    """Its host's clock is wrong from its next start on, for a while after it is at work."""
    processes = hand.stage.processes
    await asyncio.to_thread(processes.end, name)
    processes.start(name, by_ms)
    for _ in range(READY_S):
        if await asyncio.to_thread(processes.is_ready, name):
            break
        await asyncio.sleep(1)
    await hand.pause(5, 15)
    await asyncio.to_thread(processes.end, name)
    processes.start(name)


@fault("process")
async def bridge_killed(hand: Hand) -> None:
    await killed(hand, "bridge")


@fault("process")
async def worker_killed(hand: Hand) -> None:
    await killed(hand, hand.dice.choice(WORKERS))


@fault("process")
async def workers_killed(hand: Hand) -> None:
    """Both at once: nobody has the table."""
    for name in WORKERS:
        hand.stage.processes.kill(name)
    await hand.pause(0.1, 5)
    for name in WORKERS:
        hand.stage.processes.start(name)


@fault("process")
async def bridge_ended(hand: Hand) -> None:
    await ended(hand, "bridge")


@fault("process")
async def worker_ended(hand: Hand) -> None:
    await ended(hand, hand.dice.choice(WORKERS))


@fault("process")
async def ended_without_servers(hand: Hand) -> None:
    """Brokers, Redis or both cannot be reached: it ends well all the same, and the next one waits for them."""
    stage, name = hand.stage, hand.dice.choice(NAMES)
    kafka, redis = [broker.proxy for broker in stage.cluster.brokers], [stage.redis.bridge]
    away = hand.dice.choice([kafka, redis, kafka + redis])
    for proxy in away:
        await asyncio.to_thread(proxy.refuse)
    await hand.pause(0.5, 5)
    await asyncio.to_thread(stage.processes.end, name)
    stage.processes.start(name)
    await hand.pause(1, 8)
    for proxy in away:
        await asyncio.to_thread(proxy.heal)


@fault("process")
async def bridge_frozen(hand: Hand) -> None:
    await frozen(hand, "bridge")


@fault("process")
async def worker_frozen(hand: Hand) -> None:
    await frozen(hand, hand.dice.choice(WORKERS))


@fault("application")
async def application_killed(hand: Hand) -> None:
    """Its jobs stay active without a lock until the next one finds them."""
    application = hand.application()
    await application.kill()
    await hand.pause(0.1, 8)
    await application.start()
    await application.do("go")


@fault("application")
async def job_stranded(hand: Hand) -> None:
    """A worker takes jobs of a queue that nobody else works on, and dies."""
    await hand.application().do("strand")


@fault("application")
async def job_rescued(hand: Hand) -> None:
    await hand.stage.everywhere("rescue")


# --- clocks


@fault("clock")
async def bridge_ahead(hand: Hand) -> None:
    await shifted(hand, "bridge", HOUR_MS)


@fault("clock")
async def bridge_behind(hand: Hand) -> None:
    await shifted(hand, "bridge", -HOUR_MS)


@fault("clock")
async def worker_ahead(hand: Hand) -> None:
    await shifted(hand, hand.dice.choice(WORKERS), HOUR_MS)


@fault("clock")
async def worker_behind(hand: Hand) -> None:
    await shifted(hand, hand.dice.choice(WORKERS), -HOUR_MS)
