"""The whole worker over crawling jobs of real shape, everything on: rate, CPU, restore, memory.

    python -m tests.bench.worker_bench --bootstrap localhost:9092 [--jobs 25000] [--rounds 3] [--against FILE.py]

Each run is a process of its own that drains the same prepared `events` into topics of its own; then a fresh process
restores the table that it wrote. With `--against FILE.py`, a module with `build_app(app_id, broker, fold, …)` whose
fold does the least that such a job needs (decode both, add to the history, encode, one transition), the two alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NoReturn

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams import settings as settings_module
from streams import telemetry
from streams.core.job import partition_of
from streams.core.row import new_row
from streams.engine import exit_now
from streams.engine.process import GC_THRESHOLDS
from streams.topology import TOPICS, full_name
from streams.wire import dumps, loads
from streams.worker.app import build_app
from streams.worker.meters import Meters
from tests.bench.fold_bench import workload
from tests.bench.measuring import drain, load_build

PARTITIONS = 8


async def create(bootstrap: str, prefix: str, names: list[str] | None = None) -> None:
    """Topics of the topology under a prefix."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    wanted = [t for t in TOPICS if names is None or t.name in names]
    await admin.create_topics(
        [NewTopic(full_name(prefix, t.name), t.partitions or PARTITIONS, 1, topic_configs=t.config()) for t in wanted]
    )
    await admin.close()


async def fill(bootstrap: str, topic: str, jobs: int, scenario: str, interleaved: int) -> int:
    """All events of so many jobs; returns how many."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20, max_batch_size=200_000)
    await producer.start()
    futures: list[Any] = []
    records = workload(jobs, scenario, interleaved)
    for record in records:
        partition = partition_of(record.key, PARTITIONS)
        futures.append(
            await producer.send(topic, record.value, record.key, partition, timestamp_ms=int(time.time() * 1000))
        )
        if len(futures) == 5_000:
            await asyncio.gather(*futures)
            futures.clear()
    await asyncio.gather(*futures)
    await producer.stop()
    return len(records)


def worker_app(bootstrap: str, prefix: str) -> Any:
    """The product's own app."""
    environ = {
        "BULLMQ_STREAMS_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": prefix,
        "BULLMQ_STREAMS_WORKER__APP_ID": f"{prefix}-worker",
    }
    return build_app(settings_module.load([], environ), Meters(telemetry.Metrics("worker")))


def least_fold(out: str) -> Any:
    """Records of the same size and number as the worker's, with no rules to them: what any fold of them costs.

    Decode the event and the row, take over the hash, add to the history, write row and transition with the contract's
    fields and headers; `progress` makes no transition. No check, no order, no deadline, no alert, no index, no metric.
    """

    def fold(tx: Any, record: Any) -> None:
        event = loads(record.value)
        old = tx.get(record.key)
        row = new_row(event, 1) if old is None else dict(old)
        job, name, at = event.get("job"), event["event"], record.timestamp
        if job:
            row["name"], row["data"], row["timestamp"] = job["name"], job["data"], job["timestamp"]
            row["max_attempts"], row["attempts_made"] = job["opts"].get("attempts"), job["attempts_made"]
        row["position"] = event["stream_id"]
        if name == "progress":
            row["progress"] = event["fields"]["data"]
        elif name != "added":
            _transition(tx, out, record, row, name, at)
        tx.put(record.key, row)

    return fold


def _transition(tx: Any, out: str, record: Any, row: dict[str, Any], to: str, at: int) -> None:
    row["history"] = [*row["history"][-15:], {"from": row["state"], "to": to, "at": at, "cause": "picked_up"}]
    row["seq"] += 1
    transition = {
        "source": row["source"], "queue": row["queue"], "job_id": row["id"], "name": row["name"],
        "life": row["life"], "seq": row["seq"], "from": row["state"], "to": to,
        "source_from": row["source_state"], "source_to": to, "at": at, "duration_ms": at - row["since"],
        "cause": "picked_up", "error": None, "attempts_made": row["attempts_made"],
        "max_attempts": row["max_attempts"], "final": False, "observed": False, "position": row["position"],
    }  # fmt: skip
    headers = [
        ("ce_specversion", b"1.0"), ("content-type", b"application/json"),
        ("ce_id", record.key + b"@1/%d" % row["seq"]),
        ("ce_type", b"bullmq.job.transition.v1"), ("ce_source", b"/default/" + row["queue"].encode()),
        ("ce_time", b"2026-11-24T20:57:53.123Z"),
    ]  # fmt: skip
    row["state"] = row["source_state"] = to
    row["since"] = at
    tx.emit(out, record.key, dumps(transition), headers, at)


