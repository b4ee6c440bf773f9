"""What the demo has seen so far: plain counting, no terminal and no Kafka. All times in ms."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

STATES: Final = ("waiting", "active", "delayed", "paused", "stuck", "completed", "failed")
WINDOW_S: Final = 60
_NEWEST: Final = 100


@dataclass(slots=True)
class Rate:
    """Events in each of the last 60 s."""

    _seconds: Counter[int] = field(default_factory=Counter)
    total: int = 0

    def add(self, now_ms: int) -> None:
        """One more."""
        second = now_ms // 1000
        if second not in self._seconds:
            for old in [each for each in self._seconds if each <= second - WINDOW_S]:
                del self._seconds[old]
        self._seconds[second] += 1
        self.total += 1

    def last(self, seconds: int, now_ms: int) -> list[int]:
        """Events in each of the last whole seconds, the oldest first."""
        now = now_ms // 1000
        return [self._seconds[second] for second in range(now - seconds, now)]

    def per_second(self, now_ms: int, over_s: int = 5) -> float:
        """Mean of the last whole seconds."""
        return sum(self.last(over_s, now_ms)) / over_s


class Board:
    """Takes every record of the four topics; the views and the verdict read from it."""

    def __init__(self) -> None:
        self.events = Rate()
        self.transitions: deque[dict[str, Any]] = deque(maxlen=_NEWEST)
        self.alerts: dict[tuple[str, int], dict[str, Any]] = {}
        """By fingerprint and start: as each incident stands now, in the order they began."""
        self.states_seen: dict[str, int] = {}
        """State → ms of its first sight."""
        self.notes: deque[str] = deque(maxlen=_NEWEST)
        self.first_job_ms: int | None = None
        self.transitions_total = 0
        self.alerts_total: Counter[tuple[str, str]] = Counter()
        self._state_of: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._delays: deque[tuple[int, int]] = deque()

    def event(self, now_ms: int) -> None:
        """A record on `events`."""
        self.events.add(now_ms)

    def status(self, key: str, row: dict[str, Any] | None) -> None:
        """A record on `status`: the row of a job, or None where the job is gone."""
        before = self._state_of.pop(key, None)
        if before is not None:
            self._counts[before] -= 1
        if row is not None:
            self._state_of[key] = row["state"]
            self._counts[row["state"]] += 1

    def transition(self, value: dict[str, Any], *, written_ms: int, now_ms: int) -> None:
        """A record on `transitions`; its own time is that of BullMQ's entry."""
        if self.first_job_ms is None:
            self.first_job_ms = now_ms
        self.transitions.append(value)
        self.transitions_total += 1
        self.states_seen.setdefault(value["to"], now_ms)
        if not value["observed"]:
            self._delays.append((now_ms, max(0, now_ms - written_ms)))
        while self._delays and self._delays[0][0] < now_ms - WINDOW_S * 1000:
            self._delays.popleft()

    def alert(self, value: dict[str, Any], now_ms: int) -> None:
        """A record on `alerts`."""
        incident = (value["fingerprint"], value["starts_at"])
        before = self.alerts.get(incident, {})
        self.alerts[incident] = {**value, "seen_ms": before.get("seen_ms", now_ms)}
        if before.get("status") != value["status"]:
            self.alerts_total[value["rule"], value["status"]] += 1
        while len(self.alerts) > _NEWEST:
            del self.alerts[next(iter(self.alerts))]

    @property
    def counts(self) -> dict[str, int]:
        """Jobs in each of the seven states now."""
        return {state: self._counts[state] for state in STATES}

    def delay_ms(self, share: float) -> int | None:
        """A percentile (0..1) of the last minute's delays, from BullMQ's entry to its transition here."""
        delays = sorted(delay for _, delay in self._delays)
        return delays[min(len(delays) - 1, int(share * len(delays)))] if delays else None

    @property
    def firing(self) -> list[dict[str, Any]]:
        """Incidents that are not resolved, the newest last."""
        return [alert for alert in self.alerts.values() if alert["status"] == "firing"]
