"""How many attempts of a job have ended, and whether the last one failed.

The hash that came with an entry may be newer than the entry. BullMQ counts ended attempts (`atm`) and starts (`ats`)
in it; the row counts the starts that its entries have told. Each start since the entry can have ended at most one more
attempt, so at the entry at least `atm - (ats - starts)` had ended, and at most one more than before. In most cases that
leaves one number. Stack traces only break ties: an application may limit them, and what is thrown may have none.
BullMQ 4 counts a start as an attempt, so there every end is one.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.core import lifecycle as lc
from streams.core.row import NOTES, Job, Row, certain, estimate, note, stacks_of, started
from streams.core.step import Step
from streams.core.text import fit


class Ended(NamedTuple):
    """How an attempt ended that was no final one: whether it failed, and whether that is sure."""

    failed: bool
    sure: bool


def ended(step: Step, prev: str | None) -> Ended:
    """What entry and hash tell about the attempt that a running job's `waiting` or `delayed` has ended."""
    row, job = step.row, step.job
    if prev == "failed":
        return Ended(failed=True, sure=True)
    if job is None:
        return Ended(_may_be_repeated(row), sure=False)
    if job.get("counts_starts"):
        return _ended_in_bullmq_4(step, row, job, prev)
    before, made = row["attempts_made"], job.get("attempts_made") or 0
    if made - _final(job) <= before:
        return Ended(failed=False, sure="attempts_made" not in row["estimated"])
    if made - max(_later_starts(row, job), 0) > before or _fails_to_come(row, job) > 0:
        return Ended(failed=True, sure=True)
    return Ended(_may_be_repeated(row), sure=False)


def _ended_in_bullmq_4(step: Step, row: Row, job: Job, prev: str | None) -> Ended:
    """There a retry at once says `prev=failed`, a rate limit says nothing; a delay may be a backoff or not."""
    delayed = step.event["event"] == "delayed"
    if prev is None and not delayed:
        return Ended(failed=False, sure=True)
    if _fails_to_come(row, job) > 0:
        return Ended(failed=True, sure=True)
    reason = job.get("failed_reason")
    if reason is None or reason != row["failed_reason"]:
        return Ended(reason is not None, sure=True)
    return Ended(delayed, sure=False)


def _may_be_repeated(row: Row) -> bool:
    """Whether a failed attempt, were it one, would not have been the last."""
    most = row["max_attempts"]
    return most is None or row["attempts_made"] + 1 < most


def _final(job: Job) -> int:
    """1 where the last attempt that the hash counts was the final one."""
    return 1 if job.get("finished_on") is not None else 0


def _later_starts(row: Row, job: Job) -> int:
    """How often the hash was started since the entry; negative where its count began anew, or is not kept."""
    return started(job) - int(row[NOTES]["starts"])


def _fails_to_come(row: Row, job: Job) -> int:
    """Failed attempts whose stacks the hash has and that the row does not know yet, the final failure left out."""
    final = job.get("finished_on") is not None and "return_value" not in job
    return len(stacks_of(job)) - (1 if final else 0) - int(row[NOTES]["fails"])


def is_of_a_later_attempt(row: Row, job: Job) -> bool:
    """Whether the hash's error text may be of an attempt after the one that the row counts next."""
    made = job.get("attempts_made") or 0
    return _later_starts(row, job) > 0 and made > row["attempts_made"] + 1


def count(step: Step, *, used: bool, sure: bool = True, final: bool = False) -> None:
    """An attempt has ended, and counts if it was `used`.

    After a final one a hash without `finishedOn` is of another time (retried since, or the id's next life): no bound.
    """
    row, job = step.row, step.job
    counted = fit(row["attempts_made"] + 1) if used or row[NOTES].get("v4") else row["attempts_made"]
    if job is None:
        row["attempts_made"] = counted
        estimate(row, "attempts_made")
        return
    if not final or job.get("finished_on") is not None:
        counted = _bounded(row, job, counted)
    row["attempts_made"] = counted
    if sure:
        certain(row, "attempts_made")
    else:
        estimate(row, "attempts_made")


def _bounded(row: Row, job: Job, counted: int) -> int:
    made, later = job.get("attempts_made") or 0, _later_starts(row, job)
    if later == 0:
        return made
    return min(counted, made) if later < 0 else max(min(counted, made), fit(made - later))


def finish(step: Step) -> None:
    """The job has finished: BullMQ's own count where it is that of this end, else the row's."""
    row, job = step.row, step.job
    exhausted = step.event.get("exhausted")
    if exhausted is not None:
        row["attempts_made"] = exhausted
        certain(row, "attempts_made")
    elif job is not None and (row["seq"] == 0 or _is_of_this_end(step, row, job)):
        row["attempts_made"] = job.get("attempts_made") or 0
        certain(row, "attempts_made")
        if started(job) > row[NOTES]["starts"]:
            note(row, starts=started(job))
    elif row["state"] in lc.RUNNING:
        count(step, used=True, final=True)
    elif job is None:
        estimate(row, "attempts_made")


def _is_of_this_end(step: Step, row: Row, job: Job) -> bool:
    """Whether a hash that has finished has done so with this very entry, and not with a later one after a retry.

    Where the row does not know of all starts, a hash that finished after the entry is of a later end.
    """
    finished_on = job.get("finished_on")
    if finished_on is None:
        return False
    return _later_starts(row, job) <= 0 or bool(finished_on <= step.now)
