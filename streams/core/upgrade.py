"""Rows of release 0.1, as this one keeps them."""

from __future__ import annotations

from typing import Final

from streams.core import lifecycle as lc
from streams.core.events import ms_of
from streams.core.row import NOTES, Row, spread_of
from streams.core.text import fit

_WHOLE: Final = (
    "delay", "timestamp", "attempts_made", "finished_on", "processed_on", "life", "since", "due_at", "observed_at",
    "seq", "max_attempts", "priority", "stalled_count",
)  # fmt: skip


def current(row: Row, seen_at: int | None = None) -> Row:
    """The row itself, or what a row of 0.1 looks like today: a new dict with the new fields before its notes.

    `seen_at` (ms of the source's clock): when it is changed. Its open alerts count from then on, and before do not end.
    """
    return row if "epoch" in row else _upgraded(row, seen_at)


def _upgraded(row: Row, seen_at: int | None) -> Row:
    notes = {**row[NOTES]}
    row = {name: value for name, value in row.items() if name != NOTES}
    estimated = list(row["estimated"])
    for name in _WHOLE:
        value = row[name]
        if value is not None and fit(value) != value:
            row[name] = fit(value)
            estimated.append(name)
    if row["timestamp"] is None:
        row["timestamp"], notes["untimed"] = row["life"], True
        estimated.append("timestamp")
    row["estimated"] = list(dict.fromkeys(estimated))
    row["epoch"] = 0
    row[NOTES] = notes
    at = ms_of(row["position"]) if row["observed_at"] is None else row["observed_at"]
    notes["at"], notes["spread"] = at, spread_of(row["life"])
    if row["state"] in lc.FINISHED:
        notes["age"] = fit(max(at - row["since"], 0))
    elif row["state"] == lc.ACTIVE and "suspect" not in notes:
        notes["ttl"] = fit(max(notes["due"] - at, 0))
    if "alerts" in notes:
        notes["alerts"] = {rule: {**opened, "adopted": seen_at} for rule, opened in notes["alerts"].items()}
    return row
