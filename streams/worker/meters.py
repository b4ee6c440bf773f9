"""What the worker counts: collected while a batch is folded, told to the metrics once it is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from streams.core import lifecycle as lc
from streams.core.events import Event
from streams.core.step import Result
from streams.engine import BatchInfo
from streams.telemetry import Metrics
from streams.worker.comparisons import Comparison
from streams.worker.drift import Queue, drift
from streams.worker.index import Group, PartitionIndex

INTERNAL: Final = "internal"
"""`dlq_reason` of a record on which our own code failed."""
SAMPLES_PER_BATCH: Final = 64
"""Records of a batch whose delay is measured: evenly spread, so a batch of thousands costs no more than a small one."""


class QueueMeter:
    """What one queue's records of a batch have come to."""

    __slots__ = ("events", "moves")

    def __init__(self) -> None:
        self.events = 0
        self.moves: dict[tuple[str | None, str], list[int | None]] = {}
        """By (from, to): how long each job was in `from`, in ms; None where that is not known."""


class BatchMeter:
    """What one transaction would add to the metrics. A batch that is folded again gets a new one.

    Numbers, not the records themselves: kept alive until the commit they would cost more than the counting.
    """

    __slots__ = ("alerts", "anomalies", "asked", "compared", "corrected", "dead_letters", "now_ms", "queues")

    def __init__(self) -> None:
        self.queues: dict[tuple[str, str], QueueMeter] = {}
        self.alerts: list[tuple[str, str]] = []
        self.anomalies: list[str] = []
        self.dead_letters: list[str] = []
        self.asked: list[bytes] = []
        self.corrected: Counter[tuple[str, str]] = Counter()
        """Rows that looks of a comparison found wrong, by queue."""
        self.compared: Comparison | None = None
        """The comparison that this partition says it has done."""
        self.now_ms = 0

    def folded(self, event: Event, result: Result) -> None:
        """A record was folded and all it led to is written: not before, for what cannot be written is taken back."""
        name = (event["source"], event["queue"])
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = QueueMeter()
        queue.events += 1
        for transition in result.transitions:
            move = (transition["from"], transition["to"])
            spent = queue.moves.get(move)
            if spent is None:
                spent = queue.moves[move] = []
            spent.append(None if transition["observed"] else transition["duration_ms"])
        if result.alerts:
            self.alerts.extend((alert["rule"], alert["status"]) for alert in result.alerts)
        if result.anomalies:
            self.anomalies.extend(result.anomalies)
        if result.transitions and is_correction(event, result):
            self.corrected[name] += 1


def is_correction(event: Event, result: Result) -> bool:
    """Whether a look at a whole queue, or at a row not heard of, has changed what a row said of a job that is there."""
    first = result.transitions[0]
    asked = event.get("reason") in ("snapshot", "verify")
    return bool(first["observed"] and asked and first["from"] is not None and result.row is not None)


class Meters:
    """The worker's metrics, and the indexes that its gauges are read from."""

    def __init__(
        self, metrics: Metrics, partitions: int = 0, redis: Mapping[Queue, Mapping[str, int]] | None = None
    ) -> None:
        """`redis` = jobs by state as the bridge counts them; compared while all `partitions` are ours."""
        self._metrics = metrics
        self._partitions = partitions
        self._redis = {} if redis is None else redis
        self._indexes: dict[int, PartitionIndex] = {}
        self._batch_s = metrics.child("worker_batch_seconds")
        self._end_to_end_s = metrics.child("end_to_end_seconds")

    def assigned(self, partition: int, index: PartitionIndex) -> None:
        """Count the rows of a partition from now on."""
        self._indexes[partition] = index

    def revoked(self, partition: int) -> None:
        """Count them no more."""
        self._indexes.pop(partition, None)

    def restored(self, seconds: float) -> None:
        """The last recovery took so long."""
        self._metrics.set("table_restore_seconds", seconds)

    def committed(self, meter: BatchMeter, batch: BatchInfo) -> None:
        """Add a committed batch."""
        child = self._metrics.child
        for name, queue in meter.queues.items():
            child("worker_events_total", *name).inc(queue.events)
            if meter.corrected[name]:
                child("worker_rows_corrected_total", *name).inc(meter.corrected[name])
            self._moved(name, queue.moves)
        for reason, count in Counter(meter.dead_letters).items():
            child("worker_dead_letters_total", reason).inc(count)
            if reason == INTERNAL:
                self.failed(count)
        for kind, count in Counter(meter.anomalies).items():
            child("worker_anomalies_total", kind).inc(count)
        for alert, count in Counter(meter.alerts).items():
            child("alerts_total", *alert).inc(count)
        self._measure(batch)

    def failed(self, count: int = 1) -> None:
        """Our own code failed on so many records or rows that were due."""
        self._metrics.child("worker_record_failures_total").inc(count)

    def _moved(self, queue: tuple[str, str], moves: Mapping[tuple[str | None, str], list[int | None]]) -> None:
        for (state_from, to), spent in moves.items():
            self._metrics.child("worker_transitions_total", *queue, state_from or "", to).inc(len(spent))
            histogram = _timed(state_from, to)
            if histogram is not None:
                observe = self._metrics.child(histogram, *queue).observe
                for ms in spent:
                    if ms is not None:
                        observe(ms / 1000)

    def _measure(self, batch: BatchInfo) -> None:
        self._batch_s.observe(batch.seconds)
        for fetch in batch.fetches:
            for record in fetch[:: max(len(fetch) * len(batch.fetches) // SAMPLES_PER_BATCH, 1)]:
                self._end_to_end_s.observe(max(batch.committed_at_ms - record.timestamp, 0) / 1000)

    def refresh(self) -> None:
        """Set the gauges; called every second, since counting groups is cheap and rows are not looked at."""
        jobs: Counter[Group] = Counter()
        firing = dict.fromkeys(("failed", "stuck"), 0)
        for index in self._indexes.values():
            jobs.update(index.counts)
            for rules in index.alerts.values():
                for rule in rules:
                    firing[rule] += 1
        complete = _complete(jobs)
        self._metrics.replace("jobs", complete)
        whole = len(self._indexes) == self._partitions
        self._metrics.replace("jobs_drift", drift(complete, self._redis) if whole else {})
        self._metrics.replace("alerts_firing", {(rule,): count for rule, count in firing.items()})
        self._metrics.set("table_rows", sum(len(index) for index in self._indexes.values()))


def _timed(state_from: str | None, to: str) -> str | None:
    """The histogram that the time in `from` belongs to."""
    if state_from == lc.ACTIVE:
        return "job_run_seconds"
    return "job_wait_seconds" if state_from in lc.READY and to == lc.ACTIVE else None


def _complete(jobs: Mapping[Group, int]) -> dict[tuple[str, ...], float]:
    """Every state of every known queue, zeros too: an absent series cannot be told from a dead process."""
    queues = {(group.source, group.queue) for group in jobs}
    return {(*queue, state): float(jobs.get(Group(*queue, state), 0)) for queue in queues for state in lc.STATES}