def other_app(file: Path, bootstrap: str, prefix: str) -> Any:
    """The other build, with the least fold."""
    names = {name: full_name(prefix, name) for name in ("events", "status", "transitions")}
    fold = least_fold(names["transitions"])
    return load_build(file).build_app(
        f"{prefix}-other", bootstrap, fold, events=names["events"], status=names["status"]
    )


async def one(arguments: argparse.Namespace) -> dict[str, float]:
    """One run in this process."""
    bootstrap, prefix = arguments.bootstrap, arguments.prefix
    gc.set_threshold(*GC_THRESHOLDS)
    if arguments.against:
        app = other_app(arguments.against, bootstrap, prefix)
        return await drain(app, lambda: int(app.engine.stats["events"]), arguments.count)
    app = worker_app(bootstrap, prefix)
    if arguments.restore:
        await app.start()
        seconds = app.engine.stats.restore_s
        rows = sum(len(rows) for rows in app.engine.store.parts.values())
        return {"rows": rows, "restore_s": seconds, "rows_per_s": rows / seconds}
    return await drain(app, lambda: app.engine.stats.events, arguments.count)


def run(arguments: argparse.Namespace, prefix: str, count: int, *more: str) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.worker_bench", "--bootstrap", arguments.bootstrap]
    done = subprocess.run(
        [*command, "--prefix", prefix, "--count", str(count), *more],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def round_of(arguments: argparse.Namespace, results: dict[str, list[dict[str, float]]], first: str) -> None:
    """One prepared `events` for each build: its topic name ties it to the prefix of its outputs."""
    order = ["worker", "other"] if first == "worker" else ["other", "worker"]
    for name in order:
        if name == "other" and not arguments.against:
            continue
        prefix = f"bench-{uuid.uuid4().hex[:8]}"
        await create(arguments.bootstrap, prefix)
        events = full_name(prefix, "events")
        count = await fill(
            arguments.bootstrap, events, arguments.jobs, arguments.scenario, arguments.interleaved or arguments.jobs
        )
        more = ("--against", str(arguments.against)) if name == "other" else ()
        found = await asyncio.to_thread(run, arguments, prefix, count, *more)
        say(name, found)
        results.setdefault(name, []).append(found)
        if name == "worker":
            restored = await asyncio.to_thread(run, arguments, prefix, count, "--restore")
            say("restore", restored)
            results.setdefault("restore", []).append(restored)


def say(name: str, found: dict[str, float]) -> None:
    """One line."""
    sys.stdout.write(f"{name:14}" + " ".join(f"{key} {value:,.1f}" for key, value in found.items()) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Compare, or (with --prefix) make one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--jobs", type=int, default=25_000)
    parser.add_argument(
        "--scenario", default="realistic_crawl", help="of tests/captures; `success` has 4 entries a job"
    )
    parser.add_argument(
        "--interleaved", type=int, default=0,
        help="jobs alive at a time; 0 = all, so that nearly each event reads and writes a row of its own",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--prefix", help="internal: one run")
    parser.add_argument("--count", type=int, help="internal")
    parser.add_argument("--restore", action="store_true", help="internal")
    arguments = parser.parse_args()
    if arguments.prefix:
        asyncio.run(_one_and_exit(arguments))
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(arguments.rounds):
        asyncio.run(round_of(arguments, results, "worker" if number % 2 == 0 else "other"))
    for name, runs in results.items():
        say(f"median {name}", {key: statistics.median(found[key] for found in runs) for key in runs[0]})


async def _one_and_exit(arguments: argparse.Namespace) -> NoReturn:
    found = await one(arguments)
    sys.stdout.write(json.dumps(found) + "\n")
    exit_now(0)


if __name__ == "__main__":
    main()
