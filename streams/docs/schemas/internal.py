"""What the bridge tells of itself, and what bridge and worker tell each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from streams.docs.schemas.words import Shape, StreamId


class HealthRecord(Shape):
    """What all records on health have."""

    source: str
    """Name of the source in the settings."""
    queue: str | None
    """The queue; null where it concerns the whole source."""
    at: int
    """When, ms."""


class Heartbeat(HealthRecord):
    """Every 10 s for each queue."""

    type: Literal["heartbeat"]
    """Always `heartbeat`."""
    position: StreamId
    """Last entry handed on."""
    lag_ms: Annotated[int, Field(ge=0)]
    """How far it is behind what has been read."""
    entries_read: int
    """Entries handed on since the start."""
    entries_lost: int
    """Entries lost since the start."""
    paused: bool
    """Whether the queue is paused."""
    counts: dict[str, int]
    """Jobs by BullMQ's list or set."""


class Gap(HealthRecord):
    """Entries that were never read."""

    type: Literal["gap"]
    """Always `gap`."""
    from_id: StreamId
    """Everything up to here is known."""
    to_id: StreamId
    """The loss lies before this id, or ends with it."""
    lost: int | None
    """How many; null where Redis cannot tell."""
    cause: Literal["trimmed", "reset", "rewound"]
    """Trimmed unread; the stream was deleted and began anew; its ids went back."""


class Snapshot(HealthRecord):
    """How far the look at all jobs of a queue has come."""

    type: Literal["snapshot"]
    """Always `snapshot`."""
    status: Literal["started", "progress", "finished"]
    """Where it stands."""
    reason: str
    """Why it is made."""
    jobs: int
    """Jobs found so far."""
    done: int
    """Jobs looked at so far."""


class Probe(Shape):
    """Internal: the worker asks the bridge to look at a job. Dropped when older than 10 s; it asks again."""

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job."""
    reason: Literal["probe", "verify"]
    """A running job's lock, or a row not heard of."""
    asked_at: int
    """When, ms."""


class Checkpoint(Shape):
    """Internal: how far the bridge has come in one stream, written in the transaction of the events it covers."""

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    position: StreamId
    """Last entry on `events`."""
    entries_added: int | None
    """The stream's own count then; null where it is not known."""
    run_id: str
    """Redis' run id."""
    paused: bool
    """Whether the queue was paused there."""
    snapshot: Literal["pending", "done"]
    """`pending` is begun again after a stop."""
    at: int
    """When, ms."""
    pausing: Literal["pause", "resume"] | None = None
    """A pause or resume whose jobs have not all been told yet: begun again after a stop."""
