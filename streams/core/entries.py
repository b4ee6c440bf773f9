"""What each of BullMQ's entries means for the row of its job.

The hash that came with an entry may be newer than the entry. So a handler takes from it only what was set at
creation and what this very entry wrote (docs/bullmq.md has the table); the rest comes with its own entry.
Counting is therefore bounded by the hash, never copied from it: min(counted, hash).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from streams.core import attempts
from streams.core import lifecycle as lc
from streams.core.row import (
    NOTES,
    Job,
    Row,
    attempts_of,
    certain,
    estimate,
    keeps_failures,
    note,
    number_of,
    shortened,
    stacks_of,
    started,
    take_creation,
)
from streams.core.step import Step
from streams.core.text import cut, fit, is_extreme, json_or, parse_json, whole

DUE_TOLERANCE_MS: Final = 100
_NO_JSON: Final = object()
_ERROR_NAME: Final = re.compile(r"\A[A-Za-z_$][\w$.]*(?: \[[^\]]*\])?(?:: |$)")


def added(step: Step) -> None:
    """A new life. Not a transition: the same script says next where the job went."""
    if step.job:
        take_creation(step.row, step.job)
        delay = whole(step.job.get("opts", {}).get("delay")) or 0
        step.row["delay"] = delay
        if is_extreme(delay):
            estimate(step.row, "delay")


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
    elif cause == "children_done":
        note(row, freed=True)
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
            attempts.count(step, used=False)
        return "children_done", None
    if prev == "active":
        return _why_given_back(step, "rate_limited", prev)
    return ("added" if state is None else "observed"), None


def _why_given_back(step: Step, otherwise: str, prev: str | None = None) -> tuple[str, str | None]:
    """Why a running job went back without an end: a stall, a failed attempt, or for another reason."""
    row = step.row
    if step.event.get("stalled"):
        cause = "rescued" if row["state"] == lc.STUCK else "stalled"
        attempts.count(step, used=False)
        return cause, None
    failed, sure = attempts.ended(step, prev)
    error = _take_error(step) if failed else None
    attempts.count(step, used=failed, sure=sure)
    if failed:
        note(row, fails=fit(row[NOTES]["fails"] + 1))
    cause = "attempt_failed" if failed else otherwise
    return (cause if sure else step.guess(cause)), error


def _take_error(step: Step) -> str | None:
    """The error of the attempt that has just failed, into the row; None where it is not known."""
    row = step.row
    error, sure = _attempt_error(row, step.job) if step.job else (None, False)
    if error is not None:
        row["failed_reason"] = error = cut(error, step.rules.max_text_bytes)
    (certain if sure else estimate)(row, "failed_reason")
    return error


def _attempt_error(row: Row, job: Job) -> tuple[str | None, bool]:
    """(text, is it surely of this attempt): BullMQ's `failedReason` while it still is, later the attempt's stack."""
    stacks = stacks_of(job)
    fails = row[NOTES]["fails"]
    if len(stacks) > fails + 1:
        return _message_of(str(stacks[fails])), True
    error = job.get("failed_reason")
    of_this = len(stacks) == fails + 1 or not attempts.is_of_a_later_attempt(row, job)
    return error, error is not None and of_this


def _message_of(stack: str) -> str:
    r"""`err.message` out of `err.stack`: `Error: no access\n    at …`, or a Python traceback."""
    if stack.startswith("Traceback "):
        stack = stack.rstrip().rsplit("\n", 1)[-1]
    head = stack.partition("\n    at ")[0]
    return _ERROR_NAME.sub("", head, count=1)


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
        note(row, starts=min(row[NOTES]["starts"], started(job)))
    note(row, deferred=None, freed=None)
    certain(row, "finished_on", "processed_on", "failed_reason")


def active(step: Step) -> None:
    """A worker has the job."""
    row, job = step.row, step.job
    opening = row["seq"] == 0
    _take(step)
    _set_time(row, "processed_on", job, step.now)
    starts = fit(row[NOTES]["starts"] + 1)
    if opening and job:
        row["attempts_made"] = attempts_of(job, running=True)
        starts = max(starts, started(job))
    note(row, starts=starts)
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
    certain(row, "due_at")
    if due_at is None or is_extreme(due_at):
        estimate(row, "due_at")
    _set_delay(step, 0 if due_at is None else max(fit(due_at - step.now), 0))
    step.move(lc.DELAYED, lc.DELAYED, cause, error=error)


def _set_delay(step: Step, otherwise: int) -> None:
    row, job = step.row, step.job
    certain(row, "delay")
    if job:
        row["delay"] = number_of(row, job, "delay")
        return
    row["delay"] = otherwise
    if row["due_at"] is not None:
        estimate(row, "delay")


def _whole(text: str | None) -> int | None:
    """BullMQ 4 writes due times as `1795544600489.0002`; what lies beyond 64 bits is the nearest that does not."""
    try:
        return whole(float(text)) if text is not None else None
    except ValueError:
        return None


def _set_time(row: Row, name: str, job: Job | None, otherwise: int) -> None:
    """A time of the hash, else that of the entry, and then named in `estimated`."""
    time = job.get(name) if job else None
    row[name] = otherwise if time is None else time
    (estimate if time is None or is_extreme(time) else certain)(row, name)


def waiting_children(step: Step) -> None:
    """The job waits for its children: a flow's parent, or a running job that has added some."""
    _take(step)
    opening = step.row["seq"] == 0
    if not opening and step.row["state"] in lc.RUNNING:
        attempts.count(step, used=False)
    step.move(lc.WAITING, lc.WAITING_CHILDREN, "added" if opening else "moved")


