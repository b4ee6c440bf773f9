"""Run commands in this process, and put records where they read them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner, Result

from streams import wire
from streams.cli import app
from streams.core.job import job_key, partition_of

PARTITIONS = 4


def run(*arguments: str, **environ: str) -> Result:
    """The command with these settings and no others."""
    outer: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BULLMQ_STREAMS_")}
    settings = {f"BULLMQ_STREAMS_{name}": value for name, value in environ.items()}
    result = CliRunner().invoke(app, list(arguments), env={**outer, "COLUMNS": "120", **settings})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def servers(kafka: str, prefix: str) -> dict[str, str]:
    return {
        "KAFKA__BOOTSTRAP_SERVERS": kafka,
        "KAFKA__TOPIC_PREFIX": prefix,
        "KAFKA__PARTITIONS": str(PARTITIONS),
        "WORKER__APP_ID": prefix,
    }


@dataclass
class Put:
    """One record. `value` None = tombstone, bytes = as they are, else JSON."""

    topic: str
    key: str | bytes | None
    value: Any
    headers: dict[str, str] = field(default_factory=dict)
    timestamp: int | None = None
    single: bool = False


def put(kafka: str, prefix: str, records: Iterable[Put]) -> None:
    """Write them in one transaction, as the bridge and the worker do."""
    asyncio.run(_put(kafka, prefix, records))


async def _put(kafka: str, prefix: str, records: Iterable[Put]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{prefix}-test")
    await producer.start()
    try:
        async with producer.transaction():
            for record in records:
                key = record.key.encode() if isinstance(record.key, str) else record.key
                value = record.value if isinstance(record.value, bytes | None) else wire.dumps(record.value)
                await producer.send(
                    f"{prefix}.{record.topic}.v1",
                    value,
                    key,
                    0 if record.single or key is None else partition_of(key, PARTITIONS),
                    record.timestamp,
                    [(name, text.encode()) for name, text in record.headers.items()],
                )
    finally:
        await producer.stop()


def row(job_id: str, state: str, *, source: str = "default", queue: str = "q", **more: Any) -> Put:
    """A row of `status`."""
    value = {
        "id": job_id,
        "name": "crawl",
        "data": {"state": "not this one"},
        "state": state,
        "source": source,
        "queue": queue,
        "since": 1_795_478_836_845,
        "attempts_made": 1,
        "max_attempts": 3,
        "history": [],
        "_": {"due": 1},
        **more,
    }
    return Put("status", job_key(source, queue, job_id), value)


def lines(result: Result) -> list[Any]:
    """Its standard output as one JSON value a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]
