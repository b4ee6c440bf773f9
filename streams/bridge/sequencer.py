"""The order of one stream's records: entries as they stand, each look behind all it knows of and before the rest.

Pure: no I/O. Marks ("entry L was the last; so many entries had been added; paused or not") are settled
when the entries up to them have been taken: what was lost is counted there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.bridge import bullmq
from streams.bridge.stream import START, Entry, Id, Item, Look, Mark, Raw, Stream, fields_of, parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True, frozen=True)
class Gap:
    """Entries that were never read: `lost` of them (None: Redis cannot tell) after `after`, up to `upto`."""

    after: Id
    upto: Id
    lost: int | None
    cause: str


@dataclass(slots=True)
class Taken:
    """What one turn hands on, in order."""

    items: list[Item] = field(default_factory=list)
    malformed: list[Raw] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    pause_changes: list[bool] = field(default_factory=list)
    """The last value is the one that holds after the turn."""


def take(stream: Stream, limit: int) -> Taken:
    """At most `limit` entries and every look whose turn it is."""
    taken = Taken()
    while limit > 0 and stream.buffer:
        raw = stream.buffer[0]
        at = parse_id(raw[0])
        if stream.looks and at > stream.looks[0].at:
            taken.items.append(stream.looks.popleft())
            continue
        settle(stream, taken, before=at)
        stream.buffer.popleft()
        _hand_on(stream, raw, at, taken)
        limit -= 1
    place(stream, taken)
    return taken


def place(stream: Stream, taken: Taken) -> None:
    """Hand on the looks that need not wait for any entry, and settle the marks that have been passed."""
    settle(stream, taken, before=None)
    while stream.looks and stream.looks[0].after <= stream.position:
        taken.items.append(stream.looks.popleft())


def _hand_on(stream: Stream, raw: Raw, at: Id, taken: Taken) -> None:
    fields = fields_of(raw)
    event, job_id = bullmq.split(fields)
    stream.position = at
    stream.dirty = True
    stream.entries_read += 1
    if stream.ordinal is not None:
        stream.ordinal += 1
    if event is None:
        taken.malformed.append(raw)
        return
    if event in (bullmq.PAUSED, bullmq.RESUMED):
        stream.paused = event == bullmq.PAUSED
        taken.pause_changes.append(stream.paused)
    entry = Entry(at, raw[0], event, job_id, fields, stream.paused)
    entry.stalled = _stalls(stream, entry)
    if event == bullmq.FAILED and stream.buffer:
        entry.exhausted = bullmq.exhausted(fields_of(stream.buffer[0]), job_id)
    taken.items.append(entry)


def _stalls(stream: Stream, entry: Entry) -> bool:
    if entry.event != bullmq.WAITING or "prev" not in entry.fields or not stream.buffer:
        return False
    return bullmq.is_stalled(fields_of(stream.buffer[0]), entry.job_id)


def add_looks(stream: Stream, looks: Iterable[Look]) -> None:
    """Looks just made, while nothing was handed on. Raises ValueError where an entry above one already was."""
    for look in looks:
        if look.at < stream.position:
            raise ValueError("an entry above this look has been handed on")
        stream.looks.append(look)


def settle(stream: Stream, taken: Taken, before: Id | None) -> None:
    """Compare what was read with what Redis counted, at each mark that has been passed.

    `before` is the next entry's id; without one, a mark counts as passed once its own entry is handed on.
    """
    while stream.marks:
        mark = stream.marks[0]
        if mark.at > stream.position and (before is None or mark.at >= before):
            return
        stream.marks.popleft()
        _count(stream, mark, taken)
        if mark.at >= stream.position and mark.paused != stream.paused:
            stream.paused = mark.paused
            taken.pause_changes.append(mark.paused)


def _count(stream: Stream, mark: Mark, taken: Taken) -> None:
    if mark.added is None or mark.at < stream.position:
        return
    if stream.ordinal is not None and mark.added != stream.ordinal:
        lost = mark.added - stream.ordinal
        if lost > 0:
            stream.entries_lost += lost
            taken.gaps.append(Gap(stream.settled, mark.at, lost, "trimmed"))
        else:
            taken.gaps.append(Gap(stream.settled, mark.at, None, "reset"))
    stream.ordinal = mark.added
    stream.settled = mark.at


def mark(stream: Stream, at: Id, added: int | None, *, paused: bool) -> Gap | None:
    """Note what was true when `at` was the stream's last id. Returns a gap where the stream's ids went back.

    Below the bridge's position a mark says nothing that can be compared.
    """
    if at < stream.position:
        if at == START or stream.rewound:
            return None
        stream.rewound = True
        stream.ordinal = None
        return Gap(stream.position, at, None, "rewound")
    stream.rewound = False
    if not stream.marks or stream.marks[-1].at < at:
        stream.marks.append(Mark(at, added, paused))
    return None


def initial_pause(buffer: Iterable[Raw], *, now_paused: bool) -> bool:
    """Whether the queue was paused before the first entry: the first `paused` or `resumed` tells, else what is now."""
    for entry in buffer:
        event = fields_of(entry).get("event")
        if event in (bullmq.PAUSED, bullmq.RESUMED):
            return event == bullmq.RESUMED
    return now_paused
