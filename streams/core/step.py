"""One step of the fold: the row as it changes, and everything there is to tell about it."""

from __future__ import annotations

from typing import Any

from streams.core import alerts, deadlines, lifecycle
from streams.core.events import OBSERVED, Event
from streams.core.job import job_key
from streams.core.row import HISTORY_LENGTH, NOTES, Job, Row, estimate, new_row, note
from streams.core.rules import Rules

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
        """The entry names a job that the table does not know: look at it at the source."""


class Step:
    """The working copy of a row while one event is applied; `now` = the event's ms (a look: `observed_at`)."""

    __slots__ = ("alerts", "anomalies", "event", "job", "now", "observed", "row", "rules", "transitions")

    def __init__(self, row: Row | None, event: Event, rules: Rules, now: int) -> None:
        self.row: Row = row.copy() if row is not None else {}
        self.event = event
        self.rules = rules
        self.now = now
        self.observed = event["event"] == OBSERVED
        job = event.get("job")
        self.job = self._own_hash(job) if job else None
        self.transitions: tuple[Transition, ...] = ()
        self.alerts: tuple[Alert, ...] = ()
        self.anomalies: tuple[str, ...] = ()

    def _own_hash(self, job: Job) -> Job | None:
        """None for the hash of a later life: an entry may be older than the hash that was read for it."""
        if not self.row or self.observed or self.event["event"] == "added":
            return job
        same = job.get("timestamp") == self.row["timestamp"] or "timestamp" in self.row["estimated"]
        return job if same else None

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
                life += 1
        self.row = new_row(self.event, life)

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
            past["error"] = error
        row["history"] = [*row["history"][1 - HISTORY_LENGTH :], past]
        if to != lifecycle.REMOVED:
            row["state"], row["source_state"], row["since"] = to, source_to, at
        self.transitions += (transition,)
        if to in alerts.RULES or alerts.OPEN in row[NOTES]:
            self.alerts += tuple(
                alerts.decide(row, transition, self.key, self.rules, self.now, snapshot=self._is_snapshot())
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
            "duration_ms": None if state_from is None else max(at - row["since"], 0),
            "cause": cause,
            "error": error,
            "attempts_made": row["attempts_made"],
            "max_attempts": row["max_attempts"],
            "final": to in lifecycle.FINAL,
            "observed": self.observed,
            "position": self.event["stream_id"],
        }

    def _is_snapshot(self) -> bool:
        return self.observed and self.event.get("reason") == "snapshot"

    def guess(self, cause: str) -> str:
        """A cause that neither entry nor hash tell for sure."""
        estimate(self.row, "cause")
        return cause

    def result(self) -> Result:
        """Close the step: position, notes and deadline are set, and the row is handed out."""
        row = self.row
        if not row:
            return Result(None, self.transitions, self.alerts, self.anomalies)
        if not self.observed and "suspect" in row[NOTES]:
            note(row, suspect=None)
        row["position"] = self.event["stream_id"]
        row["observed_at"] = self.event["observed_at"] if self.observed else None
        due = deadlines.next_look(row, self.now, self.event, self.rules)
        notes = row[NOTES]
        if notes["due"] != due or notes["state"] != row["state"]:
            # The state stands here again, so that an index can be rebuilt from the notes alone.
            notes = row[NOTES] = notes.copy()
            notes["due"], notes["state"] = due, row["state"]
        return Result(row, self.transitions, self.alerts, self.anomalies)
