"""CPU and rate of the engine alone: a trivial fold over events and rows of the usual size, exactly once.

    python -m tests.bench.engine_bench --bootstrap localhost:9092 --rounds 3
    python -m tests.bench.engine_bench --bootstrap … --against FILE.py       # side by side with another build

Each run is a process of its own that drains the same prepared topic into new ones. With `--against FILE.py`, a module
with `build_app` and `fold(tx, record)` of the same shape, the two alternate in one command: absolute figures of a
shared machine mean little, ratios of neighbours do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.core.job import partition_of
from streams.engine import EngineOptions, Tx, build, exit_now
from streams.engine.process import GC_THRESHOLDS
from tests.bench.measuring import drain, load_build
from tests.engine.counting import Counting, Topics

PARTITIONS = 8
HISTORY = 16
HEADERS = [("ce_id", b"id"), ("ce_type", b"t"), ("ce_source", b"/a/b"), ("ce_specversion", b"1.0"), ("h", b"v")]
PAD = "x" * 180


def fold_row(get: Callable[[bytes], Any], put: Any, record: Any) -> bytes:
    """Decode, change, append to the history. Returns the transition."""
    event = orjson.loads(record.value)
    row = get(record.key) or {"id": event["job_id"], "history": [], "seq": 0, "pad": PAD}
    row["seq"] += 1
    row["state"] = event["event"]
    history = row["history"]
    history.append({"to": event["event"], "at": event["at"]})
    del history[:-HISTORY]
    put(record.key, row)
    return orjson.dumps({"seq": row["seq"], "to": event["event"], "job_id": event["job_id"], "at": event["at"]})


class Fold(Counting):
    """The engine's handler: one transition per event."""

    def on_record(self, tx: Tx, record: Any) -> None:
        """As the other build's fold does."""
        tx.emit(self.topics.out, record.key, fold_row(tx.get, tx.put, record), HEADERS, record.timestamp)


async def prepare(bootstrap: str, topic: str, events: int, keys: int) -> None:
    """`events` records of about 330 bytes, spread over `keys` keys."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=20)
    await producer.start()
    futures = []
    for number in range(events):
        key = b"default/crawling/%d" % ((number * 2654435761) % keys)
        event = {"source": "default", "queue": "crawling", "job_id": str(number % keys), "event": "completed"}
        value = orjson.dumps({**event, "at": 1_795_478_836_845 + number, "fields": {"returnvalue": PAD}})
        futures.append(await producer.send(topic, value, key, partition_of(key, PARTITIONS)))
        if len(futures) == 5_000:
            await asyncio.gather(*futures)
            futures.clear()
    await asyncio.gather(*futures)
    await producer.stop()


async def _topics(bootstrap: str, names: list[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    await admin.close()


def _ours(bootstrap: str, events: str, run: str) -> tuple[Any, Callable[[], int]]:
    handler = Fold(Topics.of(run))
    options = EngineOptions(
        app_id=run,
        client={"bootstrap_servers": bootstrap},
        events_topic=events,
        table_topic=f"{run}.table",
        linger_s=0.0,
    )
    return build(options, handler), lambda: handler.committed


def _theirs(file: Path, bootstrap: str, events: str, run: str) -> tuple[Any, Callable[[], int]]:
    out = f"{run}.out"

    def fold(tx: Any, record: Any) -> None:
        tx.emit(out, record.key, fold_row(tx.get, tx.put, record), HEADERS, record.timestamp)

    app = load_build(file).build_app(run, bootstrap, fold, events=events, status=f"{run}.table")
    return app, lambda: int(app.engine.stats["events"])


async def measure(bootstrap: str, events: str, count: int, against: Path | None) -> dict[str, float]:
    """Drain `events` once. CPU is that of the process from the first fetch on, threads included."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    await _topics(bootstrap, [f"{run}.table", f"{run}.out"])
    app, done = _theirs(against, bootstrap, events, run) if against else _ours(bootstrap, events, run)
    gc.set_threshold(*GC_THRESHOLDS)
    return await drain(app, done, count)


def _run(arguments: argparse.Namespace, topic: str, against: Path | None) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.engine_bench", "--bootstrap", arguments.bootstrap]
    command += ["--events", str(arguments.events), "--topic", topic]
    if against:
        command += ["--against", str(against)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(done.stderr[-3_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _compare(arguments: argparse.Namespace) -> None:
    topic = f"bench-events-{uuid.uuid4().hex[:8]}"
    asyncio.run(prepare(arguments.bootstrap, topic, arguments.events, arguments.keys))
    builds: dict[str, Path | None] = {"engine": None}
    if arguments.against:
        builds["other"] = arguments.against
    results: dict[str, list[dict[str, float]]] = {name: [] for name in builds}
    for number in range(arguments.rounds):
        for name in builds if number % 2 == 0 else reversed(builds):
            results[name].append(_run(arguments, topic, builds[name]))
            _say(f"{name:8}" + " ".join(f"{key} {value:10.1f}" for key, value in results[name][-1].items()))
    for name, runs in results.items():
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        _say(f"median {name:8}" + " ".join(f"{key} {value:10.1f}" for key, value in medians.items()))


def main() -> None:
    """Compare, or (with --topic) make one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--keys", type=int, default=75_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--topic", help="internal: one run on this prepared topic")
    arguments = parser.parse_args()
    if not arguments.topic:
        _compare(arguments)
        return
    asyncio.run(_one(arguments))


async def _one(arguments: argparse.Namespace) -> NoReturn:
    found = await measure(arguments.bootstrap, arguments.topic, arguments.events, arguments.against)
    _say(json.dumps(found))
    exit_now(0)


if __name__ == "__main__":
    main()
