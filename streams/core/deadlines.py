"""When a row next needs somebody to look, and what that look is for.

A row notes since when it waits (`at`, ms of the source's clock) and for what; how long that is by the settings is
computed whenever somebody asks. So changed settings hold for rows that are already there, and a worker counts the time
from when it received the row, by its own clock: an id or a clock from the future delays nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from streams.core import alerts
from streams.core import lifecycle as lc
from streams.core.events import Event
from streams.core.row import NOTES, SPREAD, Row, note
from streams.core.rules import Rules
from streams.core.text import LARGEST, fit
from streams.core.upgrade import current

JITTER: Final = 4
"""Verifications spread over 1/4 of their interval, so that a snapshot's rows do not come due together."""

PROBE: Final = "probe"
VERIFY: Final = "verify"
EXPIRE: Final = "expire"
LAPSE: Final = "lapse"

Notes = dict[str, Any]


class Visit(NamedTuple):
    """What is to be done about a row whose deadline has come, and why."""

    action: str
    reason: str


_VISITS: Final = {
    EXPIRE: Visit(EXPIRE, "the retention of a finished job has ended"),
    LAPSE: Visit(LAPSE, "nobody has retried or removed a failed job for as long as its alert stays open"),
    PROBE: Visit(PROBE, "a running job's lock, or a job in no list, is to be looked at"),
    VERIFY: Visit(VERIFY, "an unfinished job, or a failed one with an open alert, has not been heard of"),
}


def schedule(row: Row, now: int, event: Event, rules: Rules, *, observed: bool) -> None:
    """Note from when on the row waits, having just been changed by `event` at `now`, and for what."""
    notes = row[NOTES] = row[NOTES].copy()
    state = row["state"]
    at, ttl_ms, age_ms = now, None, 0
    if state == lc.ACTIVE:
        at, ttl_ms = _of_a_running_job(notes, now, event, rules, observed=observed)
    elif state in lc.FINISHED:
        age_ms = fit(max(now - row["since"], 0))
    notes["at"] = at
    notes["state"] = state  # here again, so that an index can be rebuilt from the notes alone
    if ttl_ms is not None:
        notes["ttl"] = ttl_ms
    elif "ttl" in notes:
        del notes["ttl"]
    if row["source_state"] == lc.UNKNOWN:
        notes["lost"] = True
    elif "lost" in notes:
        del notes["lost"]
    if age_ms:
        notes["age"] = age_ms
    elif "age" in notes:
        del notes["age"]
    notes["due"] = min(at + wait_ms(notes, rules), LARGEST)


def _of_a_running_job(notes: Notes, now: int, event: Event, rules: Rules, *, observed: bool) -> tuple[int, int | None]:
    """(at, how long its lock lasts from then on; None = it is not known to have had one)."""
    if not observed:
        return (now, None) if event["event"] == "active" else (notes["at"], notes.get("ttl"))
    lock_ttl_ms = event.get("lock_ttl_ms")
    if lock_ttl_ms is not None:
        return now, max(lock_ttl_ms, 0)
    return now, None if "suspect" in notes else rules.verify_after_ms


def wait_ms(notes: Notes, rules: Rules) -> int:
    """How long after `notes["at"]` a row is due, by its notes: 0 or more, and bounded by the settings."""
    state = notes["state"]
    if state in lc.FINISHED:
        return _wait_of_what_has_finished(notes, rules)
    if "suspect" in notes and state != lc.STUCK:
        left: int = notes["suspect"]["at"] + rules.check_interval_ms - notes["at"]
        return min(max(left, 0), rules.check_interval_ms)
    if state == lc.ACTIVE:
        ttl_ms = notes.get("ttl")
        return rules.first_look_ms if ttl_ms is None else min(ttl_ms, rules.verify_after_ms) + rules.lock_margin_ms
    return _verification(notes, rules)


def _verification(notes: Notes, rules: Rules) -> int:
    return rules.verify_after_ms + _share(notes, rules.verify_after_ms // JITTER)


def _share(notes: Notes, spread_ms: int) -> int:
    """A row's own place in an interval over which many are spread."""
    return int(notes["spread"]) * spread_ms // SPREAD


def _wait_of_what_has_finished(notes: Notes, rules: Rules) -> int:
    wait = _retention(notes, rules)
    if alerts.OPEN not in notes:
        return wait
    if "gone" not in notes:
        wait = min(wait, _verification(notes, rules))
    lapse = _lapse(notes, rules)
    return wait if lapse is None else min(wait, lapse)


def _retention(notes: Notes, rules: Rules) -> int:
    age_ms: int = notes.get("age", 0)
    return max(rules.retention_ms - age_ms, 0)


def _lapse(notes: Notes, rules: Rules) -> int | None:
    """When the open alert of a failed job ends by itself; one of the release before from its first sight on."""
    opened = notes[alerts.OPEN].get(alerts.FAILED_RULE)
    if opened is None or not rules.resolve_after_ms:
        return None
    since, spread = opened["starts_at"], 0
    if "adopted" in opened:
        since, spread = opened["adopted"], _share(notes, rules.resolve_after_ms // JITTER)
        if since is None:
            return None
    open_ms: int = max(notes["at"] - since, 0)
    return max(rules.resolve_after_ms + spread - open_ms, 0)


def due_of(notes: Notes, rules: Rules) -> int:
    """The ms of the source's clock at which a row with these notes is due, under these rules.

    Notes of 0.1 say only when they were due under the rules of their time. `due_of_row` knows better.
    """
    if "at" in notes:
        return fit(notes["at"] + wait_ms(notes, rules))
    due: int = notes["due"]
    if alerts.OPEN in notes and notes["state"] in lc.FINISHED:
        return min(due, max(due - rules.retention_ms, 0) + rules.verify_after_ms)
    return due


def due_of_row(row: Row, rules: Rules) -> int:
    """As `due_of`, for a row of any release."""
    return due_of(current(row)[NOTES], rules)


def visit(row: Row, now: int, rules: Rules) -> Visit | None:
    """What to do about a row at `now` = its `at` and the time that has passed since it was received; None when it is
    not due (it has changed since it was put down as due).
    """
    notes = row[NOTES]
    if due_of(notes, rules) > now:
        return None
    if "at" in notes:
        return _VISITS[_action(notes, rules, now - notes["at"])]
    action = action_of(row["state"])
    return _VISITS[VERIFY if action == EXPIRE and now < notes["due"] else action]


def _action(notes: Notes, rules: Rules, waited_ms: int) -> str:
    if notes["state"] not in lc.FINISHED:
        return PROBE if "suspect" in notes and notes["state"] != lc.STUCK else action_of(notes["state"])
    if waited_ms >= _retention(notes, rules):
        return EXPIRE
    lapse = _lapse(notes, rules) if alerts.OPEN in notes else None
    return LAPSE if lapse is not None and waited_ms >= lapse else VERIFY


def action_of(state: str) -> str:
    """What a row in this state is mostly visited for: EXPIRE, PROBE or VERIFY."""
    if state in lc.FINISHED:
        return EXPIRE
    return PROBE if state == lc.ACTIVE else VERIFY


def lapse(row: Row, key: str, now: int, rules: Rules) -> tuple[Row, list[alerts.Alert]]:
    """A LAPSE: the row with no alert open, and the records that resolve them. `row` stays as it is."""
    row = current(row).copy()
    ended = alerts.lapse(row, key, now)
    note(row, due=due_of(row[NOTES], rules))
    return row, ended
