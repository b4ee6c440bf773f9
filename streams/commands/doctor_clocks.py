"""The clocks of bridge and worker against this host's, out of what they write on `health`.

A record that lies in the future proves a clock that is ahead. One from the past may just be the last one of a process
that has ended: only one that arrives now tells. The brokers' own clocks cannot be asked without writing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from aiokafka.errors import KafkaError

from streams import topology, wire
from streams.clock import wall_ms
from streams.commands.findings import Finding
from streams.commands.reading import Reader, Record, reader
from streams.settings import Settings

CHECK: Final = "clocks"
MOST_RECORDS: Final = 2_000
WAIT_S: Final = 12.0
"""Bridges write every 10 s; waited for only where what is there is odd."""
NORMAL_AGE_S: Final = 15.0
WARNING_S: Final = 2.0
ERROR_S: Final = 60.0
WRITERS: Final[Mapping[str, str]] = {"heartbeat": "bridge", "table": "worker"}
"""Type of record → who writes it, with the clock of its host in `at`."""
REMEDY: Final = "let NTP set all clocks; deadlines and questions to the source depend on them"


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """One finding for each of the two processes, and one on the brokers. Nothing where `health` is not there."""
    try:
        async with reader(settings, follow=True) as kafka:
            topic = settings.topic(topology.HEALTH)
            if not kafka.exists(topic):
                return
            partitions = kafka.partitions(topic)
            past = newest([records async for records in kafka.to_end(partitions, 0, MOST_RECORDS)])
            now: dict[str, float] = {}
            if is_odd(past, wall_ms()):
                now = await _arriving(kafka, settings)
    except (KafkaError, OSError, TimeoutError):
        return  # said by others already
    for who in WRITERS.values():
        yield judge(who, past.get(who), now.get(who), wall_ms())
    message = "the brokers' clocks are not asked: a record would have to be written"
    yield Finding("info", CHECK, f"{message}; retention counts from the times of the records")


def newest(batches: Iterable[Iterable[Record]]) -> dict[str, int]:
    """The latest `at` (ms) of each writer."""
    found: dict[str, int] = {}
    for records in batches:
        for record in records:
            said = _read(record.value)
            if said is not None:
                found[said[0]] = max(said[1], found.get(said[0], 0))
    return found


def _read(value: bytes | None) -> tuple[str, int] | None:
    try:
        record: Any = wire.loads(value or b"")
    except wire.JSONDecodeError:
        return None
    who = WRITERS.get(str(record.get("type"))) if isinstance(record, dict) else None
    return (who, record["at"]) if who is not None and isinstance(record.get("at"), int) else None


def is_odd(past: Mapping[str, int], now_ms: int) -> bool:
    """Whether a bridge has spoken, and not within the last moments."""
    at = past.get("bridge")
    return at is not None and not -WARNING_S <= (now_ms - at) / 1000 <= NORMAL_AGE_S


async def _arriving(kafka: Reader, settings: Settings) -> dict[str, float]:
    """How far (s) each writer is ahead, by the first record of it that arrives now."""
    await kafka.seek(kafka.partitions(settings.topic(topology.HEALTH)), "end")
    found: dict[str, float] = {}
    ends_at = time.monotonic() + WAIT_S
    while "bridge" not in found and time.monotonic() < ends_at:
        for who, at in newest(await kafka.poll()).items():
            found.setdefault(who, (at - wall_ms()) / 1000)
    return found


def judge(who: str, past_ms: int | None, skew_s: float | None, now_ms: int) -> Finding:
    """`past_ms` = its newest record before; `skew_s` = how far a record that came just now lay ahead."""
    if skew_s is None and past_ms is not None and past_ms - now_ms > WARNING_S * 1000:
        skew_s = (past_ms - now_ms) / 1000
    if skew_s is None:
        if past_ms is None:
            return Finding("info", CHECK, f"no {who} has written on health: its clock is not known")
        age_s = max(0.0, (now_ms - past_ms) / 1000)
        if age_s > NORMAL_AGE_S:
            message = f"the {who} has written nothing on health for {age_s:,.0f} s: is it running?"
            return Finding("info", CHECK, f"{message} Its clock is not known")
        return Finding("ok", CHECK, f"the {who}'s clock is not ahead of this host's, and at most {age_s:.0f} s behind")
    if abs(skew_s) <= WARNING_S:
        return Finding("ok", CHECK, f"the {who}'s clock agrees with this host's within {abs(skew_s):.1f} s")
    side = "ahead of" if skew_s > 0 else "behind"
    message = f"the {who}'s clock is {abs(skew_s):,.0f} s {side} this host's"
    return Finding("error" if abs(skew_s) > ERROR_S else "warning", CHECK, message, REMEDY)
