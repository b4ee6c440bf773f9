"""Which history a stream is in: what was kept of it against what its server says now.

Pure: no I/O. A stream id is a position only within one history of one Redis. A failover, a restart with older data, a
deletion begin another one, and nothing in the stream says so. Which signs are certain is measured (docs/adr/0013).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from zlib import crc32

from streams.bridge.ids import START, Id, format_id, parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Cause = Literal["same", "trimmed", "reset", "rewound", "failover", "behind"]
KEPT_ENTRIES: Final = 64
"""Of so many entries handed on last it is remembered what they were: among them the newest common one is sought."""
KEPT_OFFSETS: Final = 16
_NO_REPLID: Final = frozenset(("", "0" * 40))


@dataclass(slots=True, frozen=True)
class Server:
    """What a server says of itself; empty where it may not be asked. Offsets in bytes of its replication stream."""

    run_id: str = ""
    replid: str = ""
    offset: int = 0
    replid2: str = ""
    second_offset: int = -1
    role: str = ""

    @property
    def is_replica(self) -> bool:
        """Whether it follows a master, so that it may lag behind it."""
        return self.role in ("slave", "replica")

    def goes_on_from(self, before: Server) -> bool:
        """Whether, over one connection, this is the history of `before`: the same, or a first replica has attached."""
        return self.replid == before.replid or self.replid2 in _NO_REPLID


def server_of(*infos: Any, role: Any = None) -> Server:
    """From the replies to INFO server, INFO replication and ROLE; one that is refused says nothing."""
    lines = (line for info in infos if isinstance(info, str) for line in info.splitlines() if ":" in line)
    said = dict(line.split(":", 1) for line in lines)
    return Server(
        run_id=said.get("run_id", ""),
        replid=said.get("master_replid", ""),
        offset=_integer(said.get("master_repl_offset"), 0),
        replid2=said.get("master_replid2", ""),
        second_offset=_integer(said.get("second_repl_offset"), -1),
        role=str(role[0]) if isinstance(role, list) and role else said.get("role", ""),
    )


def _integer(text: str | None, otherwise: int) -> int:
    try:
        return otherwise if text is None else int(text)
    except ValueError:
        return otherwise


@dataclass(slots=True, frozen=True)
class Past:
    """An entry that was read. `sign` None: what it was is not known; `ordinal`: it was the stream's so-many-th;
    `offset`: the server's replication offset at or after its reading.
    """

    at: Id
    sign: int | None = None
    ordinal: int | None = None
    offset: int | None = None


@dataclass(slots=True, frozen=True)
class Kept:
    """What is remembered of a stream: the server read from, the last entry read (`tail`) and the last handed on
    (`position`), and those before it, oldest first, without a hole.
    """

    run_id: str
    replid: str
    position: Past
    tail: Past
    trail: Sequence[Past] = ()


@dataclass(slots=True, frozen=True)
class Now:
    """What one MULTI said of a stream. `last` None: there is none; `first` None: it has no entries.

    `signs` has those of the entries asked for that are there; `added` None where the server does not count.
    """

    server: Server
    last: Id | None
    first: Id | None = None
    added: int | None = None
    length: int = 0
    deleted: Id = START
    signs: Mapping[Id, int] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Verdict:
    """`resume` = the entry after which to read on; `common` = the last that both histories are known to have.

    `ordinal` is that of `resume`; `undone` = entries handed on that this history has not. `cause` `same` with
    `resume` below the last entry read: what was read and not handed on is to be read again. `hole` = the id up to which
    entries may be missing, where nobody can count them.
    """

    cause: Cause
    resume: Id
    common: Id
    ordinal: int | None
    undone: int | None = None
    hole: Id | None = None

    @property
    def begins_epoch(self) -> bool:
        """Whether another history has begun."""
        return self.cause in ("reset", "rewound", "failover")


def judge(kept: Kept, now: Now) -> Verdict:
    """The verdict on one stream. Undecided is `failover`.

    What was handed on decides; only where that has been trimmed, and nothing is certain, what was read behind it does.
    """
    position, tail = kept.position, kept.tail
    cause, tail_cause = _standing(kept, position, now), _standing(kept, tail, now)
    if "behind" in (cause, tail_cause):
        return Verdict("behind", tail.at, tail.at, position.ordinal)
    if cause == "undecided" and tail_cause == "same":
        cause = "trimmed"
    if cause in ("same", "trimmed"):
        if cause == "trimmed" and tail_cause == "trimmed" and _may_miss(tail, now):
            return Verdict("trimmed", tail.at, tail.at, _ordinal_at(tail.at, now), hole=now.first or now.last)
        if tail_cause in ("same", "trimmed"):
            return Verdict("trimmed" if cause == "trimmed" else "same", tail.at, tail.at, _believable(kept, now))
        ordinal = _first_ordinal(now) if position.at == START else position.ordinal
        return Verdict("same", position.at, position.at, ordinal)
    if cause == "reset":
        return Verdict("reset", START, START, _first_ordinal(now))
    return _parted(kept, now, "rewound" if cause == "rewound" else "failover")


def _believable(kept: Kept, now: Now) -> int | None:
    """The position's ordinal, unless the stream has had fewer entries than were read: somebody set its counter back."""
    read = kept.tail.ordinal
    return None if read is not None and now.added is not None and now.added < read else kept.position.ordinal


