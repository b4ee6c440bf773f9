"""Whether the demo has shown what it is there to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.demo import timeline
from streams.demo.board import STATES, Board

_SLACK_S: Final = 3.0
"""For a busy machine."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Something that should be seen. `within_s` = how long after the first job it is there for sure."""

    what: str
    within_s: float
    seen: Callable[[Board], bool]


def _state(state: str, within_s: float) -> Expected:
    return Expected(f"a job {state}", within_s + _SLACK_S, lambda board: state in board.states_seen)


def _alert(what: str, rule: str, status: str, within_s: float) -> Expected:
    return Expected(what, within_s + _SLACK_S, lambda board: board.alerts_total[rule, status] > 0)


_STUCK_S: Final = timeline.KILL_AFTER_S + timeline.STUCK_WITHIN_S
_WITHIN_S: Final = {
    "waiting": 0.0,
    "active": 2.0,
    "delayed": 2.0,
    "completed": 4.0,
    "paused": timeline.PAUSE_AFTER_S,
    "failed": timeline.PAUSE_AFTER_S + timeline.PAUSE_S + 2.0,
    "stuck": _STUCK_S,
}
EXPECTED: Final = (
    *(_state(state, _WITHIN_S[state]) for state in STATES),
    _alert("a failed alert", "failed", "firing", _WITHIN_S["failed"]),
    _alert("a stuck alert", "stuck", "firing", _STUCK_S),
    _alert("a stuck alert that resolved", "stuck", "resolved", timeline.KILL_AFTER_S + timeline.RESCUED_WITHIN_S),
)


def too_late(seconds: float) -> list[str]:
    """What a demo of so many seconds may be too short for."""
    return [each.what for each in EXPECTED if each.within_s > seconds]


def missing(board: Board) -> list[str]:
    """What was not seen."""
    return [each.what for each in EXPECTED if not each.seen(board)]
