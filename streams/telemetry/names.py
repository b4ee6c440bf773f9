"""Every metric: name, type, labels, unit, meaning. Bridge, worker and docs/metrics.md take them from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "bullmq_streams_"

BRIDGE: Final = "bridge"
WORKER: Final = "worker"
Role = Literal["bridge", "worker"]

LATENCY_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""From a commit to an outage of half an hour."""
JOB_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400, 604_800)
"""From a cache refresh to a job that waited a week: jobs' times have heavy tails."""
HELD_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From a turn of the loop that nobody notices to one that makes a group think its member dead."""
BATCH_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` has no prefix; `buckets` are the upper bounds of a histogram, in `unit`."""

    role: Role
    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus sees it."""
        return PREFIX + self.name


_QUEUE: Final = ("source", "queue")

METRICS: Final = (
    Metric(BRIDGE, "counter", "bridge_entries_read_total", "Stream entries read from Redis.", _QUEUE, "entries"),
    Metric(BRIDGE, "counter", "bridge_events_published_total", "Records committed to `events`.", _QUEUE, "records"),
    Metric(BRIDGE, "counter", "bridge_entries_lost_total", "Entries that Redis trimmed unread.", _QUEUE, "entries"),
    Metric(BRIDGE, "counter", "bridge_gaps_total", "Times that entries were lost.", _QUEUE, "gaps"),
    Metric(BRIDGE, "counter", "bridge_unenriched_total", "Entries whose job was gone by then.", _QUEUE, "entries"),
    Metric(BRIDGE, "counter", "bridge_dead_letters_total", "Entries set aside, by reason.", ("reason",), "records"),
    Metric(BRIDGE, "gauge", "bridge_source_lag_seconds", "How far the commits are behind.", _QUEUE, "seconds"),
    Metric(BRIDGE, "gauge", "bridge_buffered_entries", "Entries read and not yet handed on.", _QUEUE, "entries"),
    Metric(BRIDGE, "gauge", "bridge_queues_refused", "Queues that cannot be read.", ("source", "reason"), "queues"),
    Metric(BRIDGE, "gauge", "bridge_turn_bytes", "Bytes that the last turn read from Redis.", ("source",), "bytes"),
    Metric(BRIDGE, "counter", "bridge_turns_halved_total", "Turns that took too long.", ("source",), "turns"),
    Metric(BRIDGE, "gauge", "bridge_memory_held_bytes", "Held and not yet on Kafka.", ("what",), "bytes"),
    Metric(BRIDGE, "counter", "bridge_snapshots_total", "Looks at all jobs of a queue.", ("reason",), "snapshots"),
    Metric(BRIDGE, "counter", "bridge_probes_dropped_total", "Questions not answered.", ("reason",), "probes"),
    Metric(
        BRIDGE, "histogram", "loop_held_seconds", "How long the event loop was held at a time.", (), "seconds", HELD_S
    ),
    Metric(BRIDGE, "gauge", "clock_skew_seconds", "How far the first clock is ahead.", ("between",), "seconds"),
    Metric(BRIDGE, "gauge", "ready", "1 while `/readyz` answers 200."),
    Metric(BRIDGE, "gauge", "build_info", "1, with the version that runs.", ("version",)),
    Metric(WORKER, "counter", "worker_events_total", "Records of `events` folded and committed.", _QUEUE, "records"),
    Metric(
        WORKER, "counter", "worker_transitions_total", "Changes of state; `from` is empty for the first of a life.",
        (*_QUEUE, "from", "to"), "transitions",
    ),
    Metric(WORKER, "counter", "worker_anomalies_total", "What the table of transitions did not expect.", ("kind",)),
    Metric(WORKER, "counter", "worker_dead_letters_total", "Records set aside, by reason.", ("reason",), "records"),
    Metric(
        WORKER, "counter", "worker_record_failures_total", "Records on which the fold failed; they are dead letters.",
        (), "records",
    ),
    Metric(WORKER, "counter", "worker_probes_total", "Questions to the source, by reason.", ("reason",), "probes"),
    Metric(
        WORKER, "counter", "worker_rows_corrected_total", "Rows that a comparison found wrong or gone.",
        _QUEUE, "rows",
    ),
    Metric(
        WORKER, "histogram", "loop_held_seconds", "How long the event loop was held at a time.", (), "seconds", HELD_S
    ),
    Metric(WORKER, "gauge", "clock_skew_seconds", "How far the first clock is ahead.", ("between",), "seconds"),
    Metric(WORKER, "gauge", "ready", "1 while `/readyz` answers 200."),
    Metric(WORKER, "gauge", "build_info", "1, with the version that runs.", ("version",)),
    Metric(
        WORKER, "counter", "worker_gaps_total", "Times that records of `events` were gone before they were read.",
        (), "gaps",
    ),
    Metric(WORKER, "histogram", "worker_batch_seconds", "Fold and commit of a batch.", (), "seconds", BATCH_S),
    Metric(WORKER, "gauge", "table_rows", "Rows of the table that this worker holds.", (), "rows"),
    Metric(WORKER, "gauge", "table_restore_seconds", "Duration of the last recovery of the table.", (), "seconds"),
    Metric(WORKER, "gauge", "jobs", "Jobs of this worker's partitions by state.", (*_QUEUE, "state"), "jobs"),
    Metric(
        WORKER, "gauge", "jobs_drift", "Jobs by state, the table's count less the one in Redis.",
        (*_QUEUE, "state"), "jobs",
    ),
    Metric(WORKER, "histogram", "job_wait_seconds", "Time from runnable to picked up.", _QUEUE, "seconds", JOB_S),
    Metric(WORKER, "histogram", "job_run_seconds", "Time from picked up to its end.", _QUEUE, "seconds", JOB_S),
    Metric(WORKER, "gauge", "alerts_firing", "Alerts firing in this worker's partitions.", ("rule",), "alerts"),
    Metric(WORKER, "counter", "alerts_total", "Alert records written.", ("rule", "status"), "records"),
    Metric(
        WORKER, "histogram", "end_to_end_seconds", "From the entry in Redis to the commit of its row.",
        (), "seconds", LATENCY_S,
    ),
)  # fmt: skip