def _may_miss(tail: Past, now: Now) -> bool:
    """Whether entries behind the last one read may have been trimmed, too, and the stream's counter cannot tell."""
    return tail.ordinal is None and now.last is not None and now.last > tail.at


def _ordinal_at(at: Id, now: Now) -> int | None:
    """Of an id that stands before all entries that can be read, or at the end of them."""
    if now.added is None:
        return None
    if now.last == at:
        return now.added
    return now.added - now.length if now.first is None or now.first > at else None


def _first_ordinal(now: Now) -> int | None:
    """How many entries of the stream can no longer be read, at its beginning."""
    if now.last is None:
        return 0
    return None if now.added is None else now.added - now.length


def _standing(kept: Kept, past: Past, now: Now) -> Cause | Literal["undecided"]:
    """Whether an entry that was read belongs to the history there is now."""
    if past.at == START:
        return "same"
    if _is_behind(kept, past, now):
        return "behind"
    certain = _is_same_run(kept, now.server) or _is_contained(kept, past, now.server)
    if now.last is None:
        return "reset" if certain else "failover"
    sign = now.signs.get(past.at)
    if sign is not None and past.sign in (None, sign):
        return "same"
    if sign is not None or _ought_to_be_there(past, now):
        return "reset" if certain else "failover"
    if now.last < past.at:
        return "rewound" if certain else "failover"
    return "trimmed" if certain else "undecided"


def _is_same_run(kept: Kept, server: Server) -> bool:
    """The same server, and nothing else has become its past. Without a replid (release 0.1) the run alone counts."""
    return bool(kept.run_id) and kept.run_id == server.run_id and kept.replid in ("", server.replid)


def _is_contained(kept: Kept, past: Past, server: Server) -> bool:
    """Another server (or run), promoted or synchronised when it had all up to and with this entry."""
    if kept.replid in _NO_REPLID or not past.offset:
        return False
    if server.replid == kept.replid:
        return past.offset <= server.offset
    return server.replid2 == kept.replid and past.offset < server.second_offset


def _is_behind(kept: Kept, past: Past, now: Now) -> bool:
    """A replica of the same master that has not received this entry yet: its word is worth nothing so far."""
    server = now.server
    if not server.is_replica or kept.replid in _NO_REPLID or server.replid != kept.replid:
        return False
    return past.at not in now.signs and past.offset is not None and server.offset < past.offset


def _ought_to_be_there(past: Past, now: Now) -> bool:
    """Whether trimming cannot have taken it: entries older than it are still there. Deleting by hand can have."""
    if past.ordinal is None or now.added is None or now.deleted >= past.at:
        return False
    return past.ordinal > now.added - now.length


def _parted(kept: Kept, now: Now, cause: Cause) -> Verdict:
    """Where the histories parted. Two histories share a beginning, never a mixture.

    With nothing in common known, entries up to the old position count as told already, whichever history told them.
    """
    position = kept.position
    common = _newest_common(kept, now)
    if common is not None and now.last is not None and common.at <= now.last:
        undone = None
        if position.ordinal is not None and common.ordinal is not None:
            undone = position.ordinal - common.ordinal
        return Verdict(cause, common.at, common.at, common.ordinal, undone)
    if now.last is None:
        return Verdict(cause, START, START, 0)
    resume = min(now.last, position.at)
    return Verdict(cause, resume, START, _ordinal_at(resume, now))


def _newest_common(kept: Kept, now: Now) -> Past | None:
    common = None
    for past in kept.trail:
        sign = now.signs.get(past.at)
        if sign is not None and sign == past.sign:
            common = past
        elif sign is not None or (now.first is not None and past.at >= now.first):
            break
        elif _is_contained(kept, past, now.server):
            common = past  # trimmed meanwhile
    return common


