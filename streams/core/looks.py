"""What an observation means for the row of its job: the look is the truth of its moment, whatever was believed."""

from __future__ import annotations

from streams.core import lifecycle as lc
from streams.core.row import NOTES, life_of, note, take_all
from streams.core.step import Step

_QUEUE_CAUSES = {(lc.WAITING, lc.PAUSED): "paused", (lc.PAUSED, lc.WAITING): "resumed"}


def apply(step: Step) -> None:
    """Fold an observation into the row (contract 2.1)."""
    if not step.event["found"]:
        _gone(step)
        return
    if not step.row or _is_another_life(step):
        step.begin(life=life_of(step.event))
    where = step.event.get("where")
    source_state = lc.SOURCE_STATE_OF_PLACE.get(where or "")
    if source_state is None:
        return
    if step.job:
        take_all(step.row, step.job, running=source_state == lc.ACTIVE)
    step.row["due_at"] = step.event.get("due_at") if source_state == lc.DELAYED else None
    if source_state == lc.ACTIVE:
        _running(step)
    else:
        note(step.row, suspect=None)
        paused = where == "paused" or bool(step.event.get("queue_paused"))
        _place(step, lc.state_of(source_state, queue_paused=paused), source_state)


def _gone(step: Step) -> None:
    """BullMQ forgets finished jobs by itself: only an unfinished one has vanished."""
    if step.row["state"] not in lc.FINISHED:
        step.close("vanished")


def _is_another_life(step: Step) -> bool:
    if not step.job or "timestamp" in step.row["estimated"]:
        return False
    return bool(step.job.get("timestamp") != step.row["timestamp"])


def _running(step: Step) -> None:
    """In the active list: with a lock it runs. Without one it is suspect, and stuck at the second look."""
    row = step.row
    if step.event.get("lock_ttl_ms") is not None:
        note(row, suspect=None)
        _place(step, lc.ACTIVE, lc.ACTIVE)
        return
    if row["state"] == lc.STUCK and row["seq"]:
        return
    suspect = row[NOTES].get("suspect")
    if suspect is None or suspect["processed_on"] != row["processed_on"]:
        note(row, suspect={"at": step.now, "processed_on": row["processed_on"]})
        _place(step, lc.ACTIVE, lc.ACTIVE)
    elif step.now - suspect["at"] >= step.rules.check_interval_ms:
        _place(step, lc.ACTIVE, lc.ACTIVE)
        step.move(lc.STUCK, lc.ACTIVE, "lock_lost")


def _place(step: Step, state: str, source_state: str) -> None:
    row = step.row
    cause = "observed"
    if row["seq"] and row["source_state"] == source_state:
        cause = _QUEUE_CAUSES.get((row["state"], state), "observed")
    at = row["finished_on"] if state in lc.FINISHED else None
    error = row["failed_reason"] if state == lc.FAILED else None
    step.move(state, source_state, cause, error=error, at=at)
