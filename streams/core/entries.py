"""What each of BullMQ's entries means for the row of its job.

The hash that came with an entry may be newer than the entry. So a handler takes from it only what was set at
creation and what this very entry wrote (docs/bullmq.md has the table); the rest comes with its own entry.
Counting is therefore bounded by the hash, never copied from it: min(counted, hash).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from streams.core import lifecycle as lc
from streams.core.row import NOTES, Job, Row, attempts_of, certain, estimate, note, stacks_of, started, take_creation
from streams.core.step import Step
from streams.core.text import parse_json

DUE_TOLERANCE_MS: Final = 100
_ERROR_NAME: Final = re.compile(r"\A[A-Za-z_$][\w$.]*(?: \[[^\]]*\])?(?:: |$)")


def added(step: Step) -> None:
    """A new life. Not a transition: the same script says next where the job went."""
    if step.job:
        take_creation(step.row, step.job)
        opts = step.job.get("opts", {})
        step.row["delay"] = opts.get("delay") if isinstance(opts.get("delay"), int) else 0


def waiting(step: Step) -> None:
    """The job is ready: new, due, given back, retried, or its children are done."""
    row = step.row
    prev = step.event["fields"].get("prev")
    _take(step)
    cause, error = _why_waiting(step, prev)
    if cause in ("due", "promoted"):
        _set_delay(step, 0)
    if cause == "retried":
        _forget_outcome(step)
    row["due_at"] = None
    place = lc.PRIORITIZED if _is_prioritized(step, prev, cause) else lc.WAITING
    paused = bool(step.event.get("queue_paused"))
    step.move(lc.state_of(place, queue_paused=paused), place, cause, error=error)


def _why_waiting(step: Step, prev: str | None) -> tuple[str, str | None]:
    row = step.row
    state = row["state"] if row["seq"] else None
    if state in lc.RUNNING and prev in (None, "active", "failed"):
        return _why_given_back(step, "rate_limited", prev)
    if prev in ("failed", "completed"):
        return "retried", None
    if prev == "delayed":
        due_at = row["due_at"]
        early = due_at is not None and step.now < due_at - DUE_TOLERANCE_MS
        return ("promoted" if early else "due"), None
    if prev == "waiting-children":
        if state in lc.RUNNING:  # BullMQ 4 moves a running job to waiting-children without a word
            _count_attempt(step, used=False)
        return "children_done", None
    if prev == "active":
        return _why_given_back(step, "rate_limited", prev)
    return ("added" if state is None else "observed"), None


def _why_given_back(step: Step, otherwise: str, prev: str | None = None) -> tuple[str, str | None]:
    """Why a running job went back without an end: a stall, a failed attempt, or for another reason."""
    row, job = step.row, step.job
    if step.event.get("stalled"):
        cause = "rescued" if row["state"] == lc.STUCK else "stalled"
        _count_attempt(step, used=False)
        return cause, None
    failed, sure = _attempt_failed(step, prev)
    error = _attempt_error(step) if failed else None
    _count_attempt(step, used=failed)
    if failed:
        note(row, fails=row[NOTES]["fails"] + 1)
        if error is None:
            estimate(row, "failed_reason")
        else:
            row["failed_reason"] = error
            certain(row, "failed_reason")
    cause = "attempt_failed" if failed else otherwise
    if not sure or job is None:
        cause = step.guess(cause)
    return cause, error


def _attempt_failed(step: Step, prev: str | None) -> tuple[bool, bool]:
    """(did an attempt fail, is that sure). BullMQ keeps one stack for each failed attempt, and counts attempts."""
    row, job = step.row, step.job
    if prev == "failed":
        return True, True
    if job is None:
        return row["max_attempts"] != 1, False
    if _fails_to_come(row, job) > 0:
        return True, True
    if job.get("counts_starts"):
        reason = job.get("failed_reason")
        return reason is not None and reason != row["failed_reason"], True
    last = 1 if job.get("finished_on") is not None else 0
    if (job.get("attempts_made") or 0) - last <= row["attempts_made"]:
        return False, True
    return started(job) <= row[NOTES]["starts"], False


def _fails_to_come(row: Row, job: Job) -> int:
    """Failed attempts that the hash knows of and the row does not yet, the final failure left out."""
    stacks = len(stacks_of(job))
    final = job.get("finished_on") is not None and "return_value" not in job
    return stacks - (1 if final else 0) - int(row[NOTES]["fails"])


def _attempt_error(step: Step) -> str | None:
    """The error of the attempt that has just failed: BullMQ's `failedReason` while it is still of this attempt."""
    job = step.job
    if job is None:
        return None
    stacks = stacks_of(job)
    fails = step.row[NOTES]["fails"]
    if len(stacks) > fails + 1:
        return _message_of(str(stacks[fails]))
    return job.get("failed_reason")


