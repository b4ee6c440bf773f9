"""The row of `JobStatus`: how one begins, what it takes from a job's hash, and what it notes for itself.

A row is a JSON object (a dict); its fields are those of contract 2.2. Rows are never changed in place:
a fold works on a shallow copy and replaces what is nested.
"""

from __future__ import annotations

from typing import Any, Final

from streams.core.events import Event, is_look, ms_of
from streams.core.text import LARGEST, clean, cut, is_extreme, whole

Row = dict[str, Any]
Job = dict[str, Any]
"""A job's decoded hash, as it stands on `events`."""

SEED_FIELDS: Final = (
    "id", "name", "data", "progress", "delay", "timestamp", "attempts_made",
    "finished_on", "processed_on", "failed_reason", "state",
)  # fmt: skip
HISTORY_LENGTH: Final = 16
HISTORY_TEXT_BYTES: Final = 2_000
"""Longest error text in a row's history."""
NOTES: Final = "_"
"""The row's last field, so that an index can be rebuilt from the end of a row alone: new fields stand before it."""
AHEAD_MS: Final = 60_000
"""An entry so much later than its job's creation may be of a stream that is ahead of the clock."""
_EPOCH_APART: Final = 1_000_003
SPREAD: Final = 1 << 10
"""The note `spread` is a number below this one: where in an interval a row's verification falls."""


def new_row(event: Event, life: int) -> Row:
    """An empty row of a life that begins with this event; it has no state of its own yet (`seq` 0)."""
    ms = ms_of(event["stream_id"])
    return {
        "id": event["job_id"],
        "name": "" if is_look(event) else clean(event["fields"].get("name", "")),
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
        "epoch": event.get("epoch", 0),
        NOTES: {"due": 0, "state": "waiting", "fails": 0, "starts": 0, "at": ms, "spread": spread_of(life)},
    }


def spread_of(life: int) -> int:
    """The same for a life at every look; neighbours in time are far apart (Knuth's multiplicative hash)."""
    return (life * 2_654_435_761 >> 22) % SPREAD


def life_of(event: Event) -> int:
    """The life of a job whose `added` was not seen: its own creation time, else that of what is known first.

    In a later history of the stream a job may be back whose life has been told and closed: there its creation time
    would name that one once more.
    """
    if not event.get("epoch"):
        job: Job = event.get("job") or {}
        return job.get("timestamp") or ms_of(event["stream_id"])
    at: int = event["observed_at"] if is_look(event) else life_of_entry(event)
    return at


def life_of_entry(event: Event) -> int:
    """The life that an `added` begins: its ms.

    Where a stream's ids are ahead of the clock (it was set back, or the data comes from a server that was ahead) their
    ms stands still until the clock has come so far, and the id of a job may come again within it: there the number of
    the entry within the ms, and that of the history, tell lives apart.
    """
    stream_id = event["stream_id"]
    ms = ms_of(stream_id)
    job: Job = event.get("job") or {}
    created: int | None = job.get("timestamp")
    if created is None or ms - created <= AHEAD_MS:
        return ms
    epoch: int = event.get("epoch", 0)
    return min(ms + int(stream_id.partition("-")[2]) + epoch * _EPOCH_APART, LARGEST)


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
    if attempts is None:
        return 1
    if type(attempts) is int and 1 < attempts < LARGEST:
        return attempts
    most = whole(attempts)
    return most if most is not None and most > 1 else 1


def keeps_failures(job: Job) -> bool:
    """Whether nothing in the job's own options removes it after it has failed (`removeOnFail`)."""
    limit = (job.get("opts") or {}).get("removeOnFail")
    if isinstance(limit, dict):
        limit = limit.get("count", limit.get("age"))
    return limit is None or limit is False or limit == -1


def number_of(row: Row, job: Job, name: str, otherwise: int = 0) -> int:
    """A number of the hash for the row's field of that name; named in `estimated` where the hash's is none.

    The bridge hands on what is no number as null, and the nearest of 64 bits for what lies beyond.
    """
    number: int | None = job.get(name)
    if number is None:
        if name in job:
            estimate(row, name)
        return otherwise
    if is_extreme(number):
        estimate(row, name)
    return number


def is_of_this_life(row: Row, job: Job) -> bool:
    """Whether a hash may be of the row's life: lives of an id differ in their creation time."""
    if not row["enriched"]:
        return True
    created = None if row[NOTES].get("untimed") else row["timestamp"]
    return bool(job.get("timestamp") == created)


def is_older(row: Row, job: Job) -> bool:
    """Whether a hash knows less than the row: the server has gone back since the entry, and nobody has noticed yet.

    It was started less often, and before. Fewer starts alone may have been set back by whoever retried the job; a row
    out of a history that has ended may itself know what was undone.
    """
    before, now = row["processed_on"], job.get("processed_on")
    if before is None or now is None or now >= before or "crossed" in row[NOTES]:
        return False
    return "processed_on" not in row["estimated"] and started(job) < row[NOTES]["starts"]


def take_creation(row: Row, job: Job) -> None:
    """What is set when a job is added. `data` and `priority` may change without an entry: the newest is the truest."""
    name = job.get("name")
    if name is not None:
        row["name"] = name
    row["data"] = job.get("data")
    row["parent"] = job.get("parent")
    row["enriched"] = "data" in job  # a payload that Kafka would not take is left out by the bridge
    if row["estimated"]:
        certain(row, "timestamp", "priority", "max_attempts", "name", "data", "parent")
    priority = job.get("priority")
    row["priority"] = priority if priority == 0 else number_of(row, job, "priority")
    row["max_attempts"] = most = max_attempts_of(job)
    if most == LARGEST or "opts" not in job:
        estimate(row, "max_attempts")
    timestamp = job.get("timestamp")
    if timestamp and 0 < timestamp < LARGEST and "untimed" not in row[NOTES]:  # nearly all
        row["timestamp"] = timestamp
    else:
        _take_timestamp(row, job, timestamp)


def _take_timestamp(row: Row, job: Job, timestamp: int | None) -> None:
    row["timestamp"] = timestamp or number_of(row, job, "timestamp", row["timestamp"])
    if timestamp is None or is_extreme(timestamp):
        estimate(row, "timestamp")
    if (timestamp is None) != ("untimed" in row[NOTES]):
        note(row, untimed=timestamp is None or None)


def take_all(row: Row, job: Job, *, running: bool, max_text_bytes: int) -> None:
    """Everything: for an observation, whose hash belongs to just the moment that it speaks of."""
    row["estimated"] = []
    take_creation(row, job)
    progress = job.get("progress")
    row["progress"] = 0 if progress is None else progress
    row["delay"] = number_of(row, job, "delay")
    number_of(row, job, "attempts_made")
    row["attempts_made"] = attempts_of(job, running=running)
    row["stalled_count"] = number_of(row, job, "stalled_count")
    for name in ("processed_on", "finished_on"):
        number_of(row, job, name)
        row[name] = job.get(name)
    row["failed_reason"] = shortened(job.get("failed_reason"), max_text_bytes)
    row["return_value"] = job.get("return_value")
    note(
        row,
        fails=len(stacks_of(job)),
        starts=started(job),
        v4=True if job.get("counts_starts") else None,
        deferred=True if job.get("deferred_failure") else None,
    )


def shortened(text: str | None, limit_bytes: int) -> str | None:
    """`text.cut`, of a text or none."""
    return None if text is None else cut(text, limit_bytes)


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
