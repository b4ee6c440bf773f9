"""Every topic, declared in one place: name, key, partitions, cleanup, retention, record limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DAY_MS: Final = 86_400_000

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


TOPICS: Final[tuple[Topic, ...]] = (
    Topic(EVENTS, "job key", "delete", "one record per BullMQ stream entry and per observation", 7 * DAY_MS),
    Topic(STATUS, "job key", "compact", "the JobStatus row; null = the job is gone"),
    Topic(TRANSITIONS, "job key", "delete", "one record per change of state", 30 * DAY_MS),
    Topic(ALERTS, "fingerprint", "compact,delete", "the alert as it now stands", 30 * DAY_MS),
    Topic(PROBES, "job key", "delete", "internal: questions of the worker to the bridge", DAY_MS),
    Topic(CHECKPOINTS, "stream", "compact", "internal: how far the bridge has come", partitions=1),
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