def _message_of(stack: str) -> str:
    r"""`err.message` out of `err.stack`: `Error: no access\n    at …`, or a Python traceback."""
    if stack.startswith("Traceback "):
        stack = stack.rstrip().rsplit("\n", 1)[-1]
    head = stack.partition("\n    at ")[0]
    return _ERROR_NAME.sub("", head, count=1)


def _count_attempt(step: Step, *, used: bool, final: bool = False) -> None:
    """An attempt has ended. BullMQ 4 counted it when it started, so there every end is one.

    After a final one a hash without `finishedOn` is of another time (retried since, or the id's next life): no bound.
    """
    row, job = step.row, step.job
    if used or row[NOTES].get("v4"):
        counted = row["attempts_made"] + 1
        bounded = job is not None and (not final or job.get("finished_on") is not None)
        row["attempts_made"] = min(counted, (job or {}).get("attempts_made") or 0) if bounded else counted
    if job is None:
        estimate(row, "attempts_made")
    else:
        certain(row, "attempts_made")


def _is_prioritized(step: Step, prev: str | None, cause: str) -> bool:
    """Where BullMQ's scripts put the job: its options say so when it is new, and a retried or stalled one goes to
    `wait`. Else the look said `where`, unless the job has gone on since; then its priority tells.
    """
    row, job = step.row, step.job
    if cause in ("retried", "stalled", "rescued"):
        return False
    if cause == "added" and job is not None:
        return bool(job.get("opts", {}).get("priority"))
    where = step.event.get("where")
    if where is not None and (job is None or started(job) <= row[NOTES]["starts"]):
        return bool(where == "prioritized")
    promoted_in_bulk = prev == "delayed" and job is not None and bool(job.get("delay")) and not _failed_since(row, job)
    return bool(row["priority"]) and not promoted_in_bulk


def _failed_since(row: Row, job: Job) -> bool:
    """Whether the hash's `delay` may be the backoff of a later attempt."""
    return len(stacks_of(job)) > int(row[NOTES]["fails"])


def _forget_outcome(step: Step) -> None:
    row, job = step.row, step.job
    row["finished_on"] = row["processed_on"] = None
    if step.event["fields"].get("prev") == "completed":
        row["return_value"] = None
    else:
        row["failed_reason"] = None
    if job is not None:
        row["attempts_made"] = min(row["attempts_made"], job.get("attempts_made") or 0)
    certain(row, "finished_on", "processed_on", "failed_reason")


def active(step: Step) -> None:
    """A worker has the job."""
    row, job = step.row, step.job
    opening = row["seq"] == 0
    _take(step)
    processed_on = job.get("processed_on") if job else None
    row["processed_on"] = step.now if processed_on is None else processed_on
    (estimate if processed_on is None else certain)(row, "processed_on")
    if opening and job:
        row["attempts_made"] = attempts_of(job, running=True)
    note(row, starts=row[NOTES]["starts"] + 1)
    row["due_at"] = None
    step.move(lc.ACTIVE, lc.ACTIVE, "picked_up")


def delayed(step: Step) -> None:
    """The job waits for a time: new, a failed attempt's backoff, moved by its processor, or another delay."""
    row = step.row
    _take(step)
    state = row["state"] if row["seq"] else None
    error = None
    if state is None:
        cause = "scheduled"
    elif state in lc.RUNNING:
        cause, error = _why_given_back(step, "moved")
    else:
        cause = "children_done" if row["source_state"] == lc.WAITING_CHILDREN else "moved"
    due_at = _whole(step.event["fields"].get("delay"))
    row["due_at"] = due_at
    _set_delay(step, 0 if due_at is None else max(due_at - step.now, 0))
    step.move(lc.DELAYED, lc.DELAYED, cause, error=error)


