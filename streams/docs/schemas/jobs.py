"""What the worker writes: rows, transitions, alerts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from streams.docs.schemas.events import Parent
from streams.docs.schemas.words import (
    Cause,
    Rule,
    Shape,
    SourceState,
    SourceStateOrRemoved,
    State,
    StateOrRemoved,
    StreamId,
)


class Past(Shape):
    """One of a row's last transitions."""

    from_: Annotated[State | None, Field(alias="from")]
    """State before; null for the first of a life."""
    to: StateOrRemoved
    """State after."""
    at: int
    """When, ms."""
    cause: Cause
    """Why."""
    error: str | None = None
    """The error of a failed attempt."""


class Seed(Shape):
    """The eleven fields that say what BullMQ's own `Job` says."""

    id: str
    """The job's id."""
    name: str
    """The job's name; empty where it was never seen."""
    data: Any
    """The payload; null where it was never seen (`enriched` false)."""
    progress: Any
    """Last progress, 0 where unset."""
    delay: int
    """BullMQ's `delay`, ms."""
    timestamp: int
    """Creation, ms."""
    attempts_made: int
    """Attempts that have ended."""
    finished_on: int | None
    """End, ms."""
    processed_on: int | None
    """Last time that a worker took it, ms."""
    failed_reason: str | None
    """Error text of the last failed attempt; it stays on a job that completes later, as in BullMQ."""
    state: State
    """One of the seven states."""


class JobStatus(Seed):
    """A job as it is now: the row of the table. A null value is a tombstone: the job is gone."""

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    life: int
    """Names this use of the id: the ms of its `added` (more, where a stream's ids are ahead of the clock). Where that
    was not seen it is the job's `timestamp`, and from `epoch` 1 on the ms at which it was known first."""
    source_state: SourceState
    """BullMQ's own word for where the job is."""
    since: int
    """When it came into this state, ms."""
    due_at: int | None
    """When a delayed job is due, ms."""
    position: StreamId
    """Stream id of the last record applied."""
    observed_at: int | None
    """The same for an observation; null if it was an entry."""
    seq: int
    """Number of its last transition in this life; 0 before the first."""
    max_attempts: int | None
    """`opts.attempts`, at least 1; null where it was never seen."""
    priority: int
    """0 = none."""
    stalled_count: int
    """How often a stalled check has put it back."""
    return_value: Any
    """Result of the processor."""
    parent: Parent | None
    """Of a flow's child."""
    enriched: bool
    """False: data and options were never seen."""
    estimated: list[str]
    """Fields counted or taken from stream times because the hash was gone; `cause` for a likely cause."""
    history: Annotated[list[Past], Field(max_length=16)]
    """The last 16 transitions; their errors are cut to 2,000 bytes."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Which history of its stream the last record applied belongs to; absent = 0."""
    notes: Annotated[dict[str, Any], Field(alias="_")]
    """The worker's own notes, not part of the contract."""


class Transition(Shape):
    """A change of `state` or `source_state`. Per life `seq` runs 1, 2, 3 … and each `from` is the `to` before."""

    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job."""
    name: str
    """The job's name."""
    life: int
    """When this use of the id began, ms."""
    seq: Annotated[int, Field(ge=1)]
    """Number in this life."""
    from_: Annotated[State | None, Field(alias="from")]
    """State before; null for the first of a life."""
    to: StateOrRemoved
    """State after."""
    source_from: SourceState | None
    """BullMQ's word before."""
    source_to: SourceStateOrRemoved
    """BullMQ's word after."""
    at: int
    """When, ms: the entry's time, for a look its own."""
    duration_ms: Annotated[int, Field(ge=0)] | None
    """Time spent in `from`; null also where the two ends are of different histories of the stream."""
    cause: Cause
    """Why; see lifecycle.md."""
    error: str | None
    """The attempt's error, for `attempt_failed` and `failed`."""
    attempts_made: int
    """Attempts that have ended."""
    max_attempts: int | None
    """How many there may be."""
    final: bool
    """`to` is `completed`, `failed` or `removed`."""
    observed: bool
    """Learned by a look, not from an entry."""
    position: StreamId
    """Stream id of the record that told it."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Which history of its stream that record belongs to; absent = 0."""


class Labels(Shape):
    """Labels as Alertmanager takes them."""

    alertname: Literal["BullMQJobFailed", "BullMQJobStuck"]
    """Name of the alert."""
    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_name: str
    """The job's name."""


class Annotations(Shape):
    """Texts for people."""

    summary: str
    """One line."""
    description: str
    """What is known."""


class Alert(Shape):
    """An incident as it now stands: one record when it fires, one when it is resolved."""

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """Names rule, job and life; the record's key."""
    rule: Rule
    """Which rule."""
    status: Literal["firing", "resolved"]
    """Where it stands."""
    severity: str
    """As configured when it fired."""
    starts_at: int
    """Begin, ms."""
    ends_at: int | None
    """End, ms."""
    cause: Literal[
        "attempts_exhausted", "unrecoverable", "stalled_too_often", "child_failed", "lock_lost", "in_no_list"
    ]
    """Why it fired."""
    reason: str
    """The same in words."""
    labels: Labels
    """For routing."""
    annotations: Annotations
    """For people."""
    source: str
    """Name of the source in the settings."""
    queue: str
    """The queue."""
    job_id: str
    """The job."""
    life: int
    """When this use of the id began, ms."""
    job: Seed
    """The job's eleven fields at this moment."""
    resolved_by: (
        Literal["retried", "rescued", "completed", "failed", "removed", "vanished", "replaced", "expired"] | None
    )
    """What ended it."""
