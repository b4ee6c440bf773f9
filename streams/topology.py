"""Every topic, declared in one place: name, key, partitions, cleanup, retention, record limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MIB: Final = 1 << 20

EVENTS: Final = "events"
STATUS: Final = "status"
TRANSITIONS: Final = "transitions"
ALERTS: Final = "alerts"
PROBES: Final = "probes"
CHECKPOINTS: Final = "checkpoints"
HEALTH: Final = "health"
DEAD_LETTERS: Final = "dead-letters"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic's declaration. `partitions` None = the configured number; `retention_ms` None = the broker's own."""

    name: str
    key: str
    cleanup: str
    value: str
    retention_ms: int | None = None
    partitions: int | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, str]:
        """Topic settings as the broker takes them (all strings)."""
        config = {"cleanup.policy": self.cleanup, **self.extra}
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        return config


# What a start reads is what is not cleaned yet: by Kafka's defaults (segments of 1 GiB or a week, half of it dirty)
# that is up to a week of versions. The measurement is in docs/adr/0014-cleaning-of-tables.md.
_STATUS_CLEANING: Final = {
    "segment.bytes": str(32 * MIB),
    "segment.ms": str(6 * HOUR_MS),
    "min.cleanable.dirty.ratio": "0.2",
    "max.compaction.lag.ms": str(DAY_MS),
    # How long a reader of the topic, or a store that was kept, may be away without missing that a job is gone.
    "delete.retention.ms": str(7 * DAY_MS),
}
_CHECKPOINTS_CLEANING: Final = {
    "segment.bytes": str(16 * MIB),
    "segment.ms": str(HOUR_MS),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(HOUR_MS),
    # Nothing is ever deleted here, but each transaction's marker is kept so long.
    "delete.retention.ms": str(HOUR_MS),
}

TOPICS: Final[tuple[Topic, ...]] = (
    Topic(EVENTS, "job key", "delete", "one record per BullMQ stream entry and per observation", 7 * DAY_MS),
    Topic(STATUS, "job key", "compact", "the JobStatus row; null = the job is gone", extra=_STATUS_CLEANING),
    Topic(TRANSITIONS, "job key", "delete", "one record per change of state", 30 * DAY_MS),
    Topic(ALERTS, "fingerprint", "compact,delete", "the alert as it now stands", 30 * DAY_MS),
    Topic(PROBES, "job key", "delete", "internal: questions of the worker to the bridge", DAY_MS),
    Topic(
        CHECKPOINTS,
        "stream",
        "compact",
        "internal: how far the bridge has come",
        partitions=1,
        extra=_CHECKPOINTS_CLEANING,
    ),
    Topic(HEALTH, "<source>/<queue>", "delete", "heartbeats, gaps, snapshots", 30 * DAY_MS, partitions=1),
    Topic(
        DEAD_LETTERS,
        "original key",
        "delete",
        "original bytes; origin and reason in headers",
        30 * DAY_MS,
        partitions=1,
    ),
)


def full_name(prefix: str, topic: str) -> str:
    """`<prefix>.<topic>.v1`, e.g. `bullmq.status.v1`."""
    return f"{prefix}.{topic}.v1"
