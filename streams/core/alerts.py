"""When an alert opens and when it ends. One incident = one firing record and one resolved record."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from streams.core import lifecycle as lc
from streams.core.row import NOTES, Row, note, seed_of
from streams.core.rules import AlertRule, Rules

Alert = dict[str, Any]

FAILED_RULE: Final = "failed"
STUCK_RULE: Final = "stuck"
RULES: Final = frozenset({FAILED_RULE, STUCK_RULE})
"""Each rule has the name of the state that opens it."""
OPEN: Final = "alerts"
"""The note that holds what is open."""
ALERT_NAMES: Final = {FAILED_RULE: "BullMQJobFailed", STUCK_RULE: "BullMQJobStuck"}
_GONE: Final = frozenset({"removed", "vanished", "replaced"})


def fingerprint(rule: str, key: str, life: int) -> str:
    """16 hex digits that name an incident's job, life and rule."""
    return hashlib.sha256(f"{rule}\n{key}\n{life}".encode()).hexdigest()[:16]


def decide(row: Row, transition: dict[str, Any], key: str, rules: Rules, now: int, *, snapshot: bool) -> list[Alert]:
    """The alerts that a transition resolves and opens. `row` has its fields of after, and its notes of before.

    Alerts begin and end by Redis' clock, at the ms `now` of the entry or look: a transition found by a look may have
    the time of a worker's clock, and those differ.
    """
    to = transition["to"]
    decided = _resolve(row, transition, key, now)
    if to == lc.FAILED and rules.failed.enabled and not (snapshot and transition["from"] is None):
        cause, reason = _why_failed(row, transition)
        decided.append(_open(row, key, FAILED_RULE, rules.failed, cause, reason, now))
    elif to == lc.STUCK and rules.stuck.enabled:
        cause, reason = _why_stuck(row, now)
        decided.append(_open(row, key, STUCK_RULE, rules.stuck, cause, reason, now))
    return decided


def expire(row: Row, key: str, now: int) -> list[Alert]:
    """What is still open when the row's retention ends."""
    open_alerts = row[NOTES].get(OPEN, {})
    return [_alert(row, key, rule, opened, "expired", now) for rule, opened in open_alerts.items()]


def _resolve(row: Row, transition: dict[str, Any], key: str, now: int) -> list[Alert]:
    """Whatever is open ends here: an alert speaks of a state, and every transition leaves one."""
    open_alerts = row[NOTES].get(OPEN)
    if not open_alerts:
        return []
    note(row, alerts=None, alerted=max(opened["starts_at"] for opened in open_alerts.values()))
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


def _why_failed(row: Row, transition: dict[str, Any]) -> tuple[str, str]:
    """BullMQ's own words tell stalls and children; the count of attempts tells the rest."""
    error = row["failed_reason"] or ""
    made, most = row["attempts_made"], row["max_attempts"]
    if "stalled more than allowable limit" in error:
        return "stalled_too_often", f"stalled {row['stalled_count']} times, more than its worker allows"
    if transition["source_from"] == lc.WAITING_CHILDREN or (error.startswith("child ") and error.endswith(" failed")):
        return "child_failed", "a child that its parent depends on has failed"
    if most is None or made >= most or "started more than allowable limit" in error:
        return (
            "attempts_exhausted",
            f"attempt {made} of {most if most is not None else 'an unknown number'} has failed",
        )
    return "unrecoverable", f"failed for good at attempt {made} of {most}"


def _why_stuck(row: Row, at: int) -> tuple[str, str]:
    suspect = row[NOTES].get("suspect")
    apart_s = (at - suspect["at"]) / 1000 if suspect else 0.0
    return "lock_lost", f"in the active list without a lock, seen twice {apart_s:.1f} s apart"


def _open(row: Row, key: str, rule: str, settings: AlertRule, cause: str, reason: str, at: int) -> Alert:
    """A new incident. It starts after the life's earlier ones, also within one ms."""
    earlier = row[NOTES].get("alerted")
    opened = {
        "starts_at": at if earlier is None else max(at, earlier + 1),
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
            "summary": f"Job {name} in {queue} {_SUMMARIES[rule]}",
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
    STUCK_RULE: "is active but has no lock",
}


def _description(row: Row, rule: str, opened: dict[str, Any]) -> str:
    if rule == FAILED_RULE:
        return f"Job {row['id']}: {opened['reason']}. Last error: {row['failed_reason']}"
    return (
        f"Job {row['id']}: {opened['reason']}. Its worker died, hung or let go of it. "
        "BullMQ gives it to another worker once a stalled check runs; without a live worker it stays so."
    )
