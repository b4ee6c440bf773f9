"""A bridge of one's own in a test: topics, a process or a task, what came out of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from streams import topology, wire
from streams.core.job import job_key, partition_of
from streams.settings import Bridge, Kafka, Settings, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiokafka import ConsumerRecord

PARTITIONS = 4


@dataclass
class Setup:
    """Addresses and names of one test."""

    kafka: str
    redis: str
    prefix: str
    queue: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def settings(self, **bridge: Any) -> Settings:
        delivery = bridge.pop("delivery", "exactly_once")
        source = Source(url=SecretStr(self.redis), queues=(self.queue,), discover_interval_s=0.2)
        kafka = Kafka(bootstrap_servers=self.kafka, topic_prefix=self.prefix, partitions=PARTITIONS)
        return Settings(kafka=kafka, sources={"default": source}, bridge=Bridge(**bridge), delivery=delivery)

    async def make_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        await admin.create_topics(
            [
                NewTopic(
                    name=topology.full_name(self.prefix, topic.name),
                    num_partitions=topic.partitions or PARTITIONS,
                    replication_factor=1,
                )
                for topic in topology.TOPICS
            ]
        )
        await admin.close()

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """The bridge as a process, set by its environment."""
        environment = {
            "BULLMQ_STREAMS_KAFKA__BOOTSTRAP_SERVERS": self.kafka,
            "BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": self.prefix,
            "BULLMQ_STREAMS_KAFKA__PARTITIONS": str(PARTITIONS),
            "BULLMQ_STREAMS_SOURCES__DEFAULT__URL": self.redis,
            "BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES": json.dumps([self.queue]),
            "BULLMQ_STREAMS_SOURCES__DEFAULT__DISCOVER_INTERVAL_S": "0.2",
            **more,
        }
        process = subprocess.Popen([sys.executable, "-m", "streams.bridge"], env={**os.environ, **environment})
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    async def read(self, topic: str, *, enough: Callable[[list[ConsumerRecord]], bool], timeout_s: float = 30) -> list:
        """All committed records of a topic, once there are enough."""
        declared = next(each for each in topology.TOPICS if each.name == topic)
        name = topology.full_name(self.prefix, topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        records: list[ConsumerRecord] = []
        try:
            consumer.assign([TopicPartition(name, p) for p in range(declared.partitions or PARTITIONS)])
            end = time.monotonic() + timeout_s
            while not enough(records):
                assert time.monotonic() < end, f"{len(records)} records on {topic}, the last {records[-3:]}"
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(batch)
        finally:
            await consumer.stop()
        return records

    async def all(self, topic: str) -> list[ConsumerRecord]:
        """All committed records that are on a topic now."""
        declared = next(each for each in topology.TOPICS if each.name == topic)
        name = topology.full_name(self.prefix, topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        records: list[ConsumerRecord] = []
        try:
            partitions = [TopicPartition(name, p) for p in range(declared.partitions or PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(batch)
        finally:
            await consumer.stop()
        return records

    async def events(self, count: int, *, timeout_s: float = 30) -> list[dict[str, Any]]:
        """At least so many events, in the order of their partitions."""
        records = await self.read(topology.EVENTS, enough=lambda r: len(r) >= count, timeout_s=timeout_s)
        return [wire.loads(record.value) for record in records]

    async def health(
        self, *types: str, enough: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 30
    ) -> list[dict[str, Any]]:
        """The records of these types on health, once there are enough."""

        def of_types(records: list[ConsumerRecord]) -> list[dict[str, Any]]:
            values = [wire.loads(record.value) for record in records]
            return [value for value in values if value["type"] in types]

        read = await self.read(topology.HEALTH, enough=lambda records: enough(of_types(records)), timeout_s=timeout_s)
        return of_types(read)

    async def probe(self, producer: AIOKafkaProducer, job_id: str, reason: str = "probe", **more: str) -> None:
        key = job_key("default", self.queue, job_id).encode()
        value: dict[str, Any] = {"source": "default", "queue": self.queue, "job_id": job_id, "reason": reason, **more}
        value["asked_at"] = int(time.time() * 1000)
        partition = partition_of(key, PARTITIONS)
        name = topology.full_name(self.prefix, topology.PROBES)
        await producer.send_and_wait(name, wire.dumps(value), key=key, partition=partition)


def order(value: dict[str, Any]) -> tuple[int, tuple[int, int], int, int]:
    """The contract's order of a stream's records."""
    ms, seq = value["stream_id"].split("-")
    look = value["kind"] == "look"
    return value["epoch"], (int(ms), int(seq)), int(look), value.get("observed_at", 0)


def catches(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal by now; without one it is ended as the system ends it."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():  # not on Linux, or gone
        return True
    (mask,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")] or ["0"]
    return bool(int(mask, 16) >> (number - 1) & 1)


def terminate(process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 20
    while not catches(process, signal.SIGTERM) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    return process.wait(30)


@contextlib.asynccontextmanager
async def running(run: Any, settings: Settings, **more: Any) -> AsyncIterator[asyncio.Task[int]]:
    """The bridge as a task of this process; ends with exit code 0."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop=stop, **more))
    try:
        yield task
    finally:
        stop.set()
        code = await asyncio.wait_for(task, 30)
    assert code == 0
