"""When a row next needs somebody to look, and what that look is for. Times are of the source's clock, in ms."""

from __future__ import annotations

from typing import Final, NamedTuple

from streams.core import lifecycle as lc
from streams.core.events import OBSERVED, Event
from streams.core.row import NOTES, Row
from streams.core.rules import Rules

JITTER: Final = 4
"""Verifications spread over 1/4 of their interval, so that a snapshot's rows do not come due together."""

PROBE: Final = "probe"
VERIFY: Final = "verify"
EXPIRE: Final = "expire"


class Visit(NamedTuple):
    """What is to be done about a row whose deadline has come, and why."""

    action: str
    reason: str


_VISITS: Final = {
    EXPIRE: Visit(EXPIRE, "the retention of a finished job has ended"),
    PROBE: Visit(PROBE, "a running job's lock is to be looked at"),
    VERIFY: Visit(VERIFY, "an unfinished job has not been heard of"),
}


def next_look(row: Row, now: int, event: Event, rules: Rules) -> int:
    """The ms at which the row is due, having just been changed by `event` at `now`."""
    state = row["state"]
    if state in lc.FINISHED:
        return int(row["since"]) + rules.retention_ms
    if state == lc.ACTIVE:
        return _next_look_at_a_running_job(row, now, event, rules)
    return now + rules.verify_after_ms + _jitter(row["life"], rules.verify_after_ms // JITTER)


def _next_look_at_a_running_job(row: Row, now: int, event: Event, rules: Rules) -> int:
    if event["event"] != OBSERVED:
        return now + rules.first_look_ms if event["event"] == "active" else int(row[NOTES]["due"])
    lock_ttl_ms = event.get("lock_ttl_ms")
    if lock_ttl_ms is not None:
        return int(now + max(lock_ttl_ms, 0) + rules.lock_margin_ms)
    suspect = row[NOTES].get("suspect")
    return int((suspect["at"] if suspect else now) + rules.check_interval_ms)


def _jitter(life: int, spread_ms: int) -> int:
    """The same for a life at every look; neighbours in time are spread (Knuth's multiplicative hash)."""
    return life * 2_654_435_761 % spread_ms if spread_ms else 0


def visit(row: Row, now: int) -> Visit | None:
    """What to do about a row at `now`; None when it is not due (it has changed since it was put down as due)."""
    return None if row[NOTES]["due"] > now else _VISITS[action_of(row["state"])]


def action_of(state: str) -> str:
    """What a row in this state is visited for: EXPIRE, PROBE or VERIFY."""
    if state in lc.FINISHED:
        return EXPIRE
    return PROBE if state == lc.ACTIVE else VERIFY
