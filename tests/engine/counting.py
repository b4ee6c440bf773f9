"""A worker with a trivial fold, and what the proofs compare it with: every event makes one numbered transition.

Row: {"count", "sum", "last"}. Transition: {"n", "event"} with n = the row's count. A fold that runs twice, or on
a row that is behind, shows in the numbers; an event that is skipped shows in the sums.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from typing import Any

from streams.engine import (
    BatchInfo,
    ConsumerRecord,
    EngineOptions,
    Row,
    Tx,
    Unwritable,
    build,
    exit_now,
    run,
)
from streams.wire import dumps, loads


@dataclass(frozen=True)
class Topics:
    events: str
    table: str
    out: str

    @classmethod
    def of(cls, prefix: str) -> Topics:
        return cls(f"{prefix}.events", f"{prefix}.table", f"{prefix}.out")


def folded(row: dict[str, Any] | None, number: int) -> dict[str, Any]:
    row = row or {"count": 0, "sum": 0, "last": None}
    return {"count": row["count"] + 1, "sum": row["sum"] + number, "last": number}


class Counting:
    """Counts events per key; `ticks` = number of first ticks that change a row of the partition."""

    def __init__(self, topics: Topics, ticks: int = 0) -> None:
        self.topics = topics
        self.ticks = ticks
        self.ticked: dict[int, int] = {}
        self.committed = 0
        self.rows: dict[int, int] = {}
        self.expired: list[tuple[int, int, int]] = []

    def on_record(self, tx: Tx, record: ConsumerRecord) -> None:
        number = loads(record.value)["number"]
        row = folded(tx.get(record.key), number)
        tx.put(record.key, row)
        value = dumps({"n": row["count"], "event": number})
        tx.emit(self.topics.out, record.key, value, [("n", b"1")], record.timestamp)

    def on_tick(self, tx: Tx, now_ms: int) -> None:
        if self.ticked.get(tx.partition, 0) < self.ticks:
            key = b"tick-%d" % tx.partition
            row = tx.get(key) or {"ticks": 0}
            tx.put(key, {"ticks": row["ticks"] + 1, "at": now_ms})

    def on_unwritable(self, tx: Tx, record: ConsumerRecord | None, error: Unwritable) -> None:
        tx.emit(self.topics.out, record.key if record else None, error.reason.encode())

    def on_failed(self, tx: Tx, record: ConsumerRecord | None, error: Exception) -> None:
        tx.emit(self.topics.out, record.key if record else None, type(error).__name__.encode())

    def on_recovered(self, partition: int, rows: dict[bytes, bytes]) -> None:
        self.rows[partition] = len(rows)

    def on_expired(self, partition: int, first: int, upto: int) -> None:
        self.expired.append((partition, first, upto))

    def on_committed(self, partition: int, staged: dict[bytes, Row | None], batch: BatchInfo) -> None:
        self.committed += batch.events
        if b"tick-%d" % partition in staged:
            self.ticked[partition] = self.ticked.get(partition, 0) + 1

    def on_revoked(self, partitions: set[int]) -> None:
        for partition in partitions:
            self.rows.pop(partition, None)


def options(bootstrap: str, prefix: str, **changes: Any) -> EngineOptions:
    topics = Topics.of(prefix)
    settings: dict[str, Any] = {
        "app_id": prefix,
        "client": {"bootstrap_servers": bootstrap},
        "events_topic": topics.events,
        "table_topic": topics.table,
        "output_topics": (topics.out,),
    }
    return EngineOptions(**{**settings, **changes})


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def work(bootstrap: str, prefix: str, changes: dict[str, Any], ticks: int) -> int:
    handler = Counting(Topics.of(prefix), ticks)
    app = build(options(bootstrap, prefix, **changes), handler)
    code = await run(app, tick_interval_s=0.2, on_started=lambda: say("STARTED"))
    say(json.dumps({"code": code, "events": app.engine.stats.events}))
    return code


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--ticks", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    exit_now(asyncio.run(work(arguments.bootstrap, arguments.prefix, arguments.options, arguments.ticks)))


if __name__ == "__main__":
    main()
