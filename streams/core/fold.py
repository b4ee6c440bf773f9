"""The fold: (row or none, event) -> what the row becomes and what is to be told. Pure.

`fold` sends an event to the entries (`entries.py`) or to the observations (`looks.py`); both end in
`Step.move`, the one place where a transition is made.
"""

from __future__ import annotations

from streams.core import entries, lives, looks
from streams.core.events import OPENS_NO_LIFE, Event, is_after, is_look, ms_of
from streams.core.row import Row, life_of, life_of_entry
from streams.core.rules import DEFAULT_RULES, Rules
from streams.core.step import Result, Step


def fold(row: Row | None, event: Event, rules: Rules = DEFAULT_RULES) -> Result:
    """Apply one checked event (`events.check`) to the row of its job.

    What stands at or before the row's position changes nothing (`result.row is row`), and neither does a custom event.
    Never raises for a checked event: what the table of transitions calls illegal is followed and named in
    `result.anomalies`.
    """
    if not event["job_id"]:
        return Result(row)
    observed_at = event["observed_at"] if is_look(event) else None
    if row is not None and not _is_news(row, event, observed_at):
        return Result(row)
    if observed_at is not None:
        return _look(row, event, rules, observed_at)
    return _entry(row, event, rules, ms_of(event["stream_id"]))


def _is_news(row: Row, event: Event, observed_at: int | None) -> bool:
    """Whether an event stands behind the row's last: in a later history of the stream, or later in the same."""
    epoch, known = event.get("epoch"), row.get("epoch")
    if epoch != known:
        epoch, known = epoch or 0, known or 0
        if epoch != known:
            return bool(epoch > known)
    return is_after(event["stream_id"], observed_at, row["position"], row["observed_at"])


def _entry(row: Row | None, event: Event, rules: Rules, ms: int) -> Result:
    name = event["event"]
    handler = entries.HANDLERS.get(name)
    if handler is None or (row is None and name in OPENS_NO_LIFE):
        return Result(row, ask=row is None and name in OPENS_NO_LIFE)
    step = Step(row, event, rules, ms)
    if name == "added":
        step.begin(life=life_of_entry(event))
    elif row is None:
        step.begin(life=life_of(event))
    elif step.other is not None:
        if lives.begins(step):
            step.begin(life=life_of(event))
        else:
            step.doubt()
    handler(step)
    return step.result()


def _look(row: Row | None, event: Event, rules: Rules, observed_at: int) -> Result:
    if row is None and not event["found"]:
        return Result(None)
    step = Step(row, event, rules, observed_at, observed=True)
    looks.apply(step)
    return step.result()
