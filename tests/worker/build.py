"""A worker's handler on a transaction without Kafka."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from streams import telemetry
from streams.core.events import is_look, ms_of
from streams.core.job import job_key
from streams.engine import BatchInfo, ConsumerRecord, Tx
from streams.engine.tx import CheckedTx
from streams.settings import Settings, load
from streams.wire import dumps, loads
from streams.worker.clocks import Clocks
from streams.worker.handler import JobStatusHandler
from streams.worker.meters import Meters
from streams.worker.records import ROWS
from streams.worker.repairs import Repairs

PARTITION = 3
TABLE = "t.status.v1"


def settings(**environ: str) -> Settings:
    """The defaults on topics t.*.v1; more by the names of the environment, without the prefix."""
    named = {f"BULLMQ_STREAMS_{name}": value for name, value in environ.items()}
    return load([], {"BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": "t", **named})


def record(value: Any, key: bytes | None = None, offset: int = 0, timestamp: int = 1_234) -> ConsumerRecord:
    """A record of `events`: the value's own key unless told; bytes and None go in as they are."""
    if isinstance(value, dict) and key is None:
        key = job_key(value["source"], value["queue"], value["job_id"]).encode()
    raw = value if value is None or isinstance(value, bytes) else dumps(value)
    return SimpleNamespace(
        topic="t.events.v1", partition=PARTITION, offset=offset, timestamp=timestamp, key=key, value=raw, headers=()
    )


def batch(*records: ConsumerRecord, committed_at_ms: int = 2_000) -> BatchInfo:
    return BatchInfo(
        fetches=[list(records)] if records else [], events=len(records), rows=0, outputs=0, attempts=1,
        fold_s=0.002, commit_s=0.001, committed_at_ms=committed_at_ms,
    )  # fmt: skip


class Worker:
    """One partition of a worker: the engine's part is played by hand.

    Its clocks stand at `now_ms`: the time of the newest event folded, unless a tick was later.
    """

    def __init__(
        self,
        *,
        limit_bytes: int = 900_000,
        rows: dict[bytes, Any] | None = None,
        repairs: Repairs | None = None,
        **environ: str,
    ) -> None:
        self.metrics = telemetry.Metrics("worker")
        self.meters = Meters(self.metrics)
        self.now_ms = 0
        self.clocks = Clocks(self.metrics, lambda: self.now_ms, lambda: self.now_ms)
        self.silent = False
        self.handler = JobStatusHandler(settings(**environ), self.meters, self.clocks, repairs)
        self.limit_bytes = limit_bytes
        self.rows = {key: dumps(row) for key, row in (rows or {}).items()}
        self.recover()

    def recover(self) -> None:
        """Build the index out of the rows, as after an assignment."""
        for _ in self.handler.on_recovered(PARTITION, self.rows):
            pass

    def tx(self, kind: type[Tx] = Tx) -> Tx:
        return kind(PARTITION, self.rows, TABLE, self.limit_bytes, ROWS)

    def checked(self) -> CheckedTx:
        return CheckedTx(PARTITION, self.rows, TABLE, self.limit_bytes, ROWS)

    def commit(self, tx: Tx, *records: ConsumerRecord) -> None:
        for key, raw in tx.encode().items():
            if raw is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = raw
        self.handler.on_committed(PARTITION, tx.staged, batch(*records))

    def fold(self, *values: Any) -> list[Any]:
        """Fold and commit; returns the outputs."""
        tx = self.tx()
        records = [value if isinstance(value, SimpleNamespace) else record(value) for value in values]
        for one in records:
            self.handler.on_record(tx, one)
        self.now_ms = max([self.now_ms, *(_time_of(value) for value in values)])
        self.commit(tx, *records)
        return tx.outputs

    def tick(self, now_ms: int) -> list[Any]:
        """A tick in a transaction of its own; returns the outputs."""
        self.at(now_ms)
        tx = self.tx()
        self.handler.on_tick(tx, now_ms)
        self.commit(tx)
        return tx.outputs

    def at(self, now_ms: int) -> None:
        """Set the clocks; a heartbeat of this moment comes in, unless the bridge is silent."""
        self.now_ms = now_ms
        if not self.silent:
            self.clocks.take({"type": "heartbeat", "at": now_ms})

    def row(self, key: bytes = b"s/q/1") -> Any:
        return loads(self.rows[key]) if key in self.rows else None

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample, 0 where there is none."""
        families = text_string_to_metric_families(self.metrics.render().decode())
        wanted = (f"bullmq_streams_{name}", labels)
        samples = (sample for family in families for sample in family.samples)
        return next((sample.value for sample in samples if (sample.name, sample.labels) == wanted), 0.0)


def _time_of(value: Any) -> int:
    """When an event was observed or written; 0 for what is none."""
    if not isinstance(value, dict):
        return 0
    at: int = value["observed_at"] if is_look(value) else ms_of(value["stream_id"])
    return at


def topics_of(outputs: list[Any]) -> list[str]:
    return [topic.split(".")[1] for topic, *_ in outputs]
