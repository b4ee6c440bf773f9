"""Which life an entry belongs to whose hash is of another one than the row.

Either the hash is newer than the entry (the id has been added again since), or entries were lost and the row is of a
life that has long ended. Where the entry cannot follow what the row says, and can be of the hash's life, that life has
begun unseen. Else nobody can tell, and somebody has to look.
"""

from __future__ import annotations

from typing import Final

from streams.core import lifecycle as lc
from streams.core.row import Job, Row, started
from streams.core.step import Step

_WAITING_FOLLOWS: Final = {
    None: lc.RUNNING,  # BullMQ 4 gives a rate-limited job back without a word
    "active": lc.RUNNING,
    "failed": lc.RUNNING | {lc.FAILED},
    "completed": frozenset({lc.COMPLETED}),
    "delayed": frozenset({lc.DELAYED}),
    "waiting-children": lc.RUNNING,
}
"""The states that a `waiting` may leave, by its `prev`."""

_FOLLOWS: Final = {
    "active": lc.READY,
    "delayed": lc.RUNNING | {lc.DELAYED},
    "waiting-children": lc.RUNNING,
    "completed": lc.RUNNING,
    "failed": lc.RUNNING,
}
"""The states that an entry may leave. Entries that are not here say nothing of where the job was."""


def begins(step: Step) -> bool:
    """Whether the entry is of the life of the hash that came with it (`step.other`), and not of the row's."""
    row, job, name = step.row, step.other, step.event["event"]
    if job is None or row["seq"] == 0:
        return False
    return not _can_follow(row, name, step.event["fields"].get("prev")) and _can_be_of(job, name)


def _can_follow(row: Row, name: str, prev: str | None) -> bool:
    if row["source_state"] == lc.UNKNOWN:
        return True
    if row["source_state"] == lc.WAITING_CHILDREN:
        return (
            prev == "waiting-children" if name == "waiting" else name not in ("active", "waiting-children", "completed")
        )
    left = _WAITING_FOLLOWS.get(prev) if name == "waiting" else _FOLLOWS.get(name)
    return left is None or row["state"] in left


def _can_be_of(job: Job, name: str) -> bool:
    """A hash that has not even come so far is newer than the entry."""
    if name in ("completed", "failed"):
        return job.get("finished_on") is not None
    return name != "active" or started(job) > 0 or job.get("processed_on") is not None
