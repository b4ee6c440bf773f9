"""What an observation means for the row of its job: the look is the truth of its moment, whatever was believed."""

from __future__ import annotations

from typing import Any

from streams.core import alerts
from streams.core import lifecycle as lc
from streams.core.row import NOTES, estimate, is_of_this_life, keeps_failures, life_of, note, take_all
from streams.core.step import Step
from streams.core.text import is_extreme

_QUEUE_CAUSES = {(lc.WAITING, lc.PAUSED): "paused", (lc.PAUSED, lc.WAITING): "resumed"}


def apply(step: Step) -> None:
    """Fold an observation into the row (contract 2.1)."""
    if not step.event["found"]:
        _gone(step)
        return
    if not step.row or (step.job and not is_of_this_life(step.row, step.job)):
        step.begin(life=life_of(step.event))
    where = step.event.get("where")
    if where is None and "where" in step.event and "kind" in step.event:
        _in_no_place(step)
        return
    source_state = lc.SOURCE_STATE_OF_PLACE.get(where or "")
    if source_state is None:
        return
    if step.job:
        _take(step, running=source_state == lc.ACTIVE)
    due_at = step.event.get("due_at") if source_state == lc.DELAYED else None
    step.row["due_at"] = due_at
    if due_at is not None and is_extreme(due_at):
        estimate(step.row, "due_at")
    if source_state == lc.ACTIVE:
        _running(step)
    else:
        note(step.row, suspect=None)
        paused = where == "paused" or bool(step.event.get("queue_paused"))
        _place(step, lc.state_of(source_state, queue_paused=paused), source_state)


def _take(step: Step, *, running: bool) -> None:
    if step.job:
        take_all(step.row, step.job, running=running, max_text_bytes=step.rules.max_text_bytes)


def _gone(step: Step) -> None:
    """BullMQ forgets finished jobs by itself: only an unfinished one has vanished. A replica's word is not taken."""
    row = step.row
    if step.event.get("replica"):
        return
    if row["state"] not in lc.FINISHED:
        step.close("vanished")
        return
    if alerts.OPEN in row[NOTES]:
        if row[NOTES].get("kept"):
            step.alerts += tuple(alerts.vanish(row, step.key, step.now))
        else:
            note(row, gone=True)


def _in_no_place(step: Step) -> None:
    """The job exists and is in none of BullMQ's places. It is believed at the second look: one may fall between two
    of somebody's own scripts. A finished job that was taken out of its sorted set has still finished.
    """
    row = step.row
    if step.event.get("replica"):
        return
    if row["state"] in lc.FINISHED and (step.job is None or step.job.get("finished_on") is not None):
        return
    _take(step, running=False)
    if row["source_state"] == lc.UNKNOWN:
        return
    if _is_suspect_again(step, {"at": step.now, "place": None}):
        row["due_at"] = None
        step.move(lc.STUCK, lc.UNKNOWN, "observed")


def _running(step: Step) -> None:
    """In the active list: with a lock it runs. Without one it is suspect, and stuck at the second look."""
    row = step.row
    replica = bool(step.event.get("replica"))
    if step.event.get("lock_ttl_ms") is not None:
        note(row, suspect=None)
        _place(step, lc.ACTIVE, lc.ACTIVE)
        return
    if row["state"] == lc.STUCK and row["source_state"] == lc.ACTIVE and row["seq"]:
        return
    again = not replica and _is_suspect_again(step, {"at": step.now, "processed_on": row["processed_on"]})
    _place(step, lc.ACTIVE, lc.ACTIVE)
    if again:
        step.move(lc.STUCK, lc.ACTIVE, "lock_lost")


def _is_suspect_again(step: Step, suspicion: dict[str, Any]) -> bool:
    """Whether the row is under the same suspicion for long enough; else it is from now on, if it was not."""
    known = step.row[NOTES].get("suspect")
    if known is None or {**known, "at": 0} != {**suspicion, "at": 0}:
        note(step.row, suspect=suspicion)
        return False
    return bool(step.now - known["at"] >= step.rules.check_interval_ms)


def _place(step: Step, state: str, source_state: str) -> None:
    row = step.row
    cause = "observed"
    if row["seq"] and row["source_state"] == source_state:
        cause = _QUEUE_CAUSES.get((row["state"], state), "observed")
    at = row["finished_on"] if state in lc.FINISHED else None
    error = row["failed_reason"] if state == lc.FAILED else None
    step.move(state, source_state, cause, error=error, at=at)
    if state == lc.FAILED and step.job and alerts.OPEN in row[NOTES]:
        note(row, gone=None, kept=keeps_failures(step.job) or None)
