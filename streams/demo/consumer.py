"""Reads the topics as any program downstream would: a plain consumer, committed records only, JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from streams import topology, wire
from streams.clock import wall_ms
from streams.demo.board import Board
from streams.settings import Settings

TOPICS: Final = (topology.EVENTS, topology.STATUS, topology.TRANSITIONS, topology.ALERTS)
POLL_MS: Final = 100


@asynccontextmanager
async def consumer(settings: Settings, *, from_beginning: bool) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions, in no group, placed at the beginning or at the end."""
    client = AIOKafkaConsumer(
        *map(settings.topic, TOPICS),
        **settings.kafka.client(),
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await client.start()
    try:
        if not from_beginning:
            await client.seek_to_end()
        for partition in client.assignment():
            await client.position(partition)  # the place is looked up now, not with the first records
        yield client
    finally:
        await client.stop()


async def read(client: AIOKafkaConsumer, settings: Settings, board: Board) -> None:
    """Pass on every record as it comes, until cancelled."""
    names = {settings.topic(name): name for name in TOPICS}
    while True:
        batches = await client.getmany(timeout_ms=POLL_MS)
        now_ms = wall_ms()
        for partition, records in batches.items():
            for record in records:
                _pass_on(names[partition.topic], record, board, now_ms)


def _pass_on(topic: str, record: ConsumerRecord[bytes, bytes], board: Board, now_ms: int) -> None:
    key = record.key.decode() if record.key else ""
    value = wire.loads(record.value) if record.value else None  # null: the job is gone
    if topic == topology.EVENTS:
        board.event(now_ms)
    elif topic == topology.STATUS:
        board.status(key, value)
    elif topic == topology.TRANSITIONS and value is not None:
        board.transition(value, written_ms=record.timestamp, now_ms=now_ms)
    elif topic == topology.ALERTS and value is not None:
        board.alert(value, now_ms)