def completed(step: Step) -> None:
    """The job is done; BullMQ keeps the text of an earlier failure, and so does the row."""
    row = step.row
    fields = step.event["fields"]
    _take(step)
    row["return_value"] = parse_json(fields.get("returnvalue"))
    _finish(step)
    if step.job:
        row["failed_reason"] = row["failed_reason"] or shortened(
            step.job.get("failed_reason"), step.rules.max_text_bytes
        )
    step.move(lc.COMPLETED, lc.COMPLETED, "completed")


def failed(step: Step) -> None:
    """The job has failed for good: BullMQ writes no such entry for an attempt that will be repeated."""
    row = step.row
    reason = cut(step.event["fields"].get("failedReason", ""), step.rules.max_text_bytes)
    _take(step)
    row["failed_reason"] = reason
    certain(row, "failed_reason")
    _finish(step)
    stacks = len(stacks_of(step.job)) if step.job else 0
    fails = fit(row[NOTES]["fails"] + 1)
    note(row, fails=min(fails, stacks) if step.job else fails)
    step.move(lc.FAILED, lc.FAILED, "failed", error=reason)
    _note_whether_kept(step)


def _note_whether_kept(step: Step) -> None:
    """An open alert's job that was there after its end, and that nothing in its options removes: when it is gone, that
    was by hand. One whose hash was gone with its end cannot come back, so nobody asks for it.
    """
    row, job = step.row, step.job
    if "alerts" not in row[NOTES]:
        return
    if job is None:
        note(row, gone=True)
    elif job.get("finished_on") is not None and keeps_failures(job):
        note(row, kept=True)


def retries_exhausted(step: Step) -> None:
    """BullMQ's count of attempts, behind the `failed` of the same script: it outranks counting."""
    made = whole(json_or(step.event["fields"].get("attemptsMade"), None))
    if made is not None and step.row["state"] == lc.FAILED:
        step.row["attempts_made"] = made
        certain(step.row, "attempts_made")


def _finish(step: Step) -> None:
    row, job = step.row, step.job
    _set_time(row, "finished_on", job, step.now)
    row["due_at"] = None
    attempts.finish(step)
    if job:
        row["processed_on"] = row["processed_on"] or job.get("processed_on")
        row["stalled_count"] = max(row["stalled_count"], job.get("stalled_count") or 0)


def stalled(step: Step) -> None:
    """A stalled check gave the job back; the `waiting` before it has said so. Here the count."""
    row, job = step.row, step.job
    counted = fit(row["stalled_count"] + 1)
    if job and job.get("stalled_count"):
        counted = min(counted, job["stalled_count"])
    row["stalled_count"] = counted


def progress(step: Step) -> None:
    """May come after `completed`, or from a worker that lost its lock: never a change of state."""
    reported = json_or(step.event["fields"].get("data"), _NO_JSON)
    if reported is not _NO_JSON:
        step.row["progress"] = reported
        certain(step.row, "progress")


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
    if job.get("deferred_failure") and not step.row[NOTES].get("deferred"):
        note(step.row, deferred=True)


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
    "retries-exhausted": retries_exhausted,
}
