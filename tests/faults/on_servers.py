"""Faults of brokers and of Redis as servers, and of the networks that lead to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults import cluster
from tests.faults.proxy import Proxy
from tests.faults.table import Hand, fault, unread

# --- brokers


@fault("kafka")
async def broker_killed(hand: Hand) -> None:
    broker = hand.dice.choice(hand.stage.cluster.brokers)
    broker.process.kill()
    await hand.pause(0.5, 15)
    await asyncio.to_thread(broker.start)


@fault("kafka")
async def brokers_killed(hand: Hand) -> None:
    """Two of three, or all: nothing can be written until they are back."""
    brokers = hand.dice.sample(hand.stage.cluster.brokers, hand.dice.choice([2, 3]))
    for broker in brokers:
        broker.process.kill()
    await hand.pause(0.5, 15)
    for broker in brokers:
        await asyncio.to_thread(broker.start)


@fault("kafka")
async def broker_restarted(hand: Hand) -> None:
    broker = hand.dice.choice(hand.stage.cluster.brokers)
    await asyncio.to_thread(broker.process.stop)
    await hand.pause(0.1, 5)
    await asyncio.to_thread(broker.start)


@fault("kafka")
async def broker_frozen(hand: Hand) -> None:
    broker = hand.dice.choice(hand.stage.cluster.brokers)
    broker.process.freeze()
    await hand.pause(5, 30)
    broker.process.thaw()


@fault("kafka")
async def leaders_moved(hand: Hand) -> None:
    with cluster.quiet():
        await cluster.move_leaders(hand.stage.cluster.direct, hand.stage.prefix, hand.dice)
    await hand.pause(3, 8)


# --- Redis


@fault("redis")
async def redis_killed(hand: Hand) -> None:
    """It comes back with all that it had."""
    await asyncio.to_thread(hand.stage.redis.restart, kill=True, away_s=hand.dice.uniform(0, 4))


@fault("redis")
async def redis_restarted(hand: Hand) -> None:
    await asyncio.to_thread(hand.stage.redis.restart, kill=False, away_s=hand.dice.uniform(0, 2))


@fault("redis")
async def redis_emptied(hand: Hand) -> None:
    """It comes back without any data."""
    await asyncio.to_thread(hand.stage.redis.restart_empty)


@fault("redis")
async def redis_set_back(hand: Hand) -> None:
    """It comes back with its data of some seconds ago."""
    await asyncio.to_thread(hand.stage.redis.set_back, hand.dice.uniform(0.1, 5))


@fault("redis")
async def redis_restored(hand: Hand) -> None:
    """It comes back with an RDB file of some seconds ago."""
    kept = await asyncio.to_thread(hand.stage.redis.save)
    await hand.pause(0.1, 5)
    await asyncio.to_thread(hand.stage.redis.restore, kept)


@fault("redis")
async def redis_failed_over(hand: Hand) -> None:
    """A replica takes over that had everything."""
    await asyncio.to_thread(hand.stage.redis.fail_over, 0.0)


@fault("redis")
async def redis_failed_over_lagging(hand: Hand) -> None:
    """A replica takes over that had not heard of the last seconds."""
    await asyncio.to_thread(hand.stage.redis.fail_over, hand.dice.uniform(0.2, 4))


@fault("redis")
async def redis_restarted_unread(hand: Hand) -> None:
    """With all its data, while nobody reads."""
    async with unread(hand):
        await asyncio.to_thread(hand.stage.redis.restart, kill=True)
        await hand.pause(0.5, 5)


@fault("redis")
async def redis_set_back_unread(hand: Hand) -> None:
    """Once or twice, while nobody reads."""
    async with unread(hand):
        for _ in range(hand.dice.choice([1, 2])):
            await asyncio.to_thread(hand.stage.redis.set_back, hand.dice.uniform(0.1, 5))
            await hand.pause(0.5, 3)


@fault("redis")
async def redis_frozen(hand: Hand) -> None:
    hand.stage.redis.server.process.freeze()
    await hand.pause(2, 20)
    hand.stage.redis.server.process.thaw()


# --- networks


async def bad(hand: Hand, proxies: list[Proxy], what: Callable[[Proxy], None], least_s: float, most_s: float) -> None:
    for proxy in proxies:
        await asyncio.to_thread(what, proxy)
    await hand.pause(least_s, most_s)
    for proxy in proxies:
        await asyncio.to_thread(proxy.heal)


def some_brokers(hand: Hand) -> list[Proxy]:
    """One of them, or all."""
    proxies = [broker.proxy for broker in hand.stage.cluster.brokers]
    return proxies if hand.dice.random() < 0.4 else [hand.dice.choice(proxies)]


@fault("network")
async def redis_cut(hand: Hand) -> None:
    for _ in range(hand.dice.randrange(1, 6)):
        await bad(hand, [hand.stage.redis.bridge], Proxy.cut, 0.05, 1)


@fault("network")
async def redis_refused(hand: Hand) -> None:
    await bad(hand, [hand.stage.redis.bridge], Proxy.refuse, 1, 15)


@fault("network")
async def redis_silent(hand: Hand) -> None:
    await bad(hand, [hand.stage.redis.bridge], Proxy.silence, 2, 30)


@fault("network")
async def redis_slow(hand: Hand) -> None:
    delay_s = hand.dice.uniform(0.02, 0.6)
    await bad(hand, [hand.stage.redis.bridge], lambda proxy: proxy.slow(delay_s), 3, 15)


@fault("network")
async def redis_half_closed(hand: Hand) -> None:
    await bad(hand, [hand.stage.redis.bridge], Proxy.half_close, 1, 10)


@fault("network")
async def kafka_cut(hand: Hand) -> None:
    for _ in range(hand.dice.randrange(1, 6)):
        await bad(hand, some_brokers(hand), Proxy.cut, 0.05, 1)


@fault("network")
async def kafka_refused(hand: Hand) -> None:
    await bad(hand, some_brokers(hand), Proxy.refuse, 1, 15)


@fault("network")
async def kafka_silent(hand: Hand) -> None:
    await bad(hand, some_brokers(hand), Proxy.silence, 2, 30)


@fault("network")
async def kafka_slow(hand: Hand) -> None:
    delay_s = hand.dice.uniform(0.02, 0.6)
    await bad(hand, some_brokers(hand), lambda proxy: proxy.slow(delay_s), 3, 15)


@fault("network")
async def kafka_half_closed(hand: Hand) -> None:
    await bad(hand, some_brokers(hand), Proxy.half_close, 1, 10)
