"""When an alert opens and when it ends. One incident = one firing record and one resolved record."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from streams.core import lifecycle as lc
from streams.core.row import NOTES, Row, estimate, note, seed_of
from streams.core.rules import AlertRule, Rules
from streams.core.text import fit

Alert = dict[str, Any]

FAILED_RULE: Final = "failed"
STUCK_RULE: Final = "stuck"
RULES: Final = frozenset({FAILED_RULE, STUCK_RULE})
"""Each rule has the name of the state that opens it."""
OPEN: Final = "alerts"
"""The note that holds what is open."""
ALERT_NAMES: Final = {FAILED_RULE: "BullMQJobFailed", STUCK_RULE: "BullMQJobStuck"}
_GONE: Final = frozenset({"removed", "vanished", "replaced"})
_STALLED_OUT: Final = "job stalled more than allowable limit"
_STARTED_TOO_OFTEN: Final = "job started more than allowable limit"
_FAILED_CHILD: Final = re.compile(r"child [^:]+:.+:.+ failed", re.DOTALL)
"""BullMQ's fixed texts, as its versions 4 to 6 write them; a child is named by its key."""


def fingerprint(rule: str, key: str, life: int) -> str:
    """16 hex digits that name an incident's job, life and rule."""
    return hashlib.sha256(f"{rule}\n{key}\n{life}".encode()).hexdigest()[:16]


def decide(
    row: Row, transition: dict[str, Any], key: str, rules: Rules, now: int, *, snapshot: bool, exhausted: bool = False
) -> list[Alert]:
    """The alerts that a transition resolves and opens. `row` has its fields of after, and its notes of before;
    `exhausted` = BullMQ itself says that no attempt was left.

    Alerts begin and end by Redis' clock, at the ms `now` of the entry or look: a transition found by a look may have
    the time of a worker's clock, and those differ.
    """
    to = transition["to"]
    if to == transition["from"] == lc.STUCK and OPEN in row[NOTES]:
        return []  # the same incident, of which more is known
    decided = _resolve(row, transition, key, now)
    if to == lc.FAILED and rules.failed.enabled and not (snapshot and transition["from"] is None):
        cause, reason = _why_failed(row, transition, exhausted=exhausted)
        decided.append(_open(row, key, FAILED_RULE, rules.failed, cause, reason, now))
    elif to == lc.STUCK and rules.stuck.enabled:
        cause, reason = _why_stuck(row, now)
        decided.append(_open(row, key, STUCK_RULE, rules.stuck, cause, reason, now))
    return decided


def expire(row: Row, key: str, now: int) -> list[Alert]:
    """What is still open when the row's retention ends."""
    open_alerts = row[NOTES].get(OPEN, {})
    return [
        _alert(row, key, rule, opened, "expired", max(now, opened["starts_at"])) for rule, opened in open_alerts.items()
    ]


def vanish(row: Row, key: str, now: int) -> list[Alert]:
    """A failed job was taken away, and its alert ends; the row of what has finished stays. Changes the row's notes."""
    return _end(row, key, now, "vanished")


def lapse(row: Row, key: str, now: int) -> list[Alert]:
    """Nobody retried or removed a failed job: its alert ends, the row stays. Changes the row's notes."""
    return _end(row, key, now, "expired")


def _end(row: Row, key: str, now: int, resolved_by: str) -> list[Alert]:
    open_alerts = row[NOTES].get(OPEN) or {}
    _note_ended(row, open_alerts)
    return [
        _alert(row, key, rule, opened, resolved_by, max(now, opened["starts_at"]))
        for rule, opened in open_alerts.items()
    ]


def _note_ended(row: Row, open_alerts: dict[str, dict[str, Any]]) -> None:
    latest = max((opened["starts_at"] for opened in open_alerts.values()), default=None)
    note(row, alerts=None, alerted=latest, kept=None, gone=None)


def _resolve(row: Row, transition: dict[str, Any], key: str, now: int) -> list[Alert]:
    """Whatever is open ends here: an alert speaks of a state, and every transition leaves one."""
    open_alerts = row[NOTES].get(OPEN)
    if not open_alerts:
        return []
    _note_ended(row, open_alerts)
    return [
        _alert(row, key, rule, opened, _resolved_by(rule, transition), max(now, opened["starts_at"]))
        for rule, opened in open_alerts.items()
    ]


def _resolved_by(rule: str, transition: dict[str, Any]) -> str:
    to = transition["to"]
    if to == lc.REMOVED:
        return transition["cause"] if transition["cause"] in _GONE else "removed"
    if to in lc.FINISHED:
        return str(to)
    return "retried" if rule == FAILED_RULE else "rescued"


