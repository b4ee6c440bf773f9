"""`tail`: the records of a topic as they come, filtered by queue and job."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from streams import topology, wire
from streams.commands import console, errors, tail_text
from streams.commands.reading import Reader, Record, reader
from streams.core.job import job_key, parse_key, partition_of, unescape
from streams.settings import Settings

KEYED_BY_JOB = frozenset((topology.EVENTS, topology.STATUS, topology.TRANSITIONS, topology.DEAD_LETTERS))


@dataclass(frozen=True, slots=True)
class Filter:
    """What to show. A source counts only with a queue or a job."""

    topic: str
    source: str
    queue: str | None = None
    job: str | None = None

    def wants(self, record: Record) -> bool:
        """Whether the record is about the queue and the job."""
        if self.queue is None and self.job is None:
            return True
        about = about_of(self.topic, record)
        return about is not None and all(
            wanted in (None, found) for wanted, found in zip((self.source, self.queue, self.job), about, strict=True)
        )

    def partitions(self, all_: list[TopicPartition]) -> list[TopicPartition]:
        """The one partition of a job that is known by queue and id, else all."""
        keyed = self.topic in KEYED_BY_JOB and self.topic != topology.DEAD_LETTERS
        if not keyed or self.queue is None or self.job is None:
            return all_
        key = job_key(self.source, self.queue, self.job).encode()
        return [all_[partition_of(key, len(all_))]]


def about_of(topic: str, record: Record) -> tuple[str, str, str] | None:
    """Source, queue and job id that a record speaks of; None where it does not tell."""
    try:
        if topic in KEYED_BY_JOB:
            return parse_key(record.key.decode())
        if topic == topology.HEALTH:
            source, _, queue = record.key.decode().partition("/")
            return unescape(source), unescape(queue), ""
        value = wire.loads(record.value)
        return value["source"], value["queue"], value["job_id"]
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


async def tail(settings: Settings, wanted: Filter, start: str | int, most: int | None, *, as_json: bool) -> int:
    """Print until Ctrl-C or `most` records; returns the exit code. `start`: `beginning`, `end`, or ms."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    show = _show_json if as_json or not sys.stdout.isatty() else tail_text.show
    printing = asyncio.create_task(_print(settings, wanted, start, most, show))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([printing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    printing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await printing
    return 0


async def _print(
    settings: Settings, wanted: Filter, start: str | int, most: int | None, show: Callable[[str, Record], None]
) -> None:
    if most is not None and most <= 0:
        return
    shown = 0
    with errors.kafka(settings):
        async with reader(settings, follow=True) as kafka:
            async for record in _records(kafka, settings, wanted, start):
                show(wanted.topic, record)
                shown += 1
                if shown == most:
                    return


async def _records(kafka: Reader, settings: Settings, wanted: Filter, start: str | int) -> AsyncIterator[Record]:
    partitions = kafka.partitions(settings.topic(wanted.topic))
    await kafka.seek(wanted.partitions(partitions), start)
    async for records in kafka.onwards():
        for record in records:
            if wanted.wants(record):
                yield record


def as_object(topic: str, record: Record) -> dict[str, Any]:
    """A record as `tail` prints it in JSON (contract, section 4)."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else _text(record.key),
        "headers": {name: None if value is None else _text(value) for name, value in record.headers},
        "value": _value(topic, record.value),
    }


def _value(topic: str, value: bytes | None) -> Any:
    """The decoded JSON; dead letters, and whatever else is no JSON, as text."""
    if value is None or topic == topology.DEAD_LETTERS:
        return None if value is None else _text(value)
    try:
        return wire.loads(value)
    except wire.JSONDecodeError:
        return _text(value)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _show_json(topic: str, record: Record) -> None:
    console.print_json(as_object(topic, record))
