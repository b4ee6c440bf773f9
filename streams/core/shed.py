"""What a row and all that is told with it can do without, when Kafka would not take it whole.

One thing after the other goes, the most dispensable first, each named in the row's `estimated`: the row always goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from streams.core.row import HISTORY_TEXT_BYTES, SEED_FIELDS, Row, estimate
from streams.core.step import Alert, Result, Transition
from streams.core.text import cut


def lighter(result: Result) -> Result | None:
    """The next lighter version of what a fold came to, its alerts and transitions included; None if there is none.

    In this order: the texts in the history, `return_value`, `data`, `progress`, what other texts have beyond 2,000
    bytes, `parent`. `result` stays as it is.
    """
    for shed in _STAGES:
        found = shed(result)
        if found is not None:
            return found
    return None


def _history(result: Result) -> Result | None:
    row = result.row
    if row is None:
        return None
    bare = [_without_error(past) for past in row["history"]]
    if all(past is None for past in bare):
        return None
    kept = [old if new is None else new for old, new in zip(row["history"], bare, strict=True)]
    return _changed(result, row={**row, "history": kept}, named="history")


def _without_error(past: Any) -> dict[str, Any] | None:
    """A step of the history without its text; None where it has none. Older steps are carried as JSON in bytes."""
    step: dict[str, Any] = past if isinstance(past, dict) else json.loads(bytes(past))
    return {name: value for name, value in step.items() if name != "error"} if "error" in step else None


def _without(name: str) -> Callable[[Result], Result | None]:
    def shed(result: Result) -> Result | None:
        row = result.row
        heavy = row is not None and not _is_light(row[name])
        alerts = result.alerts
        if name in SEED_FIELDS:
            heavy = heavy or any(not _is_light(alert["job"][name]) for alert in alerts)
            alerts = tuple({**alert, "job": {**alert["job"], name: None}} for alert in alerts)
        if not heavy:
            return None
        return _changed(result, row=None if row is None else {**row, name: None}, alerts=alerts, named=name)

    return shed


def _is_light(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float)):
        return True
    if isinstance(value, (str, dict, list)):
        return False
    return bytes(value) == b"null"  # carried as JSON in bytes


def _texts(result: Result) -> Result | None:
    row, named = result.row, []
    if row is not None:
        lean = {**row, "name": _short(row["name"]), "failed_reason": _short(row["failed_reason"])}
        named = [name for name in ("name", "failed_reason") if lean[name] != row[name]]
        row = lean
    transitions = tuple(_lean_transition(one) for one in result.transitions)
    alerts = tuple(_lean_alert(one) for one in result.alerts)
    if not named and transitions == result.transitions and alerts == result.alerts:
        return None
    return _changed(result, row=row, transitions=transitions, alerts=alerts, named=" ".join(named))


def _short(text: str | None) -> str | None:
    return None if text is None else cut(text, HISTORY_TEXT_BYTES)


def _lean_transition(one: Transition) -> Transition:
    return {**one, "name": _short(one["name"]), "error": _short(one["error"])}


def _lean_alert(one: Alert) -> Alert:
    job = {**one["job"], "name": _short(one["job"]["name"]), "failed_reason": _short(one["job"]["failed_reason"])}
    labels = {**one["labels"], "job_name": _short(one["labels"]["job_name"])}
    annotations = {name: _short(text) for name, text in one["annotations"].items()}
    return {**one, "job": job, "labels": labels, "annotations": annotations, "reason": _short(one["reason"])}


def _changed(
    result: Result,
    *,
    row: Row | None,
    named: str,
    transitions: tuple[Transition, ...] | None = None,
    alerts: tuple[Alert, ...] | None = None,
) -> Result:
    if row is not None:
        estimate(row, *named.split())
    return Result(
        row,
        result.transitions if transitions is None else transitions,
        result.alerts if alerts is None else alerts,
        result.anomalies,
        result.ask,
    )


_STAGES: Final[tuple[Callable[[Result], Result | None], ...]] = (
    _history,
    _without("return_value"),
    _without("data"),
    _without("progress"),
    _texts,
    _without("parent"),
)