def _why_failed(row: Row, transition: dict[str, Any], *, exhausted: bool) -> tuple[str, str]:
    """Where the job was and what BullMQ counts tell it. A text alone tells nothing: anybody may write BullMQ's."""
    made, most = row["attempts_made"], row["max_attempts"]
    if _has_stalled_out(row):
        return "stalled_too_often", f"stalled {row['stalled_count']} times, more than its worker allows"
    if _is_failed_by_a_child(row, transition):
        return "child_failed", "a child that its parent depends on has failed"
    if not exhausted and (most is None or "attempts_made" in row["estimated"]):
        estimate(row, "cause")
    if exhausted or most is None or made >= most or _was_started_too_often(row):
        return (
            "attempts_exhausted",
            f"attempt {made} of {most if most is not None else 'an unknown number'} has failed",
        )
    return "unrecoverable", f"failed for good at attempt {made} of {most}"


def _has_stalled_out(row: Row) -> bool:
    stalled = row["stalled_count"] > 0 or "deferred" in row[NOTES]
    return bool(stalled and row["failed_reason"] == _STALLED_OUT)


def _is_failed_by_a_child(row: Row, transition: dict[str, Any]) -> bool:
    """BullMQ 4 fails a parent where it waits; later ones let a worker take it first, only to be failed."""
    if transition["source_from"] == lc.WAITING_CHILDREN and not transition["observed"]:
        return True
    from_there = transition["source_from"] == lc.WAITING_CHILDREN or "freed" in row[NOTES] or "deferred" in row[NOTES]
    return from_there and _FAILED_CHILD.fullmatch(row["failed_reason"] or "") is not None


def _was_started_too_often(row: Row) -> bool:
    """BullMQ starts a job once more than allowed, only to fail it."""
    return bool(row[NOTES]["starts"] > 1 and row["failed_reason"] == _STARTED_TOO_OFTEN)


def _why_stuck(row: Row, at: int) -> tuple[str, str]:
    suspect = row[NOTES].get("suspect")
    apart_s = (at - suspect["at"]) / 1000 if suspect else 0.0
    if row["source_state"] == lc.UNKNOWN:
        return "in_no_list", f"in none of BullMQ's lists, seen twice {apart_s:.1f} s apart"
    return "lock_lost", f"in the active list without a lock, seen twice {apart_s:.1f} s apart"


def _open(row: Row, key: str, rule: str, settings: AlertRule, cause: str, reason: str, at: int) -> Alert:
    """A new incident. It starts after the life's earlier ones, also within one ms."""
    earlier = row[NOTES].get("alerted")
    opened = {
        "starts_at": at if earlier is None else fit(max(at, earlier + 1)),
        "cause": cause,
        "reason": reason,
        "severity": settings.severity,
    }
    note(row, alerts={**row[NOTES].get(OPEN, {}), rule: opened})
    return _alert(row, key, rule, opened, None, None)


def _alert(
    row: Row,
    key: str,
    rule: str,
    opened: dict[str, Any],
    resolved_by: str | None,
    ends_at: int | None,
) -> Alert:
    name, queue = row["name"] or row["id"], f"{row['source']}/{row['queue']}"
    return {
        "fingerprint": fingerprint(rule, key, row["life"]),
        "rule": rule,
        "status": "firing" if resolved_by is None else "resolved",
        "severity": opened["severity"],
        "starts_at": opened["starts_at"],
        "ends_at": ends_at,
        "cause": opened["cause"],
        "reason": opened["reason"],
        "labels": {
            "alertname": ALERT_NAMES[rule],
            "source": row["source"],
            "queue": row["queue"],
            "job_name": row["name"],
        },
        "annotations": {
            "summary": f"Job {name} in {queue} {_SUMMARIES[opened['cause'] if rule == STUCK_RULE else rule]}",
            "description": _description(row, rule, opened),
        },
        "source": row["source"],
        "queue": row["queue"],
        "job_id": row["id"],
        "life": row["life"],
        "job": seed_of(row),
        "resolved_by": resolved_by,
    }


_SUMMARIES: Final = {
    FAILED_RULE: "has failed for good",
    "lock_lost": "is active but has no lock",
    "in_no_list": "is in none of BullMQ's lists",
}


def _description(row: Row, rule: str, opened: dict[str, Any]) -> str:
    if rule == FAILED_RULE:
        return f"Job {row['id']}: {opened['reason']}. Last error: {row['failed_reason']}"
    if opened["cause"] == "in_no_list":
        return (
            f"Job {row['id']}: {opened['reason']}. Somebody took it out of its list, or BullMQ lost it. "
            "No worker will find it; remove it and add it again."
        )
    return (
        f"Job {row['id']}: {opened['reason']}. Its worker died, hung or let go of it. "
        "BullMQ gives it to another worker once a stalled check runs; without a live worker it stays so."
    )
