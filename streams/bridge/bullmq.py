"""BullMQ's names and formats: keys, event words, hash fields, and the read commands built from them.

The only module that knows them. Text comes in as redis gives it with `surrogateescape`, so bytes that are
no UTF-8 survive until somebody decides about them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from streams.bridge.hashes import FIELDS, Texts, decode_job, fields_read, nearest, number, our_name, raw

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["Texts", "decode_job", "fields_read", "number", "our_name", "raw"]

ADDED: Final = "added"
WAITING: Final = "waiting"
STALLED: Final = "stalled"
FAILED: Final = "failed"
RETRIES_EXHAUSTED: Final = "retries-exhausted"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"

CARRIES_JOB: Final = frozenset(
    ("added", "waiting", "active", "completed", "failed", "delayed", "waiting-children", "stalled")
)
"""Entries after which the job's hash says something new; of all others only the entry itself is published."""

TELLING: Final = frozenset(("prev", "delay"))
"""Fields of an entry by which the fold tells one change of state from another."""

LISTS: Final = ("wait", "paused", "active")
ZSETS: Final = ("delayed", "prioritized", "waiting-children", "completed", "failed")
PLACES: Final = ("paused", "wait", "prioritized", "delayed", "waiting-children", "active", "completed", "failed")
"""Where a job can be, in the order in which a snapshot walks them (a job moves mostly to the right)."""

_PROBED: Final = ("completed", "failed", "delayed", "prioritized", "waiting-children")
_SCORE_UNIT: Final = 4096
PROBE_WIDTH: Final = 8
"""Replies that a hash and `Keys.probe` lead to."""
SEARCH_WIDTH: Final = 6
"""Replies that `Keys.search` leads to."""
_SEARCHED: Final = 1000
"""Elements of a list that are searched from each end: ten microseconds of the server's, whatever the backlog."""

SIZED: Final = ("data", "returnvalue", "stacktrace", "opts", "progress", "failedReason", "name")
"""Fields of a hash that hold texts of the application's and may be of any length."""
_LAST_ID: Final = b"18446744073709551615-18446744073709551615"
_MARKER: Final = re.compile(r"0:[0-9]{1,16}")


