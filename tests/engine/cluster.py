"""Topics, load and readings of the proofs, by aiokafka alone."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.core.job import partition_of
from tests.engine.counting import Topics, folded

PARTITIONS = 8


async def create(bootstrap: str, prefix: str, partitions: int = PARTITIONS) -> None:
    topics = Topics.of(prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        wanted = [NewTopic(name, partitions, 1) for name in (topics.events, topics.table, topics.out)]
        await admin.create_topics(wanted)
    finally:
        await admin.close()


@dataclass
class Load:
    """Numbered events of random-looking keys, and the rows they make."""

    prefix: str
    keys: int = 1_000
    partitions: int = PARTITIONS
    sent: int = 0
    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def event(self) -> tuple[bytes, bytes, int]:
        number = self.sent
        self.sent += 1
        key = b"default/q/%d" % ((number * 2654435761) % self.keys)
        self.rows[key] = folded(self.rows.get(key), number)
        return key, json.dumps({"number": number, "pad": "x" * 200}).encode(), partition_of(key, self.partitions)

    async def send(self, bootstrap: str, count: int, per_s: float | None = None) -> None:
        """At `per_s` events a second, or as fast as it goes."""
        topic = Topics.of(self.prefix).events
        loop = asyncio.get_running_loop()
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5)
        await producer.start()
        try:
            began, done, futures = loop.time(), 0, []
            while done < count:
                target = count if per_s is None else min(count, int((loop.time() - began) * per_s) + 1)
                for _ in range(min(target - done, 2_000)):
                    key, value, partition = self.event()
                    futures.append(await producer.send(topic, value, key, partition))
                    done += 1
                await asyncio.sleep(0.01)
            await asyncio.gather(*futures)
        finally:
            await producer.stop()


async def read(
    bootstrap: str, topic: str, partitions: int = PARTITIONS, isolation: str = "read_committed"
) -> list[Any]:
    """All records of a topic, in order per partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        records: list[Any] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for found in (await consumer.getmany(timeout_ms=200)).values():
                records.extend(found)
        return records
    finally:
        await consumer.stop()


async def lag(bootstrap: str, prefix: str, partitions: int = PARTITIONS) -> int:
    """Events not yet covered by a committed offset."""
    topic = Topics.of(prefix).events
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=prefix, enable_auto_commit=False)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        ends = await consumer.end_offsets(tps)
        return sum([ends[tp] - (await consumer.committed(tp) or 0) for tp in tps])
    finally:
        await consumer.stop()


async def drained(bootstrap: str, prefix: str, timeout_s: float) -> None:
    """Wait until there is no lag."""
    async with asyncio.timeout(timeout_s):
        while True:
            if not await lag(bootstrap, prefix):
                return
            await asyncio.sleep(0.3)


@dataclass
class Verdict:
    """What the output topics say of a run. `aborted` = transitions in the log that a committed reader never sees."""

    events: int
    transitions: int
    duplicates: int
    gaps: int
    disorder: int
    wrong_rows: int
    aborted: int

    @property
    def exact(self) -> bool:
        return not (self.duplicates or self.gaps or self.disorder or self.wrong_rows)

    @property
    def complete(self) -> bool:
        return not self.gaps


async def judge(bootstrap: str, load: Load) -> Verdict:
    topics = Topics.of(load.prefix)
    out = await read(bootstrap, topics.out)
    rows: dict[bytes, Any] = {}
    for record in await read(bootstrap, topics.table):
        rows[record.key] = None if record.value is None else json.loads(record.value)
    seen: defaultdict[int, int] = defaultdict(int)
    numbers: defaultdict[bytes, list[int]] = defaultdict(list)
    for record in out:
        value = json.loads(record.value)
        seen[value["event"]] += 1
        numbers[record.key].append(value["n"])
    written = await read(bootstrap, topics.out, isolation="read_uncommitted")
    return Verdict(
        events=load.sent,
        transitions=len(out),
        duplicates=sum(count - 1 for count in seen.values()),
        gaps=load.sent - len(seen),
        disorder=sum(found != list(range(1, len(found) + 1)) for found in numbers.values()),
        wrong_rows=sum(rows.get(key) != row for key, row in load.rows.items()),
        aborted=len(written) - len(out),
    )
