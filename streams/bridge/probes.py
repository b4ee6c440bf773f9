"""Questions of the worker about single jobs: read from `probes`, handed to the streams concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import topology, wire
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.bridge.outage import Outage
    from streams.settings import Settings

_WHO: Final = "probes"
STALE_MS: Final = 10_000
REASONS: Final = frozenset(("probe", "verify", "snapshot"))


def parse(value: bytes | None, now_ms: int) -> tuple[str, str, str, str] | None:
    """Source, queue, job id, reason of a question; None where it is stale or none at all.

    A question is only a wish: its asker asks again, so an old one is dropped.
    """
    try:
        asked: Any = wire.loads(value or b"")
        source, queue, job_id, reason = (asked[name] for name in ("source", "queue", "job_id", "reason"))
        fresh = now_ms - int(asked["asked_at"]) <= STALE_MS
    except (ValueError, TypeError, KeyError):
        return None
    texts = all(isinstance(text, str) and text for text in (source, queue, job_id))
    return (source, queue, job_id, reason) if fresh and texts and reason in REASONS else None


async def listen(settings: Settings, outage: Outage, ask: Callable[[str, str, str, str], None]) -> None:
    """Call `ask(source, queue, job_id, reason)` for each question from now on, until cancelled."""
    while True:
        consumer = _consumer(settings)
        try:
            await consumer.start()
            name = settings.topic(topology.PROBES)
            partitions = [TopicPartition(name, p) for p in range(settings.kafka.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            outage.over("kafka", who=_WHO)
            await _pass_on(consumer, ask)
        except (KafkaError, OSError, TimeoutError) as error:
            await outage.wait("kafka", error, _WHO)
        finally:
            await consumer.stop()


async def _pass_on(consumer: AIOKafkaConsumer, ask: Callable[[str, str, str, str], None]) -> None:
    while True:
        batches = await consumer.getmany(timeout_ms=1000)
        now_ms = wall_ms()
        for records in batches.values():
            for record in records:
                asked = parse(record.value, now_ms)
                if asked is not None:
                    ask(*asked)


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **settings.kafka.reader(),
        auto_offset_reset="latest",
        fetch_max_wait_ms=250,
    )
