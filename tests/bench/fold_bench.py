"""CPU of the fold alone: decode, check, fold, encode, over crawling jobs of real shape. No Kafka.

python -m tests.bench.fold_bench [--jobs 5000] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import time
from types import SimpleNamespace
from typing import Any

from streams import settings as settings_module
from streams import telemetry
from streams.engine.tx import Tx
from streams.wire import dumps
from streams.worker.clocks import Clocks
from streams.worker.handler import JobStatusHandler
from streams.worker.meters import Meters
from streams.worker.records import ROWS
from tests.core.replay import Bridge, recording

BATCH = 2_000


def workload(jobs: int, scenario: str = "realistic_crawl", interleaved: int = 10) -> list[Any]:
    """Records of `events`: the recorded crawling job, so many times, so many jobs at a time."""
    steps = recording("v5")[scenario]
    templates = [event for k in range(len(steps)) for event in Bridge(steps).entries(k) if event["job_id"]]
    templates = [event for event in templates if event["job_id"] == templates[0]["job_id"]]
    records = []
    for first in range(0, jobs, interleaved):
        for template in templates:
            for number in range(first, min(first + interleaved, jobs)):
                event = {**template, "job_id": f"crawl-drive-507f1f77bcf86cd799439011-{number:024d}"}
                key = f"default/{event['queue']}/{event['job_id']}".encode()
                ms = int(event["stream_id"].partition("-")[0])
                records.append(
                    SimpleNamespace(key=key, value=dumps(event), timestamp=ms, topic="e", partition=0, offset=0)
                )
    return records


def run(records: list[Any]) -> tuple[float, int, int]:
    """CPU seconds, rows, outputs."""
    handler = JobStatusHandler(settings_module.load([], {}), Meters(telemetry.Metrics("worker")), Clocks())
    for _ in handler.on_recovered(0, {}):
        pass
    rows: dict[bytes, bytes] = {}
    outputs = 0
    begin = time.process_time()
    for at in range(0, len(records), BATCH):
        batch = records[at : at + BATCH]
        tx = Tx(0, rows, "status", 900_000, ROWS)
        on_record = handler.on_record
        for record in batch:
            on_record(tx, record)
        encoded = tx.encode()
        outputs += len(tx.outputs)
        for key, raw in encoded.items():
            rows[key] = raw or b""
        info = SimpleNamespace(seconds=0.01, fetches=[batch], committed_at_ms=0, events=len(batch))
        handler.on_committed(0, tx.staged, info)  # type: ignore[arg-type]
    return time.process_time() - begin, len(rows), outputs


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--scenario", default="realistic_crawl")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    records = workload(args.jobs, args.scenario)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if args.profile:
        cProfile.runctx("run(records)", globals(), {"records": records}, sort="tottime")
        return
    seconds, rows, outputs = run(records)
    size = sum(len(record.value) for record in records) / len(records)
    print(  # noqa: T201 - what a benchmark is for
        f"{len(records)} events of {size:.0f} bytes, {rows} rows, {outputs} outputs: "
        f"{seconds / len(records) * 1e6:.1f} CPU s per million events"
    )


if __name__ == "__main__":
    main()
