"""Every state and every legal transition, as a table: what is absent here is illegal.

An illegal transition is followed all the same (the source is right), but it is counted and visible.
`docs/lifecycle.md` is generated from this module.
"""

from __future__ import annotations

from typing import Final

WAITING: Final = "waiting"
ACTIVE: Final = "active"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
DELAYED: Final = "delayed"
PAUSED: Final = "paused"
STUCK: Final = "stuck"
REMOVED: Final = "removed"

STATES: Final = (WAITING, ACTIVE, COMPLETED, FAILED, DELAYED, PAUSED, STUCK)
"""The closed set that a row's `state` is from."""
FINISHED: Final = frozenset({COMPLETED, FAILED})
FINAL: Final = frozenset({COMPLETED, FAILED, REMOVED})
READY: Final = frozenset({WAITING, PAUSED})
RUNNING: Final = frozenset({ACTIVE, STUCK})

PRIORITIZED: Final = "prioritized"
WAITING_CHILDREN: Final = "waiting-children"
UNKNOWN: Final = "unknown"
"""What BullMQ's `getState` says of a job that is in none of its places."""

SOURCE_STATE_OF_PLACE: Final = {
    "wait": WAITING,
    "paused": WAITING,
    "prioritized": PRIORITIZED,
    "waiting-children": WAITING_CHILDREN,
    "delayed": DELAYED,
    "active": ACTIVE,
    "completed": COMPLETED,
    "failed": FAILED,
}
"""BullMQ's list or sorted set to the word that its own `getState` uses for a job in it."""

_READY_CAUSES: Final = ("attempt_failed", "rate_limited")

LEGAL: Final[dict[tuple[str | None, str], frozenset[str]]] = {
    (None, WAITING): frozenset({"added", "observed", "due", "promoted", "children_done", "retried"}),
    (None, PAUSED): frozenset({"added", "observed"}),
    (None, DELAYED): frozenset({"scheduled", "observed"}),
    (None, ACTIVE): frozenset({"picked_up", "observed"}),
    (None, COMPLETED): frozenset({"completed", "observed"}),
    (None, FAILED): frozenset({"failed", "observed"}),
    (None, STUCK): frozenset({"observed"}),
    (WAITING, WAITING): frozenset({"observed", "children_done"}),
    (WAITING, ACTIVE): frozenset({"picked_up", "observed"}),
    (WAITING, PAUSED): frozenset({"paused", "observed", "children_done"}),
    (WAITING, DELAYED): frozenset({"children_done", "moved", "observed"}),
    (WAITING, FAILED): frozenset({"failed", "observed"}),
    (WAITING, COMPLETED): frozenset({"observed"}),
    (WAITING, STUCK): frozenset({"observed"}),
    (PAUSED, WAITING): frozenset({"resumed", "observed"}),
    (PAUSED, ACTIVE): frozenset({"picked_up", "observed"}),
    (PAUSED, PAUSED): frozenset({"observed"}),
    (PAUSED, DELAYED): frozenset({"moved", "observed"}),
    (PAUSED, FAILED): frozenset({"observed"}),
    (PAUSED, COMPLETED): frozenset({"observed"}),
    (PAUSED, STUCK): frozenset({"observed"}),
    (DELAYED, WAITING): frozenset({"due", "promoted", "observed"}),
    (DELAYED, PAUSED): frozenset({"due", "promoted", "observed"}),
    (DELAYED, ACTIVE): frozenset({"observed"}),
    (DELAYED, COMPLETED): frozenset({"observed"}),
    (DELAYED, FAILED): frozenset({"observed"}),
    (DELAYED, STUCK): frozenset({"observed"}),
    (ACTIVE, COMPLETED): frozenset({"completed", "observed"}),
    (ACTIVE, FAILED): frozenset({"failed", "observed"}),
    (ACTIVE, WAITING): frozenset({*_READY_CAUSES, "stalled", "moved", "children_done", "observed"}),
    (ACTIVE, PAUSED): frozenset({*_READY_CAUSES, "stalled", "moved", "children_done", "observed"}),
    (ACTIVE, DELAYED): frozenset({"attempt_failed", "moved", "observed"}),
    (ACTIVE, STUCK): frozenset({"lock_lost", "observed"}),
    (STUCK, WAITING): frozenset({"rescued", "observed"}),
    (STUCK, PAUSED): frozenset({"rescued", "observed"}),
    (STUCK, ACTIVE): frozenset({"observed"}),
    (STUCK, STUCK): frozenset({"observed"}),
    (STUCK, DELAYED): frozenset({"observed"}),
    (STUCK, COMPLETED): frozenset({"observed"}),
    (STUCK, FAILED): frozenset({"failed", "observed"}),
    (COMPLETED, WAITING): frozenset({"retried", "observed"}),
    (COMPLETED, PAUSED): frozenset({"retried", "observed"}),
    (COMPLETED, ACTIVE): frozenset({"observed"}),
    (COMPLETED, DELAYED): frozenset({"observed"}),
    (COMPLETED, FAILED): frozenset({"observed"}),
    (COMPLETED, STUCK): frozenset({"observed"}),
    (FAILED, WAITING): frozenset({"retried", "observed"}),
    (FAILED, PAUSED): frozenset({"retried", "observed"}),
    (FAILED, ACTIVE): frozenset({"observed"}),
    (FAILED, DELAYED): frozenset({"observed"}),
    (FAILED, COMPLETED): frozenset({"observed"}),
    (FAILED, STUCK): frozenset({"observed"}),
    **{(state, REMOVED): frozenset({"removed", "vanished", "replaced"}) for state in (None, *STATES)},
}


def is_legal(from_state: str | None, to_state: str, cause: str) -> bool:
    """Whether the table knows this transition for this cause."""
    return cause in LEGAL.get((from_state, to_state), ())


def state_of(source_state: str, *, queue_paused: bool) -> str:
    """The row's `state` for BullMQ's word; `stuck` is never said here, it takes two looks."""
    if source_state in (WAITING, PRIORITIZED):
        return PAUSED if queue_paused else WAITING
    return WAITING if source_state == WAITING_CHILDREN else source_state
