"""Drift, out of what the processes tell of themselves on `health`: rows by state against jobs by place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from streams.core.job import escape
from tests.faults.topics import Json

STALE_MS: Final = 25_000
"""A queue whose last heartbeat is older than the newest by so much is gone, or cannot be read."""
PAUSABLE: Final = ("wait", "prioritized")


def drift(health: Iterable[Json]) -> list[str]:
    """One line for each queue and unfinished state in which the table's rows are not as many as BullMQ's jobs."""
    tables: dict[int, dict[str, dict[str, int]]] = defaultdict(dict)
    heartbeats: dict[str, Json] = {}
    for each in health:
        if each["type"] == "table":
            if each.get("whole"):
                tables[each["partition"]].clear()
            tables[each["partition"]].update(each["counts"])
        elif each["type"] == "heartbeat":
            heartbeats[f"{escape(each['source'])}/{escape(each['queue'])}"] = each
    if not tables or not heartbeats:
        return [f"no drift can be told: {len(tables)} tables and {len(heartbeats)} heartbeats on health"]
    newest = max(each["at"] for each in heartbeats.values())
    wrong = []
    for name, heartbeat in heartbeats.items():
        if newest - heartbeat["at"] > STALE_MS:
            continue
        rows: Counter[str] = Counter()
        for counts in tables.values():
            rows.update(counts.get(name, {}))
        wrong += [
            f"{name}: {found} rows are {state}, the heartbeat says {count}"
            for state, count in jobs(heartbeat).items()
            if (found := rows[state] + (rows["stuck"] - rows["unknown"] if state == "active" else 0)) != count
        ]
    return wrong


def jobs(heartbeat: Json) -> dict[str, int]:
    """Unfinished jobs by our states; a stuck one is in the active list."""
    places = heartbeat["counts"]
    held = sum(places.get(place, 0) for place in PAUSABLE)
    paused = held if heartbeat["paused"] else 0
    return {
        "waiting": held - paused + places.get("waiting-children", 0),
        "paused": paused + places.get("paused", 0),
        "delayed": places.get("delayed", 0),
        "active": places.get("active", 0),
    }
