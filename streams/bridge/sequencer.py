"""The order of one stream's records: entries as they stand, each look behind all it knows of and before the rest.

Pure: no I/O. Marks ("entry L was the last; so many entries had been added; paused or not") are settled
when the entries up to them have been taken: what was lost is counted there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.bridge import bullmq
from streams.bridge.history import KEPT_ENTRIES, Past, sign_of
from streams.bridge.ids import Id, parse_id
from streams.bridge.stream import Entry, Item, Look, Mark, Raw, Stream, Unread, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streams.bridge.history import Server, Verdict
    from streams.bridge.looks import Head


@dataclass(slots=True, frozen=True)
class Gap:
    """Entries that were never read: `lost` of them (None: Redis cannot tell) after `after`, up to `upto`.

    Or a history that ended: `undone` of those handed on are not in the next one.
    """

    after: Id
    upto: Id
    lost: int | None
    cause: str
    epoch: int = 0
    undone: int | None = None


@dataclass(slots=True)
class Taken:
    """What one turn hands on, in order."""

    items: list[Item] = field(default_factory=list)
    malformed: list[Raw] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    pause_changes: list[bool] = field(default_factory=list)
    """The last value is the one that holds after the turn."""
    read: int = 0
    """Entries in the turn."""
    passed: deque[Raw] = field(default_factory=lambda: deque(maxlen=KEPT_ENTRIES))
    """The last of them, as they are to be remembered."""


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
    taken.read += 1
    taken.passed.append(raw)
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


def add_looks(stream: Stream, looks: Sequence[Look]) -> None:
    """Looks just made, while nothing was handed on; of a stream in doubt they may be older, and are made again.

    Where the server's clock went back, or stands at the ms of the last ones, they count as made just after these: else
    they would say nothing, or two looks at one job would be one by their time and differ in what they say.
    Raises ValueError where an entry above one was handed on.
    """
    behind = stream.observed_at + 1 - min((look.observed_at for look in looks), default=stream.observed_at + 1)
    for look in looks:
        if look.at < stream.position:
            if not stream.unsure:
                raise ValueError("an entry above this look has been handed on")
            stream.wanted.setdefault(look.job_id, look.reason)
            continue
        if behind > 0:
            look.observed_at += behind
        stream.looks.append(look)
        stream.observed_at = max(stream.observed_at, look.observed_at)


def settle(stream: Stream, taken: Taken, before: Id | None) -> None:
    """Compare what was read with what Redis counted, at each mark that has been passed.

    `before` is the next entry's id; without one, a mark counts as passed once its own entry is handed on, or,
    where that can no longer be read, once there is nothing else to hand on.
    """
    while stream.marks:
        mark = stream.marks[0]
        exhausted = mark.final and before is None and not stream.buffer
        if mark.at > stream.position and not exhausted and (before is None or mark.at >= before):
            return
        stream.marks.popleft()
        _count(stream, mark, taken)
        if mark.at >= stream.position and mark.paused != stream.paused:
            stream.paused = mark.paused
            taken.pause_changes.append(mark.paused)
        if exhausted and mark.at > stream.position:
            stream.position, stream.read_to, stream.dirty = mark.at, max(stream.read_to, mark.at), True


def _count(stream: Stream, mark: Mark, taken: Taken) -> None:
    if mark.added is None or mark.at < stream.position:
        return
    if stream.ordinal is not None and mark.added > stream.ordinal:
        lost = mark.added - stream.ordinal
        taken.gaps.append(Gap(stream.settled, mark.at, lost, "trimmed", stream.epoch))
    elif stream.ordinal is None and mark.at > stream.position:  # the entry was there, and was never read
        taken.gaps.append(Gap(stream.position, mark.at, None, "trimmed", stream.epoch))
    # Fewer than were read, and not in doubt: somebody has set the counter by hand.
    stream.ordinal = mark.added
    stream.settled = mark.at


def mark(stream: Stream, at: Id, added: int | None, *, paused: bool, final: bool = False) -> None:
    """Note what was true when `at` was the stream's last id; `final`: and that nothing up to it can be read any more.

    Below the bridge's position a mark says nothing that can be compared.
    """
    if at < stream.position:
        return
    if final:
        while stream.marks and stream.marks[-1].at >= at:
            stream.marks.pop()
    if not stream.marks or stream.marks[-1].at < at:
        stream.marks.append(Mark(at, added, paused, final))


# -- histories ---------------------------------------------------------------------------------------------


def hand_on(stream: Stream, taken: Taken) -> None:
    """Remember what of a turn goes to Kafka now: up to here a later verdict counts as told."""
    entries = [(parse_id(raw[0]), sign(raw)) for raw in taken.passed]
    hole = max((gap.upto for gap in taken.gaps if gap.cause == "trimmed" and gap.lost != 0), default=None)
    stream.memory.hand_on(stream.position, stream.ordinal, entries, hole)
    stream.entries_read += taken.read
    stream.entries_lost += sum(gap.lost or 0 for gap in taken.gaps)


def sign(raw: Raw) -> int:
    """What an entry is: its event and its job."""
    return sign_of(*bullmq.split(fields_of(raw)))


def read_so_far(stream: Stream) -> Past:
    """The last entry read, as far as it can be told without looking at it."""
    ordinal = None if stream.ordinal is None else stream.ordinal + len(stream.buffer)
    return Past(stream.newest, None, ordinal)


def is_exhausted(stream: Stream, read: Past, head: Head) -> bool:
    """Whether entries were added and trimmed of which nothing can be read any more; then they are counted as lost.

    `read` = the last entry read when the head was asked for. Twice, seconds apart, since a reply of the reader may be
    on its way; so the entries counted are those of the head before.
    """
    before, stream.unread = stream.unread, None
    if head.added is None or read.at != stream.newest or stream.buffer or head.after > read.at:
        return False
    if head.at <= read.at if read.ordinal is None else head.added <= read.ordinal:
        return False
    stream.unread = Unread(read.at, head.at, head.added, head.paused)
    if before is None or before.read != read.at:
        return False
    mark(stream, before.at, before.added, paused=before.paused, final=True)
    stream.unread, stream.dirty = None, True
    return True


def tail_of(stream: Stream, taken: Taken) -> Past:
    """The last entry read, of a turn or waiting for one."""
    ordinal = None if stream.ordinal is None else stream.ordinal + len(stream.buffer)
    last = stream.buffer[-1] if stream.buffer else taken.passed[-1] if taken.passed else None
    if last is None:
        return Past(stream.position, None, ordinal)
    return Past(parse_id(last[0]), sign(last), ordinal)


def follow(stream: Stream, verdict: Verdict, server: Server, taken: Taken, drop: Callable[[Stream], None]) -> Taken:
    """What is left of a turn (which may be empty) after a verdict: all of it, or, in another history, the gap.

    Where the verdict is not to go on as if nothing had happened, what was read and not handed on is thrown away by
    `drop`, looks are made again, and the reader goes on from `verdict.resume`.
    """
    stream.unsure = False
    if not verdict.begins_epoch and verdict.resume == tail_of(stream, taken).at:
        stream.memory.server = server
        if verdict.hole is not None:
            taken.gaps.append(Gap(verdict.resume, verdict.hole, None, "trimmed", stream.epoch))
            stream.ordinal = None if verdict.ordinal is None else verdict.ordinal - len(stream.buffer)
            stream.dirty = True
        elif verdict.ordinal is None:
            stream.ordinal = stream.memory.ordinal = None
        return taken
    left = Taken()
    if verdict.begins_epoch:
        gap = Gap(verdict.common, stream.memory.position, None, verdict.cause, stream.epoch, verdict.undone)
        left.gaps = [*taken.gaps, gap]
        stream.epoch += 1
        stream.walks.clear()
        stream.comparisons.begin_again()
        stream.observed_at = 0
    for look in (*(item for item in taken.items if isinstance(item, Look)), *stream.looks):
        stream.wanted.setdefault(look.job_id, look.reason)
    stream.looks.clear()
    stream.marks.clear()
    drop(stream)
    stream.memory.begin(verdict, server)
    stream.position = stream.read_to = stream.settled = stream.committed = verdict.resume
    stream.ordinal = verdict.ordinal
    stream.dirty = True
    return left


def initial_pause(buffer: Iterable[Raw], *, now_paused: bool) -> bool:
    """Whether the queue was paused before the first entry: the first `paused` or `resumed` tells, else what is now."""
    for entry in buffer:
        event = fields_of(entry).get("event")
        if event in (bullmq.PAUSED, bullmq.RESUMED):
            return event == bullmq.RESUMED
    return now_paused
