"""Questions about jobs and whole queues: read from `probes`, handed to the streams concerned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import topology, wire
from streams.bridge.walk import DRIFT, GAP, REQUEST

if TYPE_CHECKING:
    from streams.bridge.metrics import Metrics
    from streams.bridge.outage import Outage
    from streams.settings import Settings

log = logging.getLogger(__name__)

_WHO: Final = "probes"
STALE_MS: Final = 10_000
_CREATE_TIME: Final = 0
"""Kafka's word for record times that the producer has set."""
OF_JOBS: Final = frozenset(("probe", "verify", "snapshot"))
OF_QUEUES: Final = frozenset((REQUEST, DRIFT, GAP))
_LONGEST_REQUEST: Final = 100


class Question(NamedTuple):
    """`job_id` is empty where the whole queue is to be compared; `request` = the id of that, if the asker has one."""

    source: str
    queue: str
    job_id: str
    reason: str
    request: str


class DroppedError(Exception):
    """The question will not be asked; the reason is its text."""


def parse(value: bytes | None, sent_ms: int | None) -> Question:
    """The question of a record. Raises DroppedError where it is stale or none at all.

    `sent_ms` = the record's time by the asker's own clock (None: it is another's): what waited long before it was sent
    is asked again by now. Clocks of two machines are not compared: one that is behind would get no answers.
    """
    try:
        asked: Any = wire.loads(value or b"")
        source, queue, job_id, reason = (asked[name] for name in ("source", "queue", "job_id", "reason"))
        question = Question(source, queue, job_id, reason, asked.get("request") or "")
        waited_ms = 0 if sent_ms is None else sent_ms - int(asked["asked_at"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise DroppedError("malformed") from None
    if not all(isinstance(part, str) for part in question) or not question.source or not question.queue:
        raise DroppedError("malformed")
    if question.reason not in (OF_JOBS if question.job_id else OF_QUEUES) or len(question.request) > _LONGEST_REQUEST:
        raise DroppedError("malformed")
    if waited_ms > STALE_MS:
        raise DroppedError("stale")
    return question


Ask = Callable[[Question], str | None]
"""Takes a question; returns why it is dropped, if it is."""


async def listen(settings: Settings, outage: Outage, metrics: Metrics, ask: Ask) -> None:
    """Call `ask` for each question from now on, until cancelled."""
    while True:
        consumer = _consumer(settings)
        try:
            await consumer.start()
            name = settings.topic(topology.PROBES)
            partitions = [TopicPartition(name, p) for p in range(settings.kafka.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            outage.over("kafka", who=_WHO)
            await _pass_on(consumer, metrics, ask)
        except (KafkaError, OSError, TimeoutError) as error:
            await outage.wait("kafka", error, _WHO)
        finally:
            await consumer.stop()


async def _pass_on(consumer: AIOKafkaConsumer, metrics: Metrics, ask: Ask) -> None:
    while True:
        batches = await consumer.getmany(timeout_ms=1000)
        for records in batches.values():
            for record in records:
                sent_ms = record.timestamp if record.timestamp_type == _CREATE_TIME else None
                dropped = _asked(record.value, sent_ms, ask)
                if dropped is not None:
                    metrics.inc("bridge_probes_dropped_total", 1, {"reason": dropped})


def _asked(value: bytes | None, sent_ms: int | None, ask: Ask) -> str | None:
    try:
        return ask(parse(value, sent_ms))
    except DroppedError as error:
        return str(error)
    except Exception:
        log.exception("a question could not be taken")
        return "malformed"


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **settings.kafka.reader(),
        auto_offset_reset="latest",
        fetch_max_wait_ms=250,
    )
