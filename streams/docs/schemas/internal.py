"""What the bridge tells of itself, and what bridge and worker tell each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from streams.docs.schemas.words import Ms, Shape, StreamId


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
    epoch: Ms = 0
    """Which history of its stream the position belongs to; absent in records of 0.1."""


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
    cause: Literal["trimmed", "reset", "rewound", "failover"]
    """Trimmed unread; the stream was deleted and began anew; its ids went back; another server with another history."""
    epoch: Ms = 0
    """The history that ended, or in which the loss lies; absent in records of 0.1."""
    undone: Ms | None = None
    """Entries that were read and no longer exist; null where it is not known."""


class Expired(Shape):
    """Records of events that a worker never saw, since it was away longer than they are kept."""

    type: Literal["gap"]
    """Always `gap`."""
    cause: Literal["expired"]
    """Always `expired`."""
    source: None
    """Always null: a partition holds many queues."""
    queue: None
    """Always null."""
    at: int
    """When, ms."""
    from_id: None
    """Always null: it is counted in offsets."""
    to_id: None
    """Always null."""
    lost: None
    """Always null."""
    partition: Ms
    """Of `events`."""
    offsets: Ms
    """How many records at most."""


class Refused(HealthRecord):
    """A queue that cannot be opened, told once, and once more when it can. Its name stands there escaped."""

    type: Literal["refused"]
    """Always `refused`."""
    status: Literal["refused", "readmitted"]
    """Passed over from now on; or read again."""
    reason: Literal["wrong_type", "no_permission", "bad_name", "unreadable"]
    """A key of another type; no right to read it; a name that cannot be written on Kafka; another error."""
    error: str
    """Redis' words, in one line."""


Why = Literal["first_sight", "gap", "failover", "drift", "request"]


class Snapshot(HealthRecord):
    """How far the bridge's look at all jobs of a queue has come."""

    type: Literal["snapshot"]
    """Always `snapshot`."""
    status: Literal["started", "progress", "finished"]
    """Where it stands."""
    reason: Why
    """Why it is made."""
    jobs: Ms
    """Jobs found so far."""
    done: Ms
    """Jobs looked at so far."""
    request: str | None = None
    """Id of the comparison; absent in records of 0.1."""
    epoch: Ms | None = None
    """On `started`, with `stream_id` and `observed_at`: rows that are older than this and were not touched since are
    asked about at the end."""
    stream_id: StreamId | None = None
    """See `epoch`."""
    observed_at: Ms | None = None
    """See `epoch`."""
    took_ms: Ms | None = None
    """On `finished`: how long it took."""


class Compared(HealthRecord):
    """A worker has brought one partition in line with a comparison. The command `snapshot` adds them up."""

    type: Literal["snapshot"]
    """Always `snapshot`."""
    status: Literal["compared"]
    """Always `compared`."""
    request: str
    """Id of the comparison."""
    partition: Ms
    """Of `status`."""
    corrected: Ms
    """Rows that were wrong."""
    closed: Ms
    """Rows whose job is gone."""
    reason: Why | None = None
    """Why the comparison was made, where the worker knows."""


class TableCounts(Shape):
    """What a worker holds of one partition, at most each 10 s, where it has changed."""

    type: Literal["table"]
    """Always `table`."""
    source: None
    """Always null."""
    queue: None
    """Always null."""
    at: int
    """When, ms."""
    partition: Ms
    """Of `status`."""
    counts: dict[str, dict[str, int]]
    """Jobs by state, by `<source>/<queue>` escaped as in keys."""


class Probe(Shape):
    """Internal: the bridge is asked to look at a job, or at all of a queue. Dropped when older than 10 s; who asks asks
    again.
    """

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job; empty for a comparison of the whole queue."""
    reason: Literal["probe", "verify", "request", "drift", "gap"]
    """A running job's lock; a row not heard of. Of a whole queue: by the command `snapshot`; counts that differ; a
    worker that was away too long."""
    asked_at: int
    """When, ms."""
    request: str | None = None
    """Id of the comparison that is asked for."""


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