def is_doubtful(past: Past, now: Now) -> bool:
    """Whether a head, read over the connection that `past` was read over, contradicts that it was.

    What XINFO alone tells, so it is free: then the entries themselves are asked for, and judged.
    """
    if past.at == START:
        return False
    if now.last is None or now.last < past.at:
        return True
    if past.ordinal is None or now.added is None:
        return False
    if now.added < past.ordinal:
        return True
    return now.first is not None and now.first > past.at and _ought_to_be_there(past, now)


# -- what is remembered ------------------------------------------------------------------------------------


def sign_of(event: str | None, job_id: str) -> int:
    """32 bits that tell one entry of an id from another."""
    return crc32(f"{event}\n{job_id}".encode("utf-8", "surrogateescape"))


def extended(trail: str, entries: Iterable[tuple[Id, int]]) -> str:
    """The trail with these (id, sign) behind it, cut to KEPT_ENTRIES.

    A text, since it stands in every checkpoint: `<last id> <ms since the one before>.<seq>.<sign> …`, in hex.
    """
    at_text, _, rest = trail.partition(" ")
    pieces = rest.split(" ") if rest else []
    at = parse_id(at_text) if at_text else START
    for each, sign in entries:
        pieces.append(f"{each[0] - at[0]:x}.{each[1]:x}.{sign:x}")
        at = each
    return " ".join([format_id(at), *pieces[-KEPT_ENTRIES:]]) if pieces else ""


def trail_of(trail: str) -> list[tuple[Id, int]]:
    """The inverse of `extended`: (id, sign), oldest first."""
    at_text, _, rest = trail.partition(" ")
    if not rest:
        return []
    ms, found = parse_id(at_text)[0], []
    for piece in reversed(rest.split(" ")):
        since, seq, sign = (int(part, 16) for part in piece.split("."))
        found.append(((ms, seq), sign))
        ms -= since
    return found[::-1]


def cut(trail: str, upto: Id) -> str:
    """The trail without all up to `upto`, but for the last: behind a hole the ordinals of those before it are off."""
    entries = trail_of(trail)
    kept = [entry for entry in entries if entry[0] > upto] or entries[-1:]
    return extended("", kept)


Sampled = tuple[Id, int]


def offset_of(samples: Iterable[Sampled], at: Id) -> int | None:
    """The server's offset at or after the reading of `at`, of samples (last entry read, offset) in order."""
    return next((offset for upto, offset in samples if upto >= at), None)


@dataclass(slots=True)
class Memory:
    """What is remembered of one stream, up to what was handed on: `position`, and its `ordinal`.

    `server` is the one it was read from; `samples` are (last entry read, the server's offset then).
    """

    server: Server = field(default_factory=Server)
    position: Id = START
    ordinal: int | None = None
    trail: str = ""
    samples: deque[Sampled] = field(default_factory=lambda: deque(maxlen=KEPT_OFFSETS))

    def hand_on(self, position: Id, ordinal: int | None, entries: Iterable[tuple[Id, int]], hole: Id | None) -> None:
        """These (id, sign) were handed on, up to `position`; `hole`: before this id some were lost."""
        self.trail = extended(self.trail, entries)
        if hole is not None:
            self.trail = cut(self.trail, hole)
        self.position, self.ordinal = position, ordinal

    def sample(self, upto: Id, offset: int) -> None:
        """All up to here had been read when the server was at this offset."""
        if offset and (not self.samples or upto > self.samples[-1][0]):
            self.samples.append((upto, offset))

    def begin(self, verdict: Verdict, server: Server) -> None:
        """Go on as the verdict says; what was remembered of entries beyond is forgotten."""
        shared = [entry for entry in trail_of(self.trail) if entry[0] <= verdict.common]
        self.trail = extended("", shared if verdict.resume == verdict.common else ())
        self.samples.clear()
        self.server, self.position, self.ordinal = server, verdict.resume, verdict.ordinal

    def kept(self, tail: Past) -> Kept:
        """What a verdict needs. `tail` = the last entry read, without its offset.

        A trail that does not end at the position says nothing about it.
        """
        entries = trail_of(self.trail)
        if not entries or entries[-1][0] != self.position:
            entries = []
        oldest = None if self.ordinal is None else self.ordinal - len(entries) + 1
        trail = tuple(
            Past(at, sign, None if oldest is None else oldest + number, offset_of(self.samples, at))
            for number, (at, sign) in enumerate(entries)
        )
        position = trail[-1] if trail else self._sampled(Past(self.position, None, self.ordinal))
        tail = position if tail.at == self.position else self._sampled(tail)
        return Kept(self.server.run_id, self.server.replid, position, tail, trail)

    def _sampled(self, past: Past) -> Past:
        return replace(past, offset=offset_of(self.samples, past.at))