def command(*parts: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Keys:
    """The keys of one queue, and commands on them, packed once so that only the job id is added."""

    def __init__(self, prefix: str, queue: str) -> None:
        """`prefix` and `queue` as in BullMQ's options."""
        self.base = f"{prefix}:{queue}:".encode()
        self.events = self.base + b"events"
        self.head = [
            command(b"TIME"),
            command(b"XINFO", b"STREAM", self.events),
            command(b"HMGET", self.base + b"meta", b"paused"),
            command(b"EXISTS", self.base + b"paused"),
        ]
        self.limits = command(b"HMGET", self.base + b"meta", b"opts.maxLenEvents", b"version")
        none = self.base + b"?"
        self.trial = [
            *self.head,
            command(b"XREAD", b"COUNT", b"1", b"STREAMS", self.events, _LAST_ID),
            command(b"HGETALL", none),
            command(b"LRANGE", self.base + b"wait", b"0", b"0"),
            command(b"LPOS", self.base + b"active", b"?", b"MAXLEN", b"1"),
            command(b"ZRANGE", self.base + b"delayed", b"0", b"0"),
            command(b"ZSCORE", self.base + b"delayed", b"?"),
            command(b"PTTL", none),
        ]
        """What has to be allowed for a queue to be read; begins with `head`, and is answered with little."""
        self._zscore = {z: self._opening(3, b"ZSCORE", self.base + z.encode()) for z in ZSETS}
        self._lpos_active = self._opening(3, b"LPOS", self.base + b"active")
        waiting = [self.base + b"wait", self.base + b"paused"]
        self._lpos_waiting = [self._opening(5, b"LPOS", key) for key in waiting]
        self._lpos_waiting_last = [self._opening(7, b"LPOS", key) for key in waiting]
        self._waiting_sizes = [command(b"LLEN", key) for key in waiting]

    @staticmethod
    def _opening(count: int, *parts: bytes) -> bytes:
        return b"*%d\r\n" % count + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)

    def hash(self, job_id: bytes) -> bytes:
        """HGETALL of a job."""
        key = self.base + job_id
        return b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(key), key)

    def fields(self, job_id: bytes, without: Container[str] = ()) -> bytes:
        """HMGET of all fields of a job that are known but some, for `fields_read`."""
        return command(b"HMGET", self.base + job_id, *(name.encode() for name in FIELDS if name not in without))

    def sizes(self, job_id: bytes) -> list[bytes]:
        """HSTRLEN of each of SIZED: how large a hash is before it is read."""
        return [command(b"HSTRLEN", self.base + job_id, name.encode()) for name in SIZED]

    def data_size(self, job_id: bytes) -> bytes:
        """HSTRLEN of what is long in most hashes that are."""
        return command(b"HSTRLEN", self.base + job_id, b"data")

    def score(self, zset: str, job_id: bytes) -> bytes:
        """ZSCORE of a job in one of the sorted sets."""
        return b"%b$%d\r\n%b\r\n" % (self._zscore[zset], len(job_id), job_id)

    def is_active(self, job_id: bytes) -> bytes:
        """LPOS of a job in `active`, a list as long as there are running jobs."""
        return b"%b$%d\r\n%b\r\n" % (self._lpos_active, len(job_id), job_id)

    def probe(self, job_id: bytes) -> list[bytes]:
        """All that tells, beside the hash, where a job is: answers for `where_of`."""
        lock = command(b"PTTL", self.base + job_id + b":lock")
        scores = [self.score(zset, job_id) for zset in _PROBED]
        return [self.is_active(job_id), lock, *scores]

    def search(self, job_id: bytes) -> list[bytes]:
        """A bounded search of the two lists in which jobs wait: SEARCH_WIDTH commands, answers for `waits_in`."""
        element = b"$%d\r\n%b\r\n" % (len(job_id), job_id)
        bound = b"$6\r\nMAXLEN\r\n$%d\r\n%d\r\n" % (len(str(_SEARCHED)), _SEARCHED)
        head = [opening + element + bound for opening in self._lpos_waiting]
        last = [opening + element + b"$4\r\nRANK\r\n$2\r\n-1\r\n" + bound for opening in self._lpos_waiting_last]
        return [*head, *last, *self._waiting_sizes]

    def entry(self, stream_id: bytes) -> bytes:
        """The entry of this id, if it is there."""
        return command(b"XRANGE", self.events, stream_id, stream_id)

    def exists(self, job_id: bytes) -> bytes:
        """Whether there is anything under a job's id."""
        return command(b"EXISTS", self.base + job_id)

    def page(self, place: str, start: int, stop: int) -> bytes:
        """Ids of a place by index, both ends included; sorted sets from their high end."""
        key, bounds = self.base + place.encode(), (b"%d" % start, b"%d" % stop)
        if place in LISTS:
            return command(b"LRANGE", key, *bounds)
        return command(b"ZRANGE", key, *bounds, b"REV")

    def size(self, place: str) -> bytes:
        """Number of elements of a place (v4's markers in lists included)."""
        return command(b"LLEN" if place in LISTS else b"ZCARD", self.base + place.encode())


