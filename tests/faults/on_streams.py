"""Faults of what stands in Redis: streams trimmed and deleted, queues emptied, and what anybody may write."""

from __future__ import annotations

import asyncio
import time

from tests.faults import hostile
from tests.faults.table import HOUR_MS, Hand, fault, on_redis, unread

# --- streams


def events_of(hand: Hand) -> str:
    return f"bull:{hand.dice.choice(hand.stage.queues)}:events"


@fault("stream")
async def stream_trimmed(hand: Hand) -> None:
    """While the bridge reads: it may have lost nothing."""
    await on_redis(hand, "XTRIM", events_of(hand), "MAXLEN", hand.dice.choice([0, 1, 10]))


@fault("stream")
async def stream_trimmed_unread(hand: Hand) -> None:
    """What is trimmed is lost, and counted."""
    application = hand.application()
    async with unread(hand):
        await application.do("many", jobs=hand.dice.choice([20, 300, 1500]))
        await hand.pause(1, 3)
        await on_redis(hand, "XTRIM", f"bull:{application.app}:events", "MAXLEN", hand.dice.choice([0, 1, 50]))


@fault("stream")
async def stream_limited(hand: Hand) -> None:
    """BullMQ itself keeps next to nothing for a while."""
    application = hand.application()
    limit = hand.dice.choice([0, 1, 100])
    await on_redis(hand, "HSET", f"bull:{application.app}:meta", "opts.maxLenEvents", limit)
    await application.do("many", jobs=300)
    await hand.pause(1, 5)
    await on_redis(hand, "HSET", f"bull:{application.app}:meta", "opts.maxLenEvents", 10_000)


@fault("stream")
async def stream_deleted(hand: Hand) -> None:
    await on_redis(hand, "DEL", events_of(hand))


@fault("stream")
async def stream_deleted_unread(hand: Hand) -> None:
    """Once or twice: then there is a history that nobody has seen."""
    application = hand.application()
    async with unread(hand):
        for _ in range(hand.dice.choice([1, 1, 2])):
            await hand.pause(1, 3)
            await on_redis(hand, "DEL", f"bull:{application.app}:events")
        await hand.pause(0.5, 3)


@fault("stream")
async def stream_ahead(hand: Hand) -> None:
    """Its ids are of a clock that was an hour ahead; when it is deleted, they go back."""
    key = f"bull:{hand.application().app}:events"
    ahead_ms = time.time_ns() // 1_000_000 + HOUR_MS
    await on_redis(hand, "XADD", key, f"{ahead_ms}-0", "event", "set-ahead")
    await hand.pause(1, 5)
    if hand.dice.random() < 0.5:
        await on_redis(hand, "DEL", key)
        return
    async with unread(hand):
        await on_redis(hand, "DEL", key)
        await hand.pause(0.5, 3)


@fault("stream")
async def redis_flushed(hand: Hand) -> None:
    await on_redis(hand, "FLUSHALL")


# --- queues


@fault("queue")
async def burst(hand: Hand) -> None:
    await hand.application().do("many", jobs=hand.dice.choice([500, 2000]))


@fault("queue")
async def queue_drained(hand: Hand) -> None:
    await hand.application().do(
        "drain", queue=hand.dice.choice(["main", "files", "held"]), delayed=hand.dice.random() < 0.5
    )


@fault("queue")
async def queue_cleaned(hand: Hand) -> None:
    queue, state = (
        hand.dice.choice(["main", "files", "held"]),
        hand.dice.choice(["completed", "failed", "wait", "delayed"]),
    )
    await hand.application().do("clean", queue=queue, state=state)


@fault("queue")
async def queue_obliterated(hand: Hand) -> None:
    await hand.application().do("obliterate", queue=hand.dice.choice(["main", "files", "held", "stuck"]))


@fault("queue")
async def queue_obliterated_unread(hand: Hand) -> None:
    async with unread(hand):
        await hand.application().do("obliterate", queue=hand.dice.choice(["main", "files", "held", "stuck"]))
        await hand.pause(0.1, 2)


# --- hostile


@fault("hostile")
async def hostile_keys(hand: Hand) -> None:
    await asyncio.to_thread(hostile.keys, hand.stage, hand.dice)


@fault("hostile")
async def hostile_names(hand: Hand) -> None:
    await asyncio.to_thread(hostile.names, hand.stage, hand.dice)


@fault("hostile")
async def hostile_hashes(hand: Hand) -> None:
    await asyncio.to_thread(hostile.hashes, hand.stage, hand.dice)


@fault("hostile")
async def hostile_entries(hand: Hand) -> None:
    await asyncio.to_thread(hostile.entries, hand.stage, hand.dice)


@fault("hostile")
async def hostile_places(hand: Hand) -> None:
    await asyncio.to_thread(hostile.places, hand.stage, hand.dice)


@fault("hostile")
async def stream_of_another_type(hand: Hand) -> None:
    """A queue that is read becomes unreadable, and is mended later."""
    await asyncio.to_thread(hostile.turn, hand.stage)
    await hand.pause(2, 6)
    await asyncio.to_thread(hostile.mend, hand.stage)


@fault("hostile")
async def queue_forbidden(hand: Hand) -> None:
    """The bridge may not read one queue for a while: the others go on, and it comes back by itself."""
    redis, forbidden = hand.stage.redis, hand.dice.choice(hand.stage.queues)
    with_suffixes = [f"bull:{queue}:*" for queue in hand.stage.queues if queue != forbidden]
    await asyncio.to_thread(redis.allow, "bull:hostile*", *with_suffixes)
    await hand.pause(2, 10)
    await asyncio.to_thread(redis.allow, "bull:*")
