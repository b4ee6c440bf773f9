"""Is what stands on Kafka what BullMQ itself says? Reads topics as any consumer would, and compares."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.core.job import parse_key
from streams.topology import full_name

Json = dict[str, Any]
SOURCE_STATES = {"waiting": "waiting", "prioritized": "waiting", "waiting-children": "waiting"}
COMPARED = (
    "id", "name", "data", "progress", "delay", "timestamp", "attempts_made", "finished_on", "processed_on",
    "failed_reason", "return_value", "priority", "state", "source_state",
)  # fmt: skip
KNOWN_BY_THE_APPLICATION = ("state", "timestamp", "name", "data", "attempts_made", "failed_reason", "return_value")


async def read_all(bootstrap: str, topic: str) -> list[Any]:
    """All committed records of a topic, partition by partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        return await _read_assigned(consumer, topic)
    finally:
        await consumer.stop()


async def _read_assigned(consumer: AIOKafkaConsumer, topic: str) -> list[Any]:
    known = None
    while known is None:  # the broker answers a create before all know of it
        known = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
    partitions = [TopicPartition(topic, number) for number in sorted(known)]
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    await consumer.seek_to_beginning(*partitions)
    found: dict[int, list[Any]] = defaultdict(list)
    while True:
        behind = [partition for partition in partitions if await consumer.position(partition) < ends[partition]]
        if not behind:
            return [record for number in sorted(found) for record in found[number]]
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            found[partition.partition] += records


async def rows_of(bootstrap: str, prefix: str) -> dict[str, Json | None]:
    """Key to the newest row; None = tombstone."""
    records = await read_all(bootstrap, full_name(prefix, "status"))
    return {record.key.decode(): json.loads(record.value) if record.value else None for record in records}


def expected(job: Json) -> Json:
    """The row's fields, out of BullMQ's own Job."""
    source_state = job["state"]
    state = SOURCE_STATES.get(source_state, source_state)
    if job["paused"] and source_state in ("waiting", "prioritized"):
        state = "paused"
    return {**{name: job[name] for name in COMPARED if name in job}, "state": state, "source_state": source_state}


def compare_with_bullmq(rows: dict[str, Json | None], dump: dict[str, dict[str, Json]]) -> list[str]:
    """One line for each field that differs, for all jobs that BullMQ has."""
    wrong = []
    for queue, jobs in dump.items():
        for job_id, job in jobs.items():
            row = rows.get(f"default/{queue}/{job_id}")
            if row is None:
                wrong.append(f"{queue}/{job_id}: no row, BullMQ says {job['state']}")
                continue
            want = expected(job)
            wrong += [
                f"{queue}/{job_id}: {name} is {row[name]!r:.80}, BullMQ says {value!r:.80}"
                for name, value in want.items()
                if row[name] != value
            ]
    return wrong


def compare_with_logs(rows: dict[str, Json | None], dump: dict[str, dict[str, Json]], logs: list[Json]) -> list[str]:
    """The same for jobs that BullMQ has forgotten: what their application logged last of their last life."""
    last: dict[str, Json] = {}
    for log in sorted(logs, key=lambda log: log["finishedOn"]):  # of several processes
        last[f"default/{log['queue']}/{log['id']}"] = {
            "state": log["state"], "timestamp": log["timestamp"], "name": log["name"], "data": log["data"],
            "attempts_made": log["attemptsMade"],
            "failed_reason": log["failedReason"] if log["state"] == "failed" else None,
            "return_value": log["returnvalue"] if log["state"] == "completed" else None,
        }  # fmt: skip
    wrong = []
    for key, row in rows.items():
        _, queue, job_id = parse_key(key)
        if row is None or queue not in dump or job_id in dump[queue]:
            continue
        want = last.get(key)
        if want is None:
            wrong.append(f"{queue}/{job_id}: {row['state']}, but BullMQ has no such job and the application saw no end")
            continue
        sure = {*KNOWN_BY_THE_APPLICATION} - {*row["estimated"]}
        if not row["enriched"]:  # removeOnComplete: true, and gone before anybody could read it: the row says so
            sure -= {"data"}
        names = [name for name in KNOWN_BY_THE_APPLICATION if name in sure and want[name] is not None]
        wrong += [
            f"{queue}/{job_id}: {name} is {row[name]!r:.80}, the application saw {want[name]!r:.80}"
            for name in names
            if row[name] != want[name]
        ]
    return wrong


def broken_chains(transitions: list[Json], rows: Mapping[str, Json | None]) -> list[str]:
    """One line for each hole, repeat or disagreement in the transitions of a life."""
    wrong = []
    lives: dict[tuple[str, str, int], list[Json]] = defaultdict(list)
    for transition in transitions:
        lives[transition["queue"], transition["job_id"], transition["life"]].append(transition)
    for life, chain in lives.items():
        if [t["seq"] for t in chain] != list(range(1, len(chain) + 1)):
            wrong.append(f"{life}: seq {[t['seq'] for t in chain]}")
        if chain[0]["from"] is not None:
            wrong.append(f"{life}: begins from {chain[0]['from']}")
        wrong += [f"{life}: {a['to']} then from {b['from']}" for a, b in pairwise(chain) if a["to"] != b["from"]]
    for key, row in rows.items():
        if row is None or not row["seq"]:
            continue
        chain = lives.get((row["queue"], row["id"], row["life"]), [])
        if not chain or (chain[-1]["to"], chain[-1]["seq"]) != (row["state"], row["seq"]):
            wrong.append(f"{key}: the row is {row['state']} seq {row['seq']}, its chain ends with {chain[-1:]}")
    return wrong


def published_once(events: list[Json], stream_ids: dict[str, list[str]]) -> list[str]:
    """One line for each stream entry that is not exactly once on `events`, or out of order."""
    wrong = []
    found: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event["event"] != "observed":
            found[event["queue"]].append(event["stream_id"])
    for queue, wanted in stream_ids.items():
        got = sorted(found[queue], key=_order)
        if got != wanted:
            missing, more = set(wanted) - set(got), len(got) - len(set(got))
            wrong.append(
                f"{queue}: {len(wanted)} entries, {len(got)} published, {len(missing)} missing, {more} repeated"
            )
    return wrong


def _order(stream_id: str) -> tuple[int, int]:
    ms, _, seq = stream_id.partition("-")
    return int(ms), int(seq)
