"""What ever stood in each event stream, history by history, out of the server's own append-only file.

The file has every change in the order in which readers could see it, ids and exact trims included. Pure: commands in,
entries out. A test's queue names are those of the keys `bull:<queue>:events`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Id = tuple[int, int]
PREFIX: Final = b"bull:"
SUFFIX: Final = b":events"

PRESENT: Final = "present"
TRIMMED: Final = "trimmed"
DELETED: Final = "deleted"
UNDONE: Final = "undone"
"""The server went back to before it, and has what stood before."""
LOST: Final = "lost"
"""The server came back without anything of its stream."""


def parse_id(text: str) -> Id:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def queue_of(key: bytes) -> str | None:
    """The queue whose event stream the key is, None for any other key."""
    if key.startswith(PREFIX) and key.endswith(SUFFIX) and len(key) > len(PREFIX) + len(SUFFIX):
        return key[len(PREFIX) : -len(SUFFIX)].decode(errors="replace")
    return None


def digest(event: str | None, job_id: str, fields: Mapping[str, str]) -> bytes:
    """What tells one entry from another with the same id. Text that was no UTF-8 counts as replaced."""
    hashed = hashlib.sha1(usedforsecurity=False)
    for text in (event or "", job_id, *(part for item in sorted(fields.items()) for part in item)):
        hashed.update(text.encode(errors="replace") + b"\0")
    return hashed.digest()


@dataclass(slots=True, eq=False)
class Entry:
    """One entry. `era` = the history of its stream in which it was written, counted as they really were."""

    queue: str
    id: Id
    event: str | None
    job_id: str
    digest: bytes
    era: int
    fate: str = PRESENT
    last_era: int = -1
    """The last history in which it stood, where that has ended with it in the stream."""

    @property
    def stream_id(self) -> str:
        return f"{self.id[0]}-{self.id[1]}"

    @classmethod
    def of(cls, queue: str, stream_id: bytes, pairs: Sequence[bytes], era: int) -> Entry:
        names = iter(text.decode(errors="replace") for text in pairs)
        fields = dict(zip(names, names, strict=False))
        event, job_id = fields.pop("event", None), fields.pop("jobId", "")
        return cls(queue, parse_id(stream_id.decode()), event, job_id, digest(event, job_id, fields), era)


@dataclass(slots=True)
class Stream:
    """All entries that ever were, and those that stand there now."""

    queue: str
    era: int = 0
    exists: bool = False
    entries: list[Entry] = field(default_factory=list)
    present: dict[Id, Entry] = field(default_factory=dict)
    began: list[str] = field(default_factory=list)
    """The fate that each era but the first began with."""
    undecided: int = 0
    """Restarts after something had been trimmed: a reader may be unable to tell that nothing was undone."""

    def add(self, stream_id: bytes, pairs: Sequence[bytes]) -> None:
        entry = Entry.of(self.queue, stream_id, pairs, self.era)
        self.entries.append(entry)
        self.present[entry.id] = entry
        self.exists = True

    def keep(self, count: int) -> None:
        for at in list(self.present)[: max(0, len(self.present) - count)]:
            self.present.pop(at).fate = TRIMMED

    def keep_from(self, at: Id) -> None:
        for each in [each for each in self.present if each < at]:
            self.present.pop(each).fate = TRIMMED

    def drop(self, at: Id) -> None:
        if at in self.present:
            self.present.pop(at).fate = TRIMMED

    def delete(self, fate: str = DELETED) -> None:
        """The key is gone; what comes next begins anew."""
        if not self.exists:
            return
        _leave(self.present.values(), fate, self.era)
        self.present.clear()
        self.exists = False
        self._next(fate)

    def become(self, contents: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
        """Another copy of the server, or the same one after a restart: these are the stream's entries now."""
        now = [Entry.of(self.queue, stream_id, pairs, self.era) for stream_id, pairs in contents]
        known = {(entry.id, entry.digest): entry for entry in self.entries}
        same = {entry.id: known.get((entry.id, entry.digest)) for entry in now}
        gone = [entry for entry in self.present.values() if same.get(entry.id) is not entry]
        foreign = [entry for entry in now if same[entry.id] is None]
        self.exists = True
        self.undecided += any(entry.fate == TRIMMED for entry in self.entries)
        _leave(gone, UNDONE, self.era)
        if gone or foreign:
            self._next(UNDONE)
        self.present.clear()
        for entry in now:
            there = same[entry.id]
            if there is None:
                there = entry
                there.era = self.era
                self.entries.append(there)
            there.fate, there.last_era = PRESENT, -1
            self.present[there.id] = there

    def _next(self, why: str) -> None:
        self.era += 1
        self.began.append(why)