def meta_pattern(prefix: str) -> bytes:
    """What SCAN matches to find queues."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", prefix).encode() + b":*:meta"


def queue_of_meta(prefix: str, key: str) -> str | None:
    """The queue that a `meta` key belongs to; None where the name has a colon, which BullMQ forbids."""
    name = key[len(prefix) + 1 : -len(":meta")]
    return name if name and ":" not in name else None


def is_marker(element: str) -> bool:
    """BullMQ 4 puts `0:<ms>` into lists to wake workers: no job. An id may read like that: a job has a hash."""
    return _MARKER.fullmatch(element) is not None


def is_job(hash_: Any) -> bool:
    """Of all hashes under a queue's prefix only a job's has these two fields."""
    return isinstance(hash_, dict) and "timestamp" in hash_ and "opts" in hash_


def may_be_stall(fields: dict[str, str]) -> bool:
    """Whether an entry is a `waiting` out of `active`: a retry, or, if a `stalled` stands behind it, a stall."""
    return fields.get("event") == WAITING and fields.get("prev") == "active"


def is_stalled(fields: dict[str, str], job_id: str) -> bool:
    """Whether an entry is the `stalled` of this job."""
    return fields.get("event") == STALLED and fields.get("jobId") == job_id


def added_job(flat: list[str]) -> str | None:
    """The id of the job that an entry adds, from its fields as redis gave them; BullMQ writes the event first."""
    if len(flat) < 4 or flat[1] != ADDED or flat[0] != "event":  # noqa: PLR2004 - two fields
        return None
    return flat[3] if flat[2] == "jobId" else None


def may_be_exhausted(fields: dict[str, str]) -> bool:
    """Whether an entry is a `failed`, behind which the same script may have written a `retries-exhausted`."""
    return fields.get("event") == FAILED


def exhausted(fields: dict[str, str], job_id: str) -> int | None:
    """The attempts made, where an entry is the `retries-exhausted` of this job and tells them."""
    if fields.get("event") != RETRIES_EXHAUSTED or fields.get("jobId") != job_id:
        return None
    return number(fields.get("attemptsMade"))


def job_of(flat: list[str]) -> str:
    """The job's id of an entry, from its fields as redis gave them; empty where there is none in BullMQ's own place."""
    return flat[3] if len(flat) >= 4 and flat[2] == "jobId" else ""  # noqa: PLR2004 - two fields


def carries_job(flat: list[str]) -> bool:
    """Whether the hash of an entry's job is read for it, from its fields as redis gave them."""
    return len(flat) >= 4 and flat[1] in CARRIES_JOB and flat[0] == "event" and flat[2] == "jobId"  # noqa: PLR2004 - as above


def split(fields: dict[str, str]) -> tuple[str | None, str]:
    """Take event word and job id (empty where the entry concerns no job) out of an entry's fields."""
    return fields.pop("event", None), fields.pop("jobId", "")


class UnseenError(Exception):
    """A place could not be read (another type, no right), and the job was in none of the others."""


def where_of(replies: list[Any]) -> tuple[str | None, int | None, int | None]:
    """Place, due time (ms) and lock's time to live (ms) from the answers to `Keys.probe` after the hash.

    BullMQ's own order. None for the place: in none of these, so the job waits, or is nowhere (`waits_in`).
    Raises UnseenError.
    """
    active, lock, *scores = replies
    lock_ttl_ms = None if lock == -2 or isinstance(lock, Exception) else max(int(lock), 0)  # noqa: PLR2004 - no such key
    at = dict(zip(_PROBED, scores, strict=True)) | {"active": active}
    for place in ("completed", "failed", "delayed", "prioritized", "active", "waiting-children"):
        score = at[place]
        if score is not None and not isinstance(score, Exception):
            return place, due_at(score) if place == "delayed" else None, lock_ttl_ms
    unseen = next((score for score in at.values() if isinstance(score, Exception)), None)
    if unseen is not None:
        raise UnseenError from unseen
    return None, None, lock_ttl_ms


def waits_in(replies: list[Any], *, paused_list: bool) -> str | None:
    """`wait` or `paused` from the answers to `Keys.search`; None where both were searched whole in vain.

    In lists too long to be searched the place is what BullMQ's order leaves over. Raises UnseenError.
    """
    unseen = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if unseen is not None:
        raise UnseenError from unseen
    in_wait, in_paused, last_in_wait, last_in_paused, *lengths = replies
    if in_wait is not None or last_in_wait is not None:
        return "wait"
    if in_paused is not None or last_in_paused is not None:
        return "paused"
    if max(lengths) <= 2 * _SEARCHED:
        return None
    return "paused" if paused_list else "wait"


def due_at(score: float) -> int:
    """Ms since the epoch at which a job of `delayed` is due: its low 12 bits are a counter in BullMQ 4.

    A score may be infinite: then the nearest that fits into 64 bits.
    """
    return nearest(float(score) / _SCORE_UNIT)


def moved_on(hash_: dict[str, str], replies: list[Any]) -> bool:
    """Whether a job is past the `waiting` that was read with it: finished, or running, or delayed again."""
    if "finishedOn" in hash_:
        return True
    if replies:
        return any(reply is not None for reply in replies)
    return "processedOn" in hash_
