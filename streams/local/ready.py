"""Waiting until servers serve: Redis answers, and Kafka carries a transaction to a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Iterator
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.errors import LocalStackError
from streams.local.kafka import Kafka
from streams.local.redis import Redis

_POLL_S: Final = 0.1
_PROBE_S: Final = 20


def wait(*servers: Kafka | Redis, timeout_s: float = 60) -> None:
    """Return when all serve. Raises LocalStackError as soon as one has ended, and after `timeout_s`.

    Runs an event loop of its own: call it outside of one, or in a thread.
    """
    end = time.monotonic() + timeout_s
    waiting = list(servers)
    while True:
        for server in servers:
            server.process.require_alive()
        waiting = [server for server in waiting if not _serves(server)]
        if not waiting:
            return
        if time.monotonic() > end:
            slow = waiting[0].process
            raise LocalStackError(f"{slow.name} does not answer after {timeout_s:.0f} s; its log:\n{slow.tail()}")
        time.sleep(_POLL_S)


def _serves(server: Kafka | Redis) -> bool:
    if isinstance(server, Redis):
        return server.is_ready()
    with _quiet():
        try:
            asyncio.run(_transaction_reaches_a_group(server.bootstrap))
        except Exception:  # noqa: BLE001 -- the clients raise many kinds while a broker comes up
            return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The Kafka client logs each refused connection as an error."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


async def _transaction_reaches_a_group(bootstrap: str) -> None:
    """The broker's first transaction and first group each create an internal topic: better now than in a test."""
    probe = f"local-stack-probe-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    async with asyncio.timeout(_PROBE_S):
        await admin.start()
        try:
            await admin.create_topics([NewTopic(probe, 1, 1)])
            await _round_trip(bootstrap, probe)
            await admin.delete_topics([probe])
        finally:
            await admin.close()


async def _round_trip(bootstrap: str, probe: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=probe)
    async with producer, producer.transaction():
        await producer.send_and_wait(probe, b"ready")
    consumer = AIOKafkaConsumer(
        probe,
        bootstrap_servers=bootstrap,
        group_id=probe,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    async with consumer:
        await consumer.getone()
