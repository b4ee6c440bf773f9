"""What the bridge knows of one queue's event stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from streams.bridge.history import Memory
from streams.bridge.ids import START, Id
from streams.bridge.sizes import Sizes
from streams.bridge.walk import Comparisons
from streams.core.job import escape

if TYPE_CHECKING:
    from streams.bridge.bullmq import Keys
    from streams.bridge.walk import Walk

Raw = tuple[str, list[str]]
PROBE: Final = "probe"
VERIFY: Final = "verify"
_MOST_ASKED: Final = 100_000
"""Questions about jobs of one queue that wait for an answer: whoever asks more asks again later."""


def fields_of(entry: Raw) -> dict[str, str]:
    """The fields of an entry as redis gave it; of a name given twice the last counts."""
    names = iter(entry[1])
    return dict(zip(names, names, strict=False))


_ENTRY_BYTES: Final = 250
_FIELD_BYTES: Final = 8


def size_bytes(entry: Raw) -> int:
    """About what an entry takes in memory."""
    fields = entry[1]
    return _ENTRY_BYTES + _FIELD_BYTES * len(fields) + sum(map(getsizeof, fields))


@dataclass(slots=True)
class Entry:
    """One stream entry, with what was read of its job; `left_out` = fields of the hash too large for that, in bytes."""

    at: Id
    stream_id: str
    event: str
    job_id: str
    fields: dict[str, str]
    queue_paused: bool
    stalled: bool = False
    exhausted: int | None = None
    job: Any = None
    job_as_of: str | None = None
    where: str | None = None
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Look:
    """One observation of a job; `after` = the last entry that must stand before it.

    `request` = the comparison that made it; `replica`: the server that said so may lag behind its master.
    """

    at: Id
    after: Id
    job_id: str
    reason: str
    observed_at: int
    found: bool
    where: str | None
    queue_paused: bool
    due_at: int | None = None
    lock_ttl_ms: int | None = None
    job: Any = None
    left_out: dict[str, int] = field(default_factory=dict)
    request: str | None = None
    replica: bool = False


@dataclass(slots=True, frozen=True)
class Known:
    """A job's hash, the stream's last id when it was read, the entry that added the job, what the hash takes."""

    as_of: Id
    hash: dict[str, str]
    added_at: Id
    size_bytes: int


@dataclass(slots=True, frozen=True)
class Mark:
    """What was true when entry `at` was the stream's last: number of entries ever added, queue paused.

    `final`: of what lies between the last entry read and `at`, nothing can be read any more.
    """

    at: Id
    added: int | None
    paused: bool
    final: bool = False


@dataclass(slots=True, frozen=True)
class Unread:
    """Seen once: behind the last entry read, `read`, nothing can be read although entries up to `at` were added."""

    read: Id
    at: Id
    added: int
    paused: bool


Item = Entry | Look


@dataclass(slots=True, eq=False)
class Stream:
    """One queue: entries read and not handed on, the bridge's position, looks asked for and made.

    `position` = the last entry handed on; `read_to` = the last one read; `last` = the last that Redis was seen to have.
    `held` = bytes of each entry of `buffer`. `ordinal` = how many entries the stream had ever got when the one at
    `position` was its last (None: not known yet); `settled` = the position up to which that has been compared with
    Redis; `committed` = the one that is on Kafka; `covered` = the checkpoint last handed on. `epoch` = which history of
    the stream this is, counted from 0; `memory` = what tells that it goes on; `unsure`: that is to be judged again, and
    till then nothing read counts. `observed_at` = of the newest look. `verify` = jobs of which is asked first whether
    they are there. `searched` = wanted jobs that were in none of the other places. `refused`: Redis is not asked
    about it, but what was read is handed on. `pause_unsure`: its entries are still to tell whether it was paused before
    the first of them. `missed` = how often running it was not found. `heartbeat_at_s` = when its jobs are counted next.
    """

    source: str
    queue: str
    keys: Keys
    position: Id = START
    read_to: Id = START
    ordinal: int | None = None
    settled: Id = START
    paused: bool = False
    memory: Memory = field(default_factory=Memory)
    unsure: bool = False
    observed_at: int = 0
    buffer: deque[Raw] = field(default_factory=deque)
    held: deque[int] = field(default_factory=deque)
    sizes: Sizes = field(default_factory=Sizes)
    deficit: int = 0
    refused: bool = False
    covered: Any = None
    looks: deque[Look] = field(default_factory=deque)
    looked_at_s: float = 0.0
    marks: deque[Mark] = field(default_factory=deque)
    unread: Unread | None = None
    wanted: dict[str, str] = field(default_factory=dict)
    searched: set[str] = field(default_factory=set)
    verify: dict[str, None] = field(default_factory=dict)
    walks: list[Walk] = field(default_factory=list)
    comparisons: Comparisons = field(default_factory=Comparisons)
    early: dict[str, Known] = field(default_factory=dict)
    entries_read: int = 0
    entries_lost: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    heartbeat_at_s: float = 0.0
    dirty: bool = False
    epoch: int = 0
    pause_unsure: bool = False
    last: Id = START
    committed: Id = START
    missed: int = 0

    @property
    def name(self) -> str:
        """`<source>/<queue>`, escaped as in keys."""
        return f"{escape(self.source)}/{escape(self.queue)}"

    def ask(self, job_id: str, reason: str, request: str = "") -> str | None:
        """Look at a job soon, or compare the whole queue (empty `job_id`): why that will not be done, if it will not.

        Asked twice before the look, it is looked at once.
        """
        if not job_id:
            return None if self.comparisons.ask(reason, request) else "full"
        if job_id in self.wanted and reason != PROBE:
            return None
        if len(self.wanted) + len(self.verify) >= _MOST_ASKED:
            return "full"
        if reason == VERIFY:
            self.verify[job_id] = None
        else:
            self.wanted[job_id] = reason
        return None

    @property
    def newest(self) -> Id:
        """The last entry read, handed on or not."""
        return max(self.read_to, self.position)

    @property
    def ready(self) -> bool:
        """Whether a turn now would get on; looks that wait for entries wait for the reader."""
        if self.refused:
            return bool(self.buffer)
        asked = self.wanted or self.verify or any(walk.hurried for walk in self.walks)
        return bool(self.unsure or self.buffer or (asked and not self.looks))

    @property
    def walking(self) -> bool:
        """Whether a comparison could go on, at its pace."""
        return bool(self.walks) and not self.looks and not self.refused

    @property
    def busy(self) -> bool:
        """Whether anything is to be done here, now or later."""
        if self.refused:
            return bool(self.buffer or self.dirty)
        asked = self.wanted or self.verify or self.walks or self.comparisons.waiting
        return bool(self.unsure or self.buffer or self.looks or asked or self.dirty)

    @property
    def pausing(self) -> str | None:
        """Whether a pause or resume is still being told of jobs: `pause`, `resume` or None."""
        return next((walk.reason for walk in self.walks if not walk.looks), None)
