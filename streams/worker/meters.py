"""What the worker counts: collected while a batch is folded, told to the metrics once it is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from streams.core import lifecycle as lc
from streams.core.events import Event
from streams.core.step import Result
from streams.engine import BatchInfo
from streams.telemetry import Metrics
from streams.worker.counts import JUDGE
from streams.worker.drift import Queue, drift
from streams.worker.index import Group, PartitionIndex

if TYPE_CHECKING:
    from streams.worker.repairs import Repaired

INTERNAL: Final = "internal"
"""`dlq_reason` of a record on which our own code failed."""
SECONDS_BETWEEN_LOOKS: Final = 60
SILENT_LOOKS: Final = 10
"""A queue without rows, events and heartbeats is forgotten after so many looks in a row."""
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

    __slots__ = (
        "alerts", "anomalies", "answered", "asked", "corrected", "dead_letters", "doubted", "probes", "queues",
        "repaired",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queues: dict[tuple[str, str], QueueMeter] = {}
        self.alerts: list[tuple[str, str]] = []
        self.anomalies: list[str] = []
        self.dead_letters: list[str] = []
        self.asked: list[bytes] = []
        """Keys whose deadline has come and whose jobs are asked about."""
        self.doubted: list[bytes] = []
        """Keys whose jobs are asked about because of an entry."""
        self.answered: set[bytes] = set()
        """Keys at whose jobs a look has come."""
        self.probes: list[str] = []
        self.corrected: Counter[tuple[str, str]] = Counter()
        """Rows that looks of a comparison found wrong, by queue."""
        self.repaired: Repaired | None = None
        """What the tick has told of this partition's repair."""

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
    """The worker's metrics, and the indexes that its gauges are read from.

    These gauges are worked out when somebody asks, in a thread: tens of thousands of numbers that nobody needs between
    two readings. So what is read there is copied whole (`dict.copy` cannot be interrupted).
    """

    def __init__(
        self,
        metrics: Metrics,
        partitions: int = 0,
        redis: Mapping[Queue, Mapping[str, int]] | None = None,
        balance: Callable[[], Mapping[tuple[str, ...], float]] = dict,
    ) -> None:
        """`redis` = jobs by state as the bridge counts them; compared while all `partitions` are ours. `balance` = how
        far all workers' counts are from these: told by the one that has the first partition, where there are several.
        """
        self._balance = balance
        self._metrics = metrics
        self._partitions = partitions
        self._redis: Mapping[Queue, Mapping[str, int]] = {} if redis is None else redis
        self._indexes: dict[int, PartitionIndex] = {}
        self._jobs: dict[tuple[str, ...], float] = {}
        self._moved_queues: set[Queue] = set()
        self._silent: dict[Queue, int] = {}
        self._refreshed = 0
        self._batch_s = metrics.child("worker_batch_seconds")
        self._end_to_end_s = metrics.child("end_to_end_seconds")
        metrics.read("jobs", self._read_jobs)
        metrics.read("jobs_drift", self._read_drift)
        metrics.read("alerts_firing", self._read_firing)
        metrics.read("table_rows", lambda: {(): sum(map(len, self._indexes.copy().values()))})

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
        self._moved_queues.update(meter.queues)
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
        for reason, count in Counter(meter.probes).items():
            child("worker_probes_total", reason).inc(count)
        for alert, count in Counter(meter.alerts).items():
            child("alerts_total", *alert).inc(count)
        self._measure(batch)

    def expired(self) -> None:
        """Records of `events` were gone before they were read."""
        self._metrics.child("worker_gaps_total").inc()

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
        """Forget queues that are gone; to be called every second, does its work once a minute."""
        self._refreshed += 1
        if self._refreshed % SECONDS_BETWEEN_LOOKS:
            return
        known = self._moved_queues.union(self._redis, *[index.queues for index in self._indexes.values()])
        self._moved_queues.clear()
        silent = {queue: looks + 1 for queue, looks in self._silent.items() if queue not in known}
        for queue in [queue for queue, looks in silent.items() if looks > SILENT_LOOKS]:
            del silent[queue]
            self._metrics.forget({"source": queue[0], "queue": queue[1]})
        self._silent = dict.fromkeys(known, 0) | silent

    def _read_jobs(self) -> Mapping[tuple[str, ...], float]:
        jobs: dict[Group, int] = {}
        for index in self._indexes.copy().values():
            for group, count in index.counts.copy().items():
                jobs[group] = jobs.get(group, 0) + count
        self._jobs = _complete(jobs, dict(self._redis))
        return self._jobs

    def _read_drift(self) -> Mapping[tuple[str, ...], float]:
        """Of the jobs just read: this gauge stands behind them."""
        whole = len(self._indexes) == self._partitions
        if not whole:
            return self._balance() if JUDGE in self._indexes else {}
        lost: Counter[Queue] = Counter()
        for index in self._indexes.copy().values():
            lost.update(index.lost.copy())
        return drift(self._jobs, dict(self._redis), lost)

    def _read_firing(self) -> Mapping[tuple[str, ...], float]:
        firing = dict.fromkeys(("failed", "stuck"), 0)
        for index in self._indexes.copy().values():
            for rule, count in index.firing.copy().items():
                firing[rule] = firing.get(rule, 0) + count
        return {(rule,): count for rule, count in firing.items()}


def _timed(state_from: str | None, to: str) -> str | None:
    """The histogram that the time in `from` belongs to."""
    if state_from == lc.ACTIVE:
        return "job_run_seconds"
    return "job_wait_seconds" if state_from in lc.READY and to == lc.ACTIVE else None


def _complete(jobs: Mapping[Group, int], heard_of: Collection[Queue]) -> dict[tuple[str, ...], float]:
    """Every state of every known queue, zeros too: an absent series cannot be told from a dead process."""
    queues = {(source, queue) for source, queue, _ in jobs}.union(heard_of)
    complete: dict[tuple[str, ...], float] = {(*queue, state): 0 for queue in queues for state in lc.STATES}
    complete.update((group, count) for group, count in jobs.items())
    return complete
