"""`snapshot`: ask the bridge to compare whole queues, and wait until every worker has taken the answer in."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from streams import topology, wire
from streams.clock import wall_ms
from streams.commands import console, errors, health
from streams.commands.errors import CommandError
from streams.commands.health import QueueName
from streams.commands.reading import Reader, reader
from streams.core.job import job_key, partition_of
from streams.escape import printable
from streams.settings import Settings

ASK_AGAIN_S: Final = 2.0
"""Until `started` echoes the question: the bridge drops those older than 10 s."""
SILENT_S: Final = 30.0
"""A comparison of which nothing was heard for so long is asked for once more: its bridge may have been replaced."""
ALIVE_S: Final = 60
"""Queues are those with a heartbeat no older than this."""
TELL_S: Final = 2.0
_NAMED: Final = 5


@dataclass(slots=True)
class Request:
    """One queue's comparison, as far as `health` has told of it. Times are of this process' own clock, s."""

    name: QueueName
    id: str
    asked_at: float = float("-inf")
    heard_at: float = float("-inf")
    started: dict[str, Any] | None = None
    newest: dict[str, Any] = field(default_factory=dict)
    finished: dict[str, Any] | None = None
    compared: dict[int, dict[str, Any]] = field(default_factory=dict)

    def is_due(self, now: float) -> bool:
        """Whether to ask (once more)."""
        if self.finished is not None:
            return False
        if self.started is None:
            return now - self.asked_at >= ASK_AGAIN_S
        return now - max(self.heard_at, self.asked_at) >= SILENT_S

    def take(self, record: Mapping[str, Any], now: float) -> None:
        """A `snapshot` record of this request."""
        self.heard_at, status = now, record.get("status")
        if status == "compared":
            if isinstance(record.get("partition"), int):
                self.compared[record["partition"]] = dict(record)
            return
        self.newest = dict(record)
        self.started = self.started or self.newest
        if status == "finished":
            self.finished = self.newest

    def result(self) -> dict[str, Any]:
        """The record of the end, with what all workers have corrected and closed."""
        return {**(self.finished or self.newest), "corrected": self._sum("corrected"), "closed": self._sum("closed")}

    def _sum(self, name: str) -> int:
        return sum(count for record in self.compared.values() if isinstance(count := record.get(name), int))


class Requests:
    """The comparisons of one command. `partitions` = how many workers' shares each has to pass."""

    def __init__(self, names: Iterable[QueueName], partitions: int, *, wait: bool) -> None:
        self._partitions = partitions
        self._wait = wait
        self._by_id = {each.id: each for each in (Request(name, secrets.token_hex(8)) for name in sorted(names))}

    def take(self, value: bytes | None, now: float) -> None:
        """A record of `health`; what is none of ours is passed over."""
        read = health.parse(value)
        if read is None or read[1]["type"] != "snapshot":
            return
        request = self._by_id.get(str(read[1].get("request")))
        if request is not None:
            request.take(read[1], now)

    def due(self, now: float) -> Iterator[Request]:
        """Those to ask for now; they count as asked."""
        for request in self._by_id.values():
            if request.is_due(now):
                request.asked_at = now
                yield request

    def is_over(self, request: Request) -> bool:
        """Whether nothing more is waited for."""
        if not self._wait:
            return request.started is not None
        return request.finished is not None and not self.silent(request)

    def silent(self, request: Request) -> list[int]:
        """Partitions that have not compared yet."""
        return [number for number in range(self._partitions) if number not in request.compared]

    def over(self) -> list[Request]:
        """Those that are over."""
        return [request for request in self._by_id.values() if self.is_over(request)]

    def missing(self) -> list[str]:
        """One line for each queue that is not: what it waits for."""
        return [self._missing(request) for request in self._by_id.values() if not self.is_over(request)]

    def _missing(self, request: Request) -> str:
        name = printable("/".join(request.name))
        if request.started is None:
            return f"{name}: no bridge has begun"
        if request.finished is None:
            return f"{name}: the bridge has looked at {_progress(request.newest)}"
        numbers = ", ".join(map(str, self.silent(request)))
        return f"{name}: partitions {numbers} have not been compared (is a worker running?)"

    def progress(self) -> str:
        """How far all of them are, in one line."""
        every = self._by_id.values()
        done, jobs = (sum(_number(each.newest.get(name)) for each in every) for name in ("done", "jobs"))
        finished = sum(each.finished is not None for each in every)
        text = f"{finished:,} of {len(every):,} queues looked through, {done:,} of {jobs:,} jobs"
        return f"{text}; {len(self.over()):,} compared" if self._wait else text


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _progress(record: Mapping[str, Any]) -> str:
    return f"{_number(record.get('done')):,} of {_number(record.get('jobs')):,} jobs"


