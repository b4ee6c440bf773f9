"""What the bridge knows of one queue's event stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from streams.bridge.history import Memory
from streams.bridge.ids import START, Id
from streams.bridge.walk import Comparisons
from streams.core.job import escape

if TYPE_CHECKING:
    from streams.bridge.bullmq import Keys
    from streams.bridge.walk import Walk

Raw = tuple[str, list[str]]


def fields_of(entry: Raw) -> dict[str, str]:
    """The fields of an entry as redis gave it; of a name given twice the last counts."""
    names = iter(entry[1])
    return dict(zip(names, names, strict=False))


_ENTRY_OVERHEAD_BYTES: Final = 400


def size_bytes(entry: Raw) -> int:
    """About what an entry takes in memory."""
    return _ENTRY_OVERHEAD_BYTES + sum(map(len, entry[1]))


@dataclass(slots=True)
class Entry:
    """One stream entry, with what was read of its job."""

    at: Id
    stream_id: str
    event: str
    job_id: str
    fields: dict[str, str]
    queue_paused: bool
    stalled: bool = False
    job: Any = None
    job_as_of: str | None = None
    where: str | None = None


@dataclass(slots=True)
class Look:
    """One observation of a job; `after` = the last entry that must stand before it."""

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
    request: str | None = None


@dataclass(slots=True, frozen=True)
class Known:
    """A job's hash, and the stream's last id when it was read."""

    as_of: Id
    hash: dict[str, str]


@dataclass(slots=True, frozen=True)
class Mark:
    """What was true when entry `at` was the stream's last: number of entries ever added, queue paused.

    `final`: of what lies between the last entry read and `at`, nothing can be read any more.
    """

    at: Id
    added: int | None
    paused: bool
    final: bool = False


Item = Entry | Look


@dataclass(slots=True)
class Stream:
    """One queue: entries read and not handed on, the bridge's position, looks asked for and made.

    `position` = the last entry handed on; `read_to` = the last one read; `taken_bytes` = size of what was handed
    on since the last turn; `ordinal` = how many entries the
    stream had ever got when the one at `position` was its last (None: not known yet); `settled` = the
    position up to which that has been compared with Redis. `epoch` counts the histories; `unsure`: it has to be judged
    again which one this is, and till then nothing read counts. `observed_at` = of the newest look.
    """

    source: str
    queue: str
    keys: Keys
    position: Id = START
    read_to: Id = START
    ordinal: int | None = None
    settled: Id = START
    paused: bool = False
    epoch: int = 0
    memory: Memory = field(default_factory=Memory)
    unsure: bool = False
    observed_at: int = 0
    buffer: deque[Raw] = field(default_factory=deque)
    buffered_bytes: int = 0
    taken_bytes: int = 0
    looks: deque[Look] = field(default_factory=deque)
    looked_at_s: float = 0.0
    marks: deque[Mark] = field(default_factory=deque)
    wanted: dict[str, str] = field(default_factory=dict)
    walks: list[Walk] = field(default_factory=list)
    comparisons: Comparisons = field(default_factory=Comparisons)
    early: dict[str, Known] = field(default_factory=dict)
    early_bytes: int = 0
    entries_read: int = 0
    entries_lost: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    dirty: bool = False

    @property
    def name(self) -> str:
        """`<source>/<queue>`, escaped as in keys."""
        return f"{escape(self.source)}/{escape(self.queue)}"

    @property
    def newest(self) -> Id:
        """The last entry read, handed on or not."""
        return max(self.read_to, self.position)

    @property
    def ready(self) -> bool:
        """Whether a turn now would get on; looks that wait for entries wait for the reader."""
        return bool(self.unsure or self.buffer or ((self.wanted or self.walks) and not self.looks))

    @property
    def busy(self) -> bool:
        """Whether anything is to be done here, now or later."""
        waiting = self.looks or self.wanted or self.walks or self.comparisons.waiting
        return bool(self.unsure or self.buffer or waiting or self.dirty)

    @property
    def pausing(self) -> str | None:
        """Whether a pause or resume is still being told of jobs: `pause`, `resume` or None."""
        return next((walk.reason for walk in self.walks if not walk.looks), None)
