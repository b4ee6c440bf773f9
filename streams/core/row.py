"""The row of `JobStatus`: how one begins, what it takes from a job's hash, and what it notes for itself.

A row is a JSON object (a dict); its fields are those of contract 2.2. Rows are never changed in place:
a fold works on a shallow copy and replaces what is nested.
"""

from __future__ import annotations

from typing import Any, Final

from streams.core.events import OBSERVED, Event, ms_of

Row = dict[str, Any]
Job = dict[str, Any]
"""A job's decoded hash, as it stands on `events`."""

SEED_FIELDS: Final = (
    "id", "name", "data", "progress", "delay", "timestamp", "attempts_made",
    "finished_on", "processed_on", "failed_reason", "state",
)  # fmt: skip
HISTORY_LENGTH: Final = 16
NOTES: Final = "_"


def new_row(event: Event, life: int) -> Row:
    """An empty row of a life that begins with this event; it has no state of its own yet (`seq` 0)."""
    ms = ms_of(event["stream_id"])
    return {
        "id": event["job_id"],
        "name": "" if event["event"] == OBSERVED else event["fields"].get("name", ""),
        "data": None,
        "progress": 0,
        "delay": 0,
        "timestamp": ms,
        "attempts_made": 0,
        "finished_on": None,
        "processed_on": None,
        "failed_reason": None,
        "state": "waiting",
        "source": event["source"],
        "queue": event["queue"],
        "life": life,
        "source_state": "waiting",
        "since": ms,
        "due_at": None,
        "position": event["stream_id"],
        "observed_at": None,
        "seq": 0,
        "max_attempts": None,
        "priority": 0,
        "stalled_count": 0,
        "return_value": None,
        "parent": None,
        "enriched": False,
        "estimated": ["timestamp"],
        "history": [],
        NOTES: {"due": 0, "state": "waiting", "fails": 0, "starts": 0},
    }


def life_of(event: Event) -> int:
    """The life of a job whose `added` was not seen: its own creation time, else that of what is known first."""
    job: Job = event.get("job") or {}
    return job.get("timestamp") or ms_of(event["stream_id"])


def seed_of(row: Row) -> dict[str, Any]:
    """The eleven fields of the published model."""
    return {name: row[name] for name in SEED_FIELDS}


def note(row: Row, **values: Any) -> None:
    """Set the worker's own notes; None takes a note away."""
    notes = row[NOTES] = row[NOTES].copy()
    for name, value in values.items():
        if value is None:
            notes.pop(name, None)
        else:
            notes[name] = value


def estimate(row: Row, *fields: str) -> None:
    """Say that these fields were counted or taken from stream times."""
    missing = [field for field in fields if field not in row["estimated"]]
    if missing:
        row["estimated"] = [*row["estimated"], *missing]


def certain(row: Row, *fields: str) -> None:
    """Say that these fields are BullMQ's own."""
    if row["estimated"]:
        row["estimated"] = [field for field in row["estimated"] if field not in fields]


def max_attempts_of(job: Job) -> int:
    """How often BullMQ will try the job: `opts.attempts`, where 0 and none mean once."""
    opts = job.get("opts")
    attempts = opts.get("attempts") if opts else None
    return attempts if isinstance(attempts, int) and attempts > 1 else 1


def take_creation(row: Row, job: Job) -> None:
    """What is set when a job is added. `data` and `priority` may change without an entry: the newest is the truest."""
    row["name"] = job.get("name", row["name"])
    row["data"] = job.get("data")
    row["timestamp"] = job.get("timestamp", row["timestamp"])
    row["priority"] = job.get("priority") or 0
    row["parent"] = job.get("parent")
    row["max_attempts"] = max_attempts_of(job)
    row["enriched"] = True
    certain(row, "timestamp")


def take_all(row: Row, job: Job, *, running: bool) -> None:
    """Everything: for an observation, whose hash belongs to just the moment that it speaks of."""
    take_creation(row, job)
    progress = job.get("progress")
    row["progress"] = 0 if progress is None else progress
    row["delay"] = job.get("delay") or 0
    row["attempts_made"] = attempts_of(job, running=running)
    row["processed_on"] = job.get("processed_on")
    row["finished_on"] = job.get("finished_on")
    row["failed_reason"] = job.get("failed_reason")
    row["return_value"] = job.get("return_value")
    row["stalled_count"] = job.get("stalled_count") or 0
    row["estimated"] = []
    note(
        row,
        fails=len(stacks_of(job)),
        starts=started(job),
        v4=True if job.get("counts_starts") else None,
    )


def attempts_of(job: Job, *, running: bool) -> int:
    """Attempts that have ended. BullMQ 4 counts an attempt when it starts, so a running one is taken off."""
    made: int = job.get("attempts_made") or 0
    return max(made - 1, 0) if running and job.get("counts_starts") else made


def stacks_of(job: Job) -> list[Any]:
    """One stack for each attempt that has failed, the oldest first."""
    return job.get("stacktrace") or []


def started(job: Job) -> int:
    """How often the job has been started, whichever BullMQ wrote it."""
    starts = job.get("attempts_started")
    if starts is None and job.get("counts_starts"):
        starts = job.get("attempts_made")
    return starts or 0