async def snapshot(
    settings: Settings, source: str | None, pattern: str, *, wait: bool, timeout_s: float, as_json: bool
) -> int:
    """Ask and wait; returns the exit code. Raises CommandError after `timeout_s`, naming what is missing."""
    with errors.kafka(settings):
        async with reader(settings, follow=True) as kafka:
            names = await _alive(kafka, settings, source, pattern)
            partitions = len(kafka.partitions(settings.topic(topology.STATUS)))
            requests = Requests(names, partitions, wait=wait)
            await kafka.seek(kafka.partitions(settings.topic(topology.HEALTH)), "end")
            missing = await _follow(kafka, settings, requests, timeout_s, show=not as_json)
    for request in requests.over():
        _show(request, wait=wait, as_json=as_json)
    if missing:
        more = f"\nand {len(missing) - _NAMED} more queues" if len(missing) > _NAMED else ""
        text = "\n".join(missing[:_NAMED])
        raise CommandError(f"not finished after {timeout_s:g} s:\n{text}{more}")
    return 0


async def _alive(kafka: Reader, settings: Settings, source: str | None, pattern: str) -> set[QueueName]:
    """Queues wanted with a heartbeat of the last minute. Raises CommandError where there is none."""
    now_ms = wall_ms()
    found = await health.newest(kafka, settings, now_ms - ALIVE_S * 1000)
    alive = {name for name, beat in found.heartbeats.items() if now_ms - beat["at"] <= ALIVE_S * 1000}
    wanted = {name for name in alive if source in (None, name[0]) and fnmatchcase(name[1], pattern)}
    if not wanted:
        of = "" if source is None else f" of source {source}"
        known = f"; there are {len(alive):,} others" if alive else "; is the bridge running?"
        raise CommandError(f"no queue that matches {pattern}{of} has a heartbeat of the last {ALIVE_S} s{known}")
    return wanted


async def _follow(kafka: Reader, settings: Settings, requests: Requests, timeout_s: float, *, show: bool) -> list[str]:
    """Until all are over, or the time is; returns what is missing then."""
    producer = AIOKafkaProducer(**settings.kafka.client(), linger_ms=20)
    await producer.start()
    partitions = len(kafka.partitions(settings.topic(topology.PROBES)))
    ends_at, tell_at, told = time.monotonic() + timeout_s, time.monotonic() + TELL_S, ""
    try:
        while missing := requests.missing():
            now = time.monotonic()
            if now >= ends_at:
                return missing
            if show and now >= tell_at and (text := requests.progress()) != told:
                console.line((text, "dim"))
                tell_at, told = now + TELL_S, text
            # Each is sent before the first is waited for: thousands of questions take a few batches.
            sent = [await _ask(producer, settings, request, partitions) for request in requests.due(now)]
            await asyncio.gather(*sent)
            for records in await kafka.poll():
                for record in records:
                    requests.take(record.value, time.monotonic())
    finally:
        await producer.stop()
    return []


async def _ask(producer: AIOKafkaProducer, settings: Settings, request: Request, partitions: int) -> Any:
    """Returns the future of its delivery."""
    source, queue = request.name
    key = job_key(source, queue, "").encode()
    value = {
        "source": source,
        "queue": queue,
        "job_id": "",
        "reason": "request",
        "request": request.id,
        "asked_at": wall_ms(),
    }
    return await producer.send(settings.topic(topology.PROBES), wire.dumps(value), key, partition_of(key, partitions))


def _show(request: Request, *, wait: bool, as_json: bool) -> None:
    result = request.result() if wait else (request.started or {})
    if as_json:
        console.print_json(result)
        return
    name = "/".join(request.name)
    if not wait:
        console.line(("+ ", "green"), (name, "bold"), (": begun", ""))
        return
    took = result.get("took_ms")
    text = f": {_number(result.get('jobs')):,} jobs" + (f" in {took / 1000:.1f} s" if isinstance(took, int) else "")
    console.line(
        ("✓ ", "green"),
        (name, "bold"),
        (f"{text}, {result['corrected']:,} rows corrected, {result['closed']:,} closed", ""),
    )
