"""Records of the topic events: entries and observations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from streams.docs.schemas.words import Ms, Place, Shape, StreamId

Epoch = Annotated[int, Field(ge=0)]


class Parent(Shape):
    """The parent of a flow's child, with whatever options BullMQ keeps beside it."""

    id: str | None
    """The parent's id."""
    queue: str | None
    """The parent's queue."""


class Job(Shape):
    """A job's hash in Redis under our names. What the hash has not is absent.

    A number that is none, or is too large for 64 bits, is null; of times and delays that are too large the nearest that
    fits.
    """

    name: str | None = None
    """The job's name."""
    data: Any = None
    """The payload, parsed; text where it is no JSON."""
    opts: dict[str, Any] | None = None
    """BullMQ's options under its own (short) keys; absent where they are no object."""
    timestamp: int | None = None
    """Creation, ms."""
    delay: int | None = None
    """The hash's `delay`: ms from the moment it was set."""
    priority: int | None = None
    """0 = none."""
    progress: Any = None
    """Whatever the processor reported last."""
    attempts_made: int | None
    """`attemptsMade`, else `atm`, else 0; null where what stands there is no number."""
    attempts_started: int | None = None
    """`ats`; BullMQ 4 has none."""
    counts_starts: Literal[True] | None = None
    """BullMQ 4 wrote this hash: it counts an attempt when it starts."""
    stalled_count: int | None
    """`stc`, else `stalledCounter`, else 0; null where what stands there is no number."""
    processed_on: int | None = None
    """Last time that a worker took it, ms."""
    finished_on: int | None = None
    """End, ms."""
    failed_reason: str | None = None
    """Error text of the last failed attempt."""
    stacktrace: list[Any] | None = None
    """One stack for each failed attempt; absent where it is no list."""
    return_value: Any = None
    """The processor's result, parsed; text where it is no JSON."""
    parent: Parent | None = None
    """Of a flow's child."""
    deferred_failure: str | None = None
    """`defa`: the job will be failed as soon as a worker takes it."""
    processed_by: str | None = None
    """`pb`: the worker's name, where it has one."""
    repeat_job_key: str | None = None
    """`rjk`: scheduler that made the job."""
    deduplication_id: str | None = None
    """`deid`."""


class Entry(Shape):
    """One entry of a queue's event stream in Redis. `event` is BullMQ's word; custom events pass through."""

    kind: Literal["entry"] | None = None
    """Tells it from an observation: a custom event may bear any name. Absent in records of 0.1."""
    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job, empty for entries that concern none (`paused`, `drained`, …)."""
    event: str
    """`added`, `waiting`, `active`, `progress`, `completed`, …"""
    epoch: Epoch = 0
    """Which history of its stream it belongs to; 0 where absent."""
    stream_id: StreamId
    """The entry's id in Redis."""
    fields: dict[str, str]
    """The entry's other fields, untouched."""
    queue_paused: bool
    """Whether the queue was paused at this entry."""
    job: Job | None
    """The job's hash; null where it was gone, not read, or not needed."""
    enriched: bool
    """Whether `job` is there, and whole."""
    job_as_of: StreamId | None = None
    """The stream's last id when the hash was read: the hash may be newer than the entry."""
    where: Literal["wait", "prioritized"] | None = None
    """On `waiting`: where the job was; null when it had already moved on."""
    stalled: Literal[True] | None = None
    """On `waiting`: a stalled check put the job back."""
    exhausted: int | None = None
    """On `failed`: attempts made, where the same script says that they are used up."""
    cut: list[str] | None = None
    """Paths of texts that were cut (they end in `… (N bytes)`), and of fields of the hash too large to be read."""


class Observation(Shape):
    """What a look at a job in Redis has shown, placed behind every entry up to `stream_id` and before the rest."""

    kind: Literal["look"] | None = None
    """Tells it from an entry. Absent in records of 0.1."""
    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job."""
    event: Literal["observed"]
    """Always `observed`."""
    reason: Literal["snapshot", "probe", "pause", "resume", "verify"]
    """Why somebody looked."""
    epoch: Epoch = 0
    """Which history of its stream it belongs to; 0 where absent."""
    stream_id: StreamId
    """The stream's last id at the look."""
    observed_at: Ms
    """Clock of Redis at the look, ms."""
    found: bool
    """Whether the job was there."""
    where: Place | None
    """BullMQ's list or sorted set; null with `found` true: in none of them."""
    due_at: int | None
    """When a delayed job is due, ms."""
    lock_ttl_ms: int | None
    """How long the lock will last; null = no lock."""
    queue_paused: bool
    """Whether the queue was paused."""
    job: Job | None
    """The hash; null where the job is gone, and where only its place was asked for (`pause`, `resume`)."""
    enriched: bool
    """Whether `job` is there, and whole."""
    cut: list[str] | None = None
    """As in an entry."""
    replica: Literal[True] | None = None
    """Read from a replica, which lags."""
    request: str | None = None
    """The comparison of the whole queue that made it."""
