"""Events by hand, and a job's life folded from them."""

from __future__ import annotations

from typing import Any

from streams.core.events import Event, check
from streams.core.fold import fold
from streams.core.job import job_key
from streams.core.row import Row
from streams.core.rules import DEFAULT_RULES, Rules
from streams.core.step import Result

BORN = 1_000
KEY = job_key("s", "q", "1")


def job(**more: Any) -> dict[str, Any]:
    """A hash as the bridge decodes it, of a job that was added at BORN."""
    plain = {
        "name": "crawl", "data": {"n": 1}, "opts": {"attempts": 3}, "timestamp": BORN,
        "attempts_made": 0, "attempts_started": 0, "stalled_count": 0, "priority": 0, "delay": 0,
    }  # fmt: skip
    return {**plain, **more}


def entry(event: str, ms: int, job: dict[str, Any] | None = None, *, seq: int = 0, **more: Any) -> Event:
    """An entry of BullMQ's stream; `fields` and whatever else the bridge adds come by name."""
    plain = {
        "kind": "entry", "epoch": 0,
        "source": "s", "queue": "q", "job_id": "1", "event": event, "stream_id": f"{ms}-{seq}",
        "fields": {}, "queue_paused": False, "job": job, "enriched": job is not None,
    }  # fmt: skip
    return {**plain, **more}


def look(where: str | None, at: int, job: dict[str, Any] | None = None, **more: Any) -> Event:
    """An observation at the ms `at`; `where` None = not found. Its stream is at 0-0 unless told."""
    plain = {
        "kind": "look", "epoch": 0,
        "source": "s", "queue": "q", "job_id": "1", "event": "observed", "reason": "probe", "stream_id": "0-0",
        "observed_at": at, "found": where is not None, "where": where, "due_at": None, "lock_ttl_ms": None,
        "queue_paused": False, "job": job, "enriched": job is not None,
    }  # fmt: skip
    return {**plain, **more}


class Life:
    """What became of one key: its row, and all that was told."""

    def __init__(self, *events: Event, rules: Rules = DEFAULT_RULES) -> None:
        self.rules = rules
        self.row: Row | None = None
        self.transitions: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.anomalies: list[str] = []
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> Result:
        key = job_key(event["source"], event["queue"], event["job_id"]).encode()
        result = fold(self.row, check(event, key), self.rules)
        self.row = result.row
        self.transitions += result.transitions
        self.alerts += result.alerts
        self.anomalies += result.anomalies
        return result

    @property
    def live(self) -> Row:
        assert self.row is not None
        return self.row

    @property
    def moves(self) -> list[tuple[str | None, str, str]]:
        return [(t["from"], t["to"], t["cause"]) for t in self.transitions]

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(alert["rule"], alert["status"], alert["resolved_by"]) for alert in self.alerts]


def running(**more: Any) -> Life:
    """A job that a worker has taken at ms 2000."""
    return Life(
        entry("added", BORN, job()),
        entry("waiting", BORN, job(), seq=1),
        entry("active", 2_000, job(processed_on=2_000, attempts_started=1), fields={"prev": "waiting"}),
        **more,
    )