def _leave(entries: Iterable[Entry], fate: str, era: int) -> None:
    for entry in entries:
        entry.fate, entry.last_era = fate, era


class History:
    """All streams of one Redis, through all that was done to it."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.written: defaultdict[str, int] = defaultdict(int)
        """How often each command came, to see that something was recorded."""

    def stream(self, queue: str) -> Stream:
        return self.streams.setdefault(queue, Stream(queue))

    def become(self, contents: Mapping[bytes, Sequence[tuple[bytes, Sequence[bytes]]]]) -> None:
        """All streams of a server that has just begun, before anybody could write to it."""
        found = {queue: entries for key, entries in contents.items() if (queue := queue_of(key)) is not None}
        for queue, stream in self.streams.items():
            if queue not in found:
                stream.delete(LOST)
        for queue, entries in found.items():
            self.stream(queue).become(entries)

    def apply(self, command: Sequence[bytes]) -> None:
        """One command of the append-only file. Raises ValueError for one on a stream that is not known here."""
        name = command[0].upper()
        self.written[name.decode()] += 1
        if name in (b"DEL", b"UNLINK"):
            for key in command[1:]:
                self._gone(key)
        elif name in (b"FLUSHALL", b"FLUSHDB"):
            for stream in self.streams.values():
                stream.delete()
        elif len(command) > 1 and (queue := queue_of(command[1])) is not None:
            self._on_stream(name, queue, command)

    def _gone(self, key: bytes) -> None:
        queue = queue_of(key)
        if queue in self.streams:
            self.streams[queue].delete()

    def _on_stream(self, name: bytes, queue: str, command: Sequence[bytes]) -> None:
        if name == b"XADD":
            stream = self.stream(queue)
            trim, rest = _options(command[2:])
            stream.add(rest[0], rest[1:])
            _trim(stream, trim)
        elif name == b"XTRIM":
            _trim(self.stream(queue), _options(command[2:])[0])
        elif name == b"XDEL":
            for stream_id in command[2:]:
                self.stream(queue).drop(parse_id(stream_id.decode()))
        elif name in (b"XSETID", b"RENAME", b"RESTORE", b"COPY", b"MOVE"):
            raise ValueError(f"{name.decode()} on the events of {queue}: what it means for readers is not known here")
        elif name in (b"SET", b"GETDEL") and queue in self.streams:
            self._gone(command[1])


def _options(words: Sequence[bytes]) -> tuple[tuple[bytes, bytes] | None, Sequence[bytes]]:
    """(MAXLEN or MINID, its number) or None, and what follows the options."""
    trim, rest = None, list(words)
    while rest and (word := rest[0].upper()) in (b"NOMKSTREAM", b"MAXLEN", b"MINID", b"LIMIT"):
        rest.pop(0)
        if word == b"NOMKSTREAM":
            continue
        if rest[0] in (b"=", b"~"):
            rest.pop(0)
        number = rest.pop(0)
        if word != b"LIMIT":
            trim = word, number
    return trim, rest


def _trim(stream: Stream, trim: tuple[bytes, bytes] | None) -> None:
    if trim is None:
        return
    how, number = trim
    if how == b"MAXLEN":
        stream.keep(int(number))
    else:
        stream.keep_from(parse_id(number.decode()))
