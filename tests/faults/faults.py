"""The table of faults: what each does, to whom, for how long. One is done at a time, and undone by its own end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.faults import cluster, hostile
from tests.faults.application import Application, CommandError
from tests.faults.processes import WORKERS
from tests.faults.proxy import Proxy
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
    """Its host's clock is wrong from its next start on, for a while."""
    processes = hand.stage.processes
    await asyncio.to_thread(processes.end, name)
    processes.start(name, by_ms)
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


# --- streams


async def on_redis(hand: Hand, *command: str | bytes | int) -> None:
    def run() -> None:
        with hand.stage.redis.direct as client:
            client.execute_command(*command)

    await asyncio.to_thread(run)


def events_of(hand: Hand) -> str:
    return f"bull:{hand.dice.choice(hand.stage.queues)}:events"


@fault("stream")
async def stream_trimmed(hand: Hand) -> None:
    """While the bridge reads: it may have lost nothing."""
    await on_redis(hand, "XTRIM", events_of(hand), "MAXLEN", hand.dice.choice([0, 1, 10]))


@fault("stream")
async def stream_trimmed_unread(hand: Hand) -> None:
    """While the bridge is frozen: what is trimmed is lost, and counted."""
    application = hand.application()
    hand.stage.processes.freeze("bridge")
    await application.do("many", jobs=hand.dice.choice([20, 300, 1500]))
    await hand.pause(1, 3)
    await on_redis(hand, "XTRIM", f"bull:{application.app}:events", "MAXLEN", hand.dice.choice([0, 1, 50]))
    hand.stage.processes.thaw("bridge")


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
    application = hand.application()
    hand.stage.processes.freeze("bridge")
    await hand.pause(1, 3)
    await on_redis(hand, "DEL", f"bull:{application.app}:events")
    await hand.pause(0.5, 3)
    hand.stage.processes.thaw("bridge")


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
    hand.stage.processes.freeze("bridge")
    try:
        await hand.application().do("obliterate", queue=hand.dice.choice(["main", "files", "held", "stuck"]))
        await hand.pause(0.1, 2)
    finally:
        hand.stage.processes.thaw("bridge")


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


def chosen(kinds: str) -> list[Fault]:
    """Those named by name or kind, separated by commas; all where nothing is named."""
    wanted = {word.strip() for word in kinds.split(",") if word.strip()}
    unknown = wanted - TABLE.keys() - {each.kind for each in TABLE.values()}
    if unknown:
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(TABLE)}")
    return [each for each in TABLE.values() if not wanted or {each.name, each.kind} & wanted]


async def do(fault_: Fault, hand: Hand) -> str | None:
    """Do it; what the application could not do for want of a Redis is said, and no failure."""
    try:
        await fault_.deed(hand)
    except CommandError as error:
        return str(error)
    return None
