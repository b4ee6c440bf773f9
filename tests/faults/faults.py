"""All faults: by name and kind, and how one is done. One is done at a time, and undone by its own end."""

from __future__ import annotations

from tests.faults import on_processes, on_servers, on_streams
from tests.faults.application import CommandError
from tests.faults.table import TABLE, Fault, Hand

GROUPS = (on_processes, on_servers, on_streams)
"""Importing them has filled the table."""


def chosen(kinds: str) -> list[Fault]:
    """Those named by name or kind, separated by commas; all where nothing is named."""
    wanted = {word.strip() for word in kinds.split(",") if word.strip()}
    unknown = wanted - TABLE.keys() - {each.kind for each in TABLE.values()}
    if unknown:
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(TABLE)}")
    return [each for each in TABLE.values() if not wanted or {each.name, each.kind} & wanted]


async def do(fault_: Fault, hand: Hand) -> str | None:
    """Do it; what the application could not do for want of a Redis is said, and no failure."""
    try:
        await fault_.deed(hand)
    except CommandError as error:
        return str(error)
    return None
