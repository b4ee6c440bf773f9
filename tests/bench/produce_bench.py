"""What publishing costs the bridge: aiokafka's batches beside librdkafka, the same records, both in transactions.

    python -m tests.bench.produce_bench --bootstrap localhost:9092 [--records 200000] [--rounds 3]

CPU is that of the producing process, threads included; 2,000 records a transaction, as the bridge makes them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer import sender
from confluent_kafka import Producer

from streams.core.job import partition_of
from streams.wire import cloud_event
from tests.bench.fold_bench import workload
from tests.bench.worker_bench import PARTITIONS, create

PER_TRANSACTION = 2_000
Record = tuple[bytes, bytes, list[tuple[str, bytes]], int]


def records_of(count: int) -> list[Record]:
    """Key, value, headers, partition."""
    found = []
    for number, record in enumerate(workload(count // 12)):
        headers = cloud_event(
            b"default/crawl/%d-0" % number, "bullmq.job.active.v1", "/default/crawl", record.timestamp
        )
        found.append((record.key, record.value, headers, partition_of(record.key, PARTITIONS)))
    return found


def in_batches(bootstrap: str, topic: str, records: list[Record]) -> None:
    """As the bridge does: a produce batch per partition, filled by hand."""
    asyncio.run(_in_batches(bootstrap, topic, records))


async def _in_batches(bootstrap: str, topic: str, records: list[Record]) -> None:
    sender.BACKOFF_OVERRIDE = 0.002
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=f"bench-{uuid.uuid4().hex}", max_batch_size=900_000
    )
    await producer.start()
    for at in range(0, len(records), PER_TRANSACTION):
        await producer.begin_transaction()
        sends: list[Any] = []
        batches: dict[int, Any] = {}
        for key, value, headers, partition in records[at : at + PER_TRANSACTION]:
            batch = batches.get(partition)
            if batch is None:
                batch = batches[partition] = producer.create_batch()
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                batch.close()
                sends.append(await producer.send_batch(batch, topic, partition=partition))
                batch = batches[partition] = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None, headers=headers)
        for partition, batch in batches.items():
            batch.close()
            sends.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sends)
        await producer.commit_transaction()
    await producer.stop()


def by_librdkafka(bootstrap: str, topic: str, records: list[Record]) -> None:
    """One call for each record; the library batches."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": f"bench-{uuid.uuid4().hex}", "linger.ms": 5}
    )
    producer.init_transactions()
    failed: list[Any] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(error)

    for at in range(0, len(records), PER_TRANSACTION):
        producer.begin_transaction()
        for key, value, headers, partition in records[at : at + PER_TRANSACTION]:
            producer.produce(topic, value, key, partition, headers=headers, on_delivery=delivered)
        producer.flush()
        producer.commit_transaction()
    if failed:
        raise RuntimeError(failed[0])


def measure(
    way: Callable[[str, str, list[Record]], None], bootstrap: str, records: list[Record]
) -> tuple[float, float]:
    """(records per second, CPU s per million)."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    asyncio.run(create(bootstrap, prefix, ["events"]))
    began, cpu = time.perf_counter(), time.process_time()
    way(bootstrap, f"{prefix}.events.v1", records)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return len(records) / seconds, cpu / len(records) * 1e6


def main() -> None:
    """Alternate, print each run and the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    records = records_of(arguments.records)
    ways = {"aiokafka, batches": in_batches, "librdkafka": by_librdkafka}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            results[name].append(measure(ways[name], arguments.bootstrap, records))
    for name, runs in results.items():
        rate, cpu = (statistics.median(run[at] for run in runs) for at in (0, 1))
        sys.stdout.write(f"{name:20} {rate:10,.0f} records/s {cpu:6.1f} CPU s per million\n")


if __name__ == "__main__":
    main()
