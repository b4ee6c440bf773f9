"""BullMQ's names and formats: keys, event words, hash fields, and the read commands built from them.

The only module that knows them. Text comes in as redis gives it with `surrogateescape`, so bytes that are
no UTF-8 survive until somebody decides about them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from streams import wire

if TYPE_CHECKING:
    from collections.abc import Callable

ADDED: Final = "added"
WAITING: Final = "waiting"
STALLED: Final = "stalled"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"

CARRIES_JOB: Final = frozenset(
    ("added", "waiting", "active", "completed", "failed", "delayed", "waiting-children", "stalled")
)
"""Entries after which the job's hash says something new; of all others only the entry itself is published."""

LISTS: Final = ("wait", "paused", "active")
ZSETS: Final = ("delayed", "prioritized", "waiting-children", "completed", "failed")
PLACES: Final = ("paused", "wait", "prioritized", "delayed", "waiting-children", "active", "completed", "failed")
"""Where a job can be, in the order in which a snapshot walks them (a job moves mostly to the right)."""

_PROBED: Final = ("completed", "failed", "delayed", "prioritized", "waiting-children")
_SCORE_UNIT: Final = 4096
PROBE_WIDTH: Final = 8
"""Replies that `Keys.probe` leads to."""


def command(*parts: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def raw(text: str) -> bytes:
    """The bytes that redis had, given the text made of them."""
    return text.encode("utf-8", "surrogateescape")


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
        self._zscore = {z: self._opening(3, b"ZSCORE", self.base + z.encode()) for z in ZSETS}
        self._lpos_active = self._opening(3, b"LPOS", self.base + b"active")

    @staticmethod
    def _opening(count: int, *parts: bytes) -> bytes:
        return b"*%d\r\n" % count + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)

    def hash(self, job_id: bytes) -> bytes:
        """HGETALL of a job."""
        key = self.base + job_id
        return b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%b\r\n" % (len(key), key)

    def score(self, zset: str, job_id: bytes) -> bytes:
        """ZSCORE of a job in one of the sorted sets."""
        return b"%b$%d\r\n%b\r\n" % (self._zscore[zset], len(job_id), job_id)

    def is_active(self, job_id: bytes) -> bytes:
        """LPOS of a job in `active`, a list as long as there are running jobs."""
        return b"%b$%d\r\n%b\r\n" % (self._lpos_active, len(job_id), job_id)

    def probe(self, job_id: bytes) -> list[bytes]:
        """All that tells where a job is: PROBE_WIDTH commands, answers for `where_of`."""
        lock = command(b"PTTL", self.base + job_id + b":lock")
        scores = [self.score(zset, job_id) for zset in _PROBED]
        return [self.hash(job_id), self.is_active(job_id), lock, *scores]

    def page(self, place: str, start: int, stop: int) -> bytes:
        """Ids of a place by index, both ends included; sorted sets from their high end."""
        key, bounds = self.base + place.encode(), (b"%d" % start, b"%d" % stop)
        if place in LISTS:
            return command(b"LRANGE", key, *bounds)
        return command(b"ZRANGE", key, *bounds, b"REV")

    def size(self, place: str) -> bytes:
        """Number of elements of a place (v4's markers in lists included)."""
        return command(b"LLEN" if place in LISTS else b"ZCARD", self.base + place.encode())


def run_id(info: str) -> str:
    """The id of the server's run, from INFO."""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return fields.get("run_id", "")


def meta_pattern(prefix: str) -> bytes:
    """What SCAN matches to find queues."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", prefix).encode() + b":*:meta"


def queue_of_meta(prefix: str, key: str) -> str | None:
    """The queue that a `meta` key belongs to; None where the name has a colon, which BullMQ forbids."""
    name = key[len(prefix) + 1 : -len(":meta")]
    return name if name and ":" not in name else None


def is_marker(element: str) -> bool:
    """BullMQ 4 puts `0:<ms>` into lists to wake workers: no job."""
    return element.startswith("0:")


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


def split(fields: dict[str, str]) -> tuple[str | None, str]:
    """Take event word and job id (empty where the entry concerns no job) out of an entry's fields."""
    return fields.pop("event", None), fields.pop("jobId", "")


def where_of(replies: list[Any], *, paused_list: bool) -> tuple[str | None, int | None, int | None]:
    """Place, due time (ms) and lock's time to live (ms) from the answers to `Keys.probe` after the hash.

    BullMQ's own order; `wait` by elimination, since LPOS of a backlog would hold up the server.
    """
    active, lock, *scores = (None if isinstance(reply, Exception) else reply for reply in replies)
    lock_ttl_ms = None if lock is None or lock == -2 else max(int(lock), 0)  # noqa: PLR2004 - Redis: no such key
    at = dict(zip(_PROBED, scores, strict=True))
    for place in ("completed", "failed", "delayed", "prioritized"):
        score = at[place]
        if score is not None:
            return place, due_at(score) if place == "delayed" else None, lock_ttl_ms
    if active is not None:
        return "active", None, lock_ttl_ms
    if at["waiting-children"] is not None:
        return "waiting-children", None, lock_ttl_ms
    return "paused" if paused_list else "wait", None, lock_ttl_ms


