"""One step of the fold: the row as it changes, and everything there is to tell about it."""

from __future__ import annotations

from typing import Any

from streams.core import alerts, deadlines, lifecycle
from streams.core.events import Event
from streams.core.job import job_key
from streams.core.row import (
    HISTORY_LENGTH,
    HISTORY_TEXT_BYTES,
    NOTES,
    Job,
    Row,
    estimate,
    is_of_this_life,
    is_older,
    new_row,
    note,
)
from streams.core.rules import Rules
from streams.core.text import LARGEST, cut, fit
from streams.core.upgrade import current

Transition = dict[str, Any]
Alert = dict[str, Any]


class Result:
    """What a fold came to. `row` None = there is none (any more)."""

    __slots__ = ("alerts", "anomalies", "ask", "row", "transitions")

    def __init__(
        self,
        row: Row | None,
        transitions: tuple[Transition, ...] = (),
        alerts: tuple[Alert, ...] = (),
        anomalies: tuple[str, ...] = (),
        ask: bool = False,
    ) -> None:
        self.row = row
        self.transitions = transitions
        self.alerts = alerts
        self.anomalies = anomalies
        self.ask = ask
        """The entry names a job that the table does not know, or another life of it: look at it at the source."""


class Step:
    """The working copy of a row while one event is applied.

    `now` = the event's ms (a look: `observed_at`). `job` = the event's hash; `other` instead where that is of another
    life than the row: an entry may be older than the hash that was read for it.
    """

    __slots__ = (
        "alerts", "anomalies", "ask", "epoch", "event", "job", "now", "observed", "other", "row", "rules",
        "transitions",
    )  # fmt: skip

    def __init__(self, row: Row | None, event: Event, rules: Rules, now: int, *, observed: bool = False) -> None:
        self.row: Row = {} if row is None else row.copy() if "epoch" in row else current(row, now)
        self.event = event
        self.rules = rules
        self.now = now
        self.epoch: int = event.get("epoch", 0)
        self.observed = observed
        self.job: Job | None = event.get("job") or None
        self.other: Job | None = None
        self.transitions: tuple[Transition, ...] = ()
        self.alerts: tuple[Alert, ...] = ()
        self.anomalies: tuple[str, ...] = ()
        self.ask = False
        if row is not None:
            if self.epoch != self.row["epoch"]:
                note(self.row, crossed=True, suspect=None)
            if self.job and not observed and event["event"] != "added":
                self._judge_hash(self.job)

    def _judge_hash(self, job: Job) -> None:
        """A hash of another life, or of before what the row knows, says nothing of this entry."""
        row = self.row
        surely = job.get("timestamp") == row["timestamp"] and "untimed" not in row[NOTES]
        if not surely and not is_of_this_life(row, job):
            self.job, self.other = None, job
            return
        if row["processed_on"] is not None and is_older(row, job):
            self.job, self.ask = None, True
            self.anomalies += ("older_hash",)

    @property
    def key(self) -> str:
        """The job's key."""
        return job_key(self.event["source"], self.event["queue"], self.event["job_id"])

    def begin(self, life: int) -> None:
        """Open a new life; what was there under this key is closed first."""
        old = self.row
        if old:
            self.close("replaced")
            if old["life"] == life:
                life += 1 if life < LARGEST else -1
        self.row = new_row(self.event, life)
        self.job, self.other = self.job or self.other, None

    def doubt(self) -> None:
        """The hash is of another life, and the entry may be of the row's: only a look can tell."""
        self.ask = True
        self.anomalies += ("another_life",)

    def move(self, to: str, source_to: str, cause: str, *, error: str | None = None, at: int | None = None) -> None:
        """The job is now `to`: one transition, unless nothing changed."""
        row = self.row
        first = row["seq"] == 0
        if not first and row["state"] == to and row["source_state"] == source_to:
            return
        at = self.now if at is None else at
        self._tell(None if first else row["state"], to, source_to, cause, error=error, at=at)

    def close(self, cause: str) -> None:
        """The job is gone."""
        state = self.row["state"] if self.row["seq"] else None
        self._tell(state, lifecycle.REMOVED, lifecycle.REMOVED, cause, error=None, at=self.now)
        self.row = {}

    def _tell(self, state_from: str | None, to: str, source_to: str, cause: str, *, error: str | None, at: int) -> None:
        row = self.row
        if not lifecycle.is_legal(state_from, to, cause):
            self.anomalies += (f"{state_from or 'none'}_to_{to}",)
        row["seq"] += 1
        transition = self._transition(state_from, to, source_to, cause, error=error, at=at)
        past = {"from": state_from, "to": to, "at": at, "cause": cause}
        if error is not None:
            past["error"] = cut(error, HISTORY_TEXT_BYTES)
        row["history"] = [*row["history"][1 - HISTORY_LENGTH :], past]
        if to != lifecycle.REMOVED:
            row["state"], row["source_state"], row["since"] = to, source_to, at
            if "crossed" in row[NOTES]:
                note(row, crossed=None)
        self.transitions += (transition,)
        if to in alerts.RULES or alerts.OPEN in row[NOTES]:
            self._alert(transition)

    def _alert(self, transition: Transition) -> None:
        exhausted = self.event.get("exhausted") is not None
        snapshot = self.observed and self.event.get("reason") == "snapshot"
        self.alerts += tuple(
            alerts.decide(self.row, transition, self.key, self.rules, self.now, snapshot=snapshot, exhausted=exhausted)
        )

    def _transition(
        self, state_from: str | None, to: str, source_to: str, cause: str, *, error: str | None, at: int
    ) -> Transition:
        row = self.row
        return {
            "source": row["source"],
            "queue": row["queue"],
            "job_id": row["id"],
            "name": row["name"],
            "life": row["life"],
            "seq": row["seq"],
            "from": state_from,
            "to": to,
            "source_from": None if state_from is None else row["source_state"],
            "source_to": source_to,
            "at": at,
            "duration_ms": None if state_from is None or "crossed" in row[NOTES] else fit(max(at - row["since"], 0)),
            "cause": cause,
            "error": error,
            "attempts_made": row["attempts_made"],
            "max_attempts": row["max_attempts"],
            "final": to in lifecycle.FINAL,
            "observed": self.observed,
            "position": self.event["stream_id"],
            "epoch": self.epoch,
        }

    def guess(self, cause: str) -> str:
        """A cause that neither entry nor hash tell for sure."""
        estimate(self.row, "cause")
        return cause

    def result(self) -> Result:
        """Close the step: position, notes and deadline are set, and the row is handed out."""
        row = self.row
        if not row:
            return Result(None, self.transitions, self.alerts, self.anomalies, self.ask)
        if not self.observed and "suspect" in row[NOTES]:
            note(row, suspect=None)
        row["position"] = self.event["stream_id"]
        row["observed_at"] = self.event["observed_at"] if self.observed else None
        row["epoch"] = self.epoch
        deadlines.schedule(row, self.now, self.event, self.rules, observed=self.observed)
        return Result(row, self.transitions, self.alerts, self.anomalies, self.ask)