def _set_delay(step: Step, otherwise: int) -> None:
    row, job = step.row, step.job
    row["delay"] = (job.get("delay") or 0) if job else otherwise
    if job:
        certain(row, "delay")
    elif row["due_at"] is not None:
        estimate(row, "delay")


def _whole(text: str | None) -> int | None:
    """BullMQ 4 writes due times as `1795544600489.0002`."""
    try:
        return int(float(text)) if text is not None else None
    except (ValueError, OverflowError):
        return None


def waiting_children(step: Step) -> None:
    """The job waits for its children: a flow's parent, or a running job that has added some."""
    _take(step)
    opening = step.row["seq"] == 0
    if not opening and step.row["state"] in lc.RUNNING:
        _count_attempt(step, used=False)
    step.move(lc.WAITING, lc.WAITING_CHILDREN, "added" if opening else "moved")


def completed(step: Step) -> None:
    """The job is done; BullMQ keeps the text of an earlier failure, and so does the row."""
    row = step.row
    fields = step.event["fields"]
    _take(step)
    row["return_value"] = parse_json(fields.get("returnvalue"))
    _finish(step)
    if step.job:
        row["failed_reason"] = row["failed_reason"] or step.job.get("failed_reason")
    step.move(lc.COMPLETED, lc.COMPLETED, "completed")


def failed(step: Step) -> None:
    """The job has failed for good: BullMQ writes no such entry for an attempt that will be repeated."""
    row = step.row
    reason = step.event["fields"].get("failedReason", "")
    _take(step)
    row["failed_reason"] = reason
    certain(row, "failed_reason")
    _finish(step)
    stacks = len(stacks_of(step.job)) if step.job else 0
    note(row, fails=min(row[NOTES]["fails"] + 1, stacks) if step.job else row[NOTES]["fails"] + 1)
    step.move(lc.FAILED, lc.FAILED, "failed", error=reason)


def _finish(step: Step) -> None:
    row, job = step.row, step.job
    opening = row["seq"] == 0
    finished_on = job.get("finished_on") if job else None
    row["finished_on"] = step.now if finished_on is None else finished_on
    (estimate if finished_on is None else certain)(row, "finished_on")
    row["due_at"] = None
    if opening and job:
        row["attempts_made"] = job.get("attempts_made") or 0
    elif row["state"] in lc.RUNNING:
        _count_attempt(step, used=True, final=True)
    if job:
        row["processed_on"] = row["processed_on"] or job.get("processed_on")
        row["stalled_count"] = max(row["stalled_count"], job.get("stalled_count") or 0)


def stalled(step: Step) -> None:
    """A stalled check gave the job back; the `waiting` before it has said so. Here the count."""
    row, job = step.row, step.job
    counted = row["stalled_count"] + 1
    if job and job.get("stalled_count"):
        counted = min(counted, job["stalled_count"])
    row["stalled_count"] = counted


def progress(step: Step) -> None:
    """May come after `completed`, or from a worker that lost its lock: never a change of state."""
    step.row["progress"] = parse_json(step.event["fields"].get("data"))


def removed(step: Step) -> None:
    """Gone, by somebody's wish."""
    step.close("removed")


def _take(step: Step) -> None:
    """What any hash tells: creation, and which BullMQ counts the attempts."""
    job: dict[str, Any] | None = step.job
    if job is None:
        return
    take_creation(step.row, job)
    if job.get("counts_starts") and not step.row[NOTES].get("v4"):
        note(step.row, v4=True)


HANDLERS: Final[dict[str, Callable[[Step], None]]] = {
    "added": added,
    "waiting": waiting,
    "active": active,
    "delayed": delayed,
    "waiting-children": waiting_children,
    "completed": completed,
    "failed": failed,
    "stalled": stalled,
    "progress": progress,
    "removed": removed,
}