def due_at(score: float) -> int:
    """Ms since the epoch at which a job of `delayed` is due: its low 12 bits are a counter in BullMQ 4."""
    return int(float(score)) // _SCORE_UNIT


def moved_on(hash_: dict[str, str], replies: list[Any]) -> bool:
    """Whether a job is past the `waiting` that was read with it: finished, or running, or delayed again."""
    if "finishedOn" in hash_:
        return True
    if replies:
        return any(reply is not None for reply in replies)
    return "processedOn" in hash_


# -- hash fields --------------------------------------------------------------------------------------------


def _as_is(text: str) -> str:
    return text


def decode_job(hash_: dict[str, str], *, embed: bool = False) -> dict[str, Any]:
    """A job's hash under our names; absent fields are absent keys.

    `embed` leaves JSON texts as they are, checked, for `wire.dumps` to put in place: half the price, and
    numbers keep every digit.
    """
    fields = _EMBEDDED if embed else _PARSED
    job: dict[str, Any] = {}
    for name, text in hash_.items():
        field = fields.get(name)
        if field is not None:
            job[field[0]] = field[1](text)
    job["attempts_made"] = number(hash_.get("attemptsMade")) or number(hash_.get("atm")) or 0
    if "attemptsMade" in hash_:
        job["counts_starts"] = True
    job["stalled_count"] = number(hash_.get("stc")) or number(hash_.get("stalledCounter")) or 0
    parent = parent_of(hash_)
    if parent is not None:
        job["parent"] = parent
    return job


def number(text: str | None) -> int | None:
    """An integer from BullMQ's decimal text (BullMQ 4 writes some as floats), None where it is none."""
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        try:
            value = int(float(text))
        except (ValueError, OverflowError):
            return None
    return value if -_LARGEST <= value <= _LARGEST else None


def parsed(text: str) -> Any:
    """The JSON value, or the text itself where it is none."""
    try:
        return wire.loads(text)
    except wire.JSONDecodeError:
        lenient = _lenient(text)
        return text if lenient is None else wire.loads(lenient)


def embedded(text: str) -> Any:
    """The JSON text, ready to be embedded, or the text as a string where it is none."""
    try:
        wire.loads(text)
    except wire.JSONDecodeError:
        lenient = _lenient(text)
        return text if lenient is None else wire.Raw(lenient)
    return wire.Raw(text)


def _lenient(text: str) -> bytes | None:
    """JSON that only strict UTF-8 readers refuse (JavaScript's lone surrogates), mended; None where it is no JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        mended = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
        mended_text = mended.decode("utf-16", "replace").encode()
        wire.loads(mended_text)
    except (ValueError, RecursionError):
        return None
    return mended_text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def parent_of(hash_: dict[str, str]) -> dict[str, Any] | None:
    """`{"id", "queue", …}` of a child's parent, with whatever else BullMQ says of it."""
    if "parent" in hash_:
        parent = parsed(hash_["parent"])
        if isinstance(parent, dict):
            key = parent.pop("queueKey", None)
            queue = key.rpartition(":")[2] if isinstance(key, str) else None
            return {"id": parent.pop("id", None), "queue": queue, **parent}
    if "parentKey" in hash_:
        parts = hash_["parentKey"].split(":", 2)
        if len(parts) == 3:  # noqa: PLR2004 - prefix, queue, id
            return {"id": parts[2], "queue": parts[1]}
    return None


_LARGEST: Final = 2**63 - 1

_PLAIN: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "name": ("name", _as_is),
    "failedReason": ("failed_reason", _as_is),
    "defa": ("deferred_failure", _as_is),
    "pb": ("processed_by", _as_is),
    "rjk": ("repeat_job_key", _as_is),
    "deid": ("deduplication_id", _as_is),
    "timestamp": ("timestamp", number),
    "delay": ("delay", number),
    "priority": ("priority", number),
    "processedOn": ("processed_on", number),
    "finishedOn": ("finished_on", number),
    "ats": ("attempts_started", number),
}
_JSON: Final = {
    "data": "data",
    "opts": "opts",
    "progress": "progress",
    "returnvalue": "return_value",
    "stacktrace": "stacktrace",
}
_PARSED: Final = {**_PLAIN, **{name: (ours, parsed) for name, ours in _JSON.items()}}
_EMBEDDED: Final = {**_PLAIN, **{name: (ours, embedded) for name, ours in _JSON.items()}}
