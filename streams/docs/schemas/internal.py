"""What the bridge tells of itself, and what bridge and worker tell each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from streams.docs.schemas.words import Shape, StreamId


class HealthRecord(Shape):
    """What all records on health have."""

    source: str | None
    """Name of the source in the settings; null where it concerns all."""
    queue: str | None
    """The queue; null where it concerns the whole source."""
    at: int
    """When, ms."""


class Heartbeat(HealthRecord):
    """Every 10 s for each queue."""

    type: Literal["heartbeat"]
    """Always `heartbeat`."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Which history of its stream the queue is in, counted from 0."""
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
    """Entries that were never read, or a history of the stream that ended: then a comparison of the queue follows."""

    type: Literal["gap"]
    """Always `gap`."""
    from_id: StreamId | None
    """Everything up to here is known, and still holds; null with `expired`."""
    to_id: StreamId | None
    """The loss lies before this id, or ends with it; where a history ended: the last entry that was told of it;
    null with `expired`."""
    lost: int | None
    """How many were never read; null where Redis cannot tell."""
    cause: Literal["trimmed", "reset", "rewound", "failover", "expired"]
    """Trimmed unread; the stream was deleted and began anew; its ids went back; the server, or its data, is another;
    the worker was away longer than `events` keeps."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """The history in which they were lost, or that ended."""
    undone: int | None = None
    """Entries that were told and no longer exist; null where that is not known."""
    partition: int | None = None
    """With `expired`: the partition of `events`."""
    offsets: int | None = None
    """With `expired`: at most so many records were never read."""


class Refused(HealthRecord):
    """A queue that cannot be read: told at once and every ten minutes, and once more when it can be again."""

    type: Literal["refused"]
    """Always `refused`."""
    status: Literal["refused", "readmitted"]
    """Whether it is out or back."""
    reason: Literal["wrong_type", "no_permission", "bad_name", "unreadable"]
    """A key is of another type; the user may not read it; the name is none; anything else."""
    error: str | None
    """In words."""


class Snapshot(HealthRecord):
    """How far the comparison of a queue, a look at all its jobs, has come."""

    type: Literal["snapshot"]
    """Always `snapshot`."""
    status: Literal["started", "progress", "finished", "compared"]
    """Where it stands; `compared` is told by the worker of each partition."""
    reason: Literal["first_sight", "gap", "failover", "drift", "request"] | None = None
    """Why it is made."""
    request: str | None = None
    """The comparison's id, or that of the request it answers."""
    jobs: int | None = None
    """Jobs found so far; some twice, since they move meanwhile."""
    done: int | None = None
    """Jobs looked at so far."""
    epoch: Annotated[int, Field(ge=0)] | None = None
    """With `started`: the stream's history,"""
    stream_id: StreamId | None = None
    """its last entry,"""
    observed_at: int | None = None
    """and Redis' clock (ms) then: what was last heard of before that, and is not met, is asked about."""
    took_ms: int | None = None
    """With `finished`: how long it took."""
    partition: int | None = None
    """With `compared`: the partition of `status`."""
    corrected: int | None = None
    """With `compared`: rows that were wrong."""
    closed: int | None = None
    """With `compared`: rows whose job is gone."""


class Table(HealthRecord):
    """What a partition of `status` holds, told by its worker where it changed, at most every 10 s."""

    type: Literal["table"]
    """Always `table`."""
    partition: int
    """The partition."""
    counts: dict[str, dict[str, int]]
    """Rows by `<source>/<queue>`, escaped as in keys, and by state; `unknown`: stuck ones that are in no list."""
    whole: bool
    """Whether what was told of the partition before counts no more: the first record of each owner."""


class Probe(Shape):
    """Internal: somebody asks the bridge to look at a job, or to compare a queue. A wish: it is asked again."""

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job; empty: the whole queue."""
    reason: Literal["probe", "verify", "request", "drift", "gap"]
    """A running job's lock, a row not heard of; of a queue: somebody asks, the counts differ, records were missed."""
    asked_at: int
    """When, ms."""
    request: str | None = None
    """Of a queue: an id, which the comparison's records carry."""


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
    epoch: Annotated[int, Field(ge=0)] = 0
    """Which history of the stream this is, counted from 0."""
    replid: str = ""
    """Redis' replication id."""
    offset: int | None = None
    """Its replication offset when the position had been read; null where it is not known."""
    trail: str = ""
    """The last entries up to the position, packed: what they were."""
    comparisons: list[list[str]] = Field(default_factory=list)
    """Reason and id of each comparison that is not finished: begun again after a stop."""
    observed_at: int = 0
    """Redis' clock (ms) at the newest look."""
