"""docs/lifecycle.md: the table of transitions as a diagram and in words."""

from __future__ import annotations

from typing import Final

from streams.core import lifecycle as lc

CAUSES: Final = {
    "added": "BullMQ's `added`, and the entry of the same script that says where the job went",
    "scheduled": "added with a delay",
    "picked_up": "a worker has taken it (`active`)",
    "completed": "BullMQ's `completed`",
    "failed": "BullMQ's `failed`: no attempt is left, or none is wanted",
    "attempt_failed": "an attempt has failed and another will follow",
    "due": "its time had come",
    "promoted": "it was made ready before its time",
    "retried": "somebody retried a finished job",
    "stalled": "BullMQ's stalled check put it back while it counted as active",
    "rescued": "the same, while it counted as stuck",
    "lock_lost": "in the active list without a lock, in two looks",
    "rate_limited": "given back because of a rate limit",
    "moved": "its processor moved it, or somebody changed its delay",
    "children_done": "its children are done, or one of them has failed it",
    "paused": "its queue was paused",
    "resumed": "its queue was resumed",
    "removed": "BullMQ's `removed`",
    "vanished": "a look did not find it, and it had not finished",
    "replaced": "its id began a new life",
    "observed": "a look found it there, and nothing tells how it came",
}
"""What each `cause` means. In the order in which the page lists them."""

STATES: Final = {
    lc.WAITING: "A worker could take it, or (`source_state` `waiting-children`) it waits for its children.",
    lc.ACTIVE: "A worker has it. Its lock is looked at, rarely as long as it is renewed.",
    lc.DELAYED: "It waits for `due_at`: scheduled, or for its next attempt.",
    lc.PAUSED: "A worker could take it if its queue were not paused.",
    lc.STUCK: "It is in BullMQ's active list and has no lock: the worker died, hung or let go of it. "
    "Or (`source_state` `unknown`) it exists and is in none of BullMQ's lists.",
    lc.COMPLETED: "Done.",
    lc.FAILED: "Failed for good.",
}

_HEAD: Final = """<!-- Made by `python -m streams.docs`; change the code instead. -->

# The life of a job

Every state and every transition that is expected, out of `streams/core/lifecycle.py`. The source is always right: what
this table does not have is followed all the same, counted in `bullmq_streams_worker_anomalies_total` and visible in the
row's `history`.
"""

_NOTE: Final = """
Left out, because they are possible from anywhere: a look finds the job in another place than the row says (`observed`),
and the job goes (`removed`, `vanished`, `replaced`). The table below has them.
"""


def lifecycle_page() -> str:
    """docs/lifecycle.md."""
    lines = [_HEAD, "```mermaid", "stateDiagram-v2", *_arrows(), "```", _NOTE]
    lines += ["## States", "", "| state | BullMQ's word | |", "|---|---|---|"]
    lines += [f"| `{state}` | {_source_states(state)} | {STATES[state]} |" for state in lc.STATES]
    lines += ["", "## Transitions", "", "| from | to | causes |", "|---|---|---|"]
    lines += [f"| {_name(old)} | `{new}` | {_causes(causes)} |" for (old, new), causes in _sorted()]
    lines += ["", "From a state to itself: BullMQ's word has changed (`waiting` to `prioritized`, say)."]
    lines += ["", "## Causes", "", "| cause | |", "|---|---|"]
    lines += [f"| `{cause}` | {text} |" for cause, text in CAUSES.items()]
    return "\n".join(lines) + "\n"


def _sorted() -> list[tuple[tuple[str | None, str], frozenset[str]]]:
    order = [None, *lc.STATES, lc.REMOVED]
    return sorted(lc.LEGAL.items(), key=lambda item: (order.index(item[0][0]), order.index(item[0][1])))


def _arrows() -> list[str]:
    lines = []
    for (old, new), causes in _sorted():
        told = [cause for cause in CAUSES if cause in causes and cause != "observed"]
        if told and new not in (lc.REMOVED, old):
            lines.append(f"    {old or '[*]'} --> {new}: {', '.join(told)}")
    return lines


def _name(state: str | None) -> str:
    return "(none)" if state is None else f"`{state}`"


def _causes(causes: frozenset[str]) -> str:
    return " ".join(f"`{cause}`" for cause in CAUSES if cause in causes)


def _source_states(state: str) -> str:
    known = dict.fromkeys((*lc.SOURCE_STATE_OF_PLACE.values(), lc.UNKNOWN))
    words = [word for word in known if state in _states_of(word)]
    return " ".join(f"`{word}`" for word in words)


def _states_of(word: str) -> set[str]:
    if word == lc.UNKNOWN:
        return {lc.STUCK}
    both = {lc.state_of(word, queue_paused=paused) for paused in (True, False)}
    return both | ({lc.STUCK} if word == lc.ACTIVE else set())
