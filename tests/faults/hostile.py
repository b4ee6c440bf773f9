"""What anybody with a login to Redis may write. Each of these costs one thing at most: its own queue, job or entry.

Queues of hostile jobs are called `hostile…`; of those that nobody can read the key is kept in `stage.refused`.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any, Final

import redis

from tests.faults.stage import Stage

QUEUE: Final = "hostile"
FLIPPING: Final = "hostile-flipping"
NESTED: Final = 300


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


NUMBERS: Final = (
    "1.7976931348623157e308",
    "1e20",
    "-1e20",
    "1e400",
    "99999999999999999999",
    "NaN",
    "text",
    "",
    "1.5",
    "-1",
)
TEXTS: Final = (
    "\x00",
    "a\x00b",
    '"\\ud800"',
    "\x1b[31mred\nline\r",
    "ä" * 150_000,
    "child process failed",
    '{"a": NaN}',
    nested(NESTED),
)
HASHES: Final[tuple[dict[str, Any], ...]] = (
    *({"delay": number} for number in NUMBERS),
    *({"timestamp": number} for number in NUMBERS),
    *({"processedOn": number, "atm": number, "ats": number, "stc": number, "priority": number} for number in NUMBERS),
    *({"name": text} for text in TEXTS),
    *({"data": text} for text in (*TEXTS, "", "null", "1e400", '{"a": 99999999999999999999999}')),
    *({"opts": text} for text in ("[]", "null", '{"attempts": 1e300}', '{"attempts": "3"}', "{", nested(NESTED))),
    {"failedReason": "x" * 300_000},
    {"stacktrace": json.dumps(["x" * 200_000] * 4)},
    {"stacktrace": "{}", "returnvalue": "{", "progress": "["},
    {"parent": "[1]", "parentKey": "x", "rjk": "y"},
    {"finishedOn": "1e20", "failedReason": b"\xff\xfe"},
    {f"field-{n}": "x" for n in range(1_000)},
)
ENTRIES: Final[tuple[dict[str, Any], ...]] = (
    {"event": "observed", "jobId": "7", "found": "1", "observed_at": "5"},
    {"event": "observed", "jobId": "7"},
    {"event": "completed", "jobId": "never-there", "returnvalue": "{"},
    {"event": "failed", "jobId": "never-there-2", "failedReason": "ä" * 150_000, "prev": "active"},
    {"event": "delayed", "jobId": "late", "delay": "1e20"},
    {"event": "delayed", "jobId": "late-2", "delay": "text"},
    {"event": "waiting", "jobId": ""},
    {"event": "waiting"},
    {"jobId": "7", "word": "missing"},
    {"event": "", "jobId": "7"},
    {"event": "progress", "jobId": "7", "data": nested(NESTED)},
    {"event": "retries-exhausted", "jobId": "7", "attemptsMade": "99999999999999999999"},
    {"event": "x" * 20_000, "jobId": "7"},
    {"event": "stalled", "jobId": "x" * 5_000},
    {"event": b"\xff\xfe", "jobId": b"\xfe", "field": b"\xff"},
    {"event": "removed", "jobId": "a\nb\x1b[2J", "prev": "wait"},
)
IDS: Final = ("0:tenant:42", "0:0", "0:1795478836845", "a/b%2F", "meta", "\x1b]0;x\x07", "ä" * 200, "a\nb")


def _open(client: Any, queue: str | bytes) -> bytes:
    """A queue as BullMQ would leave it; gives the start of its keys."""
    name = queue if isinstance(queue, bytes) else queue.encode()
    client.hset(b"bull:%b:meta" % name, mapping={"opts.maxLenEvents": "10000", "version": "bullmq:6.7.0"})
    return b"bull:%b:" % name


def _job(client: Any, start: bytes, job_id: str, **fields: Any) -> None:
    """A job waiting in its list, with the entries that say so, in one transaction."""
    known = {
        "name": "odd",
        "data": "{}",
        "opts": "{}",
        "timestamp": str(_now_ms()),
        "delay": "0",
        "priority": "0",
        **fields,
    }
    with client.pipeline() as pipe:
        pipe.hset(start + job_id.encode(), mapping=known)
        pipe.lpush(start + b"wait", job_id)
        pipe.xadd(start + b"events", {"event": "added", "jobId": job_id, "name": "odd"})
        pipe.xadd(start + b"events", {"event": "waiting", "jobId": job_id})
        pipe.execute()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def hashes(stage: Stage, dice: random.Random) -> None:
    """Jobs whose hashes hold anything."""
    with stage.redis.direct as client:
        start = _open(client, QUEUE)
        for number, odd in enumerate(dice.sample(HASHES, 15)):
            _job(client, start, f"odd-{_now_ms()}-{number}", **odd)


def entries(stage: Stage, dice: random.Random) -> None:
    """Entries that BullMQ never writes."""
    with stage.redis.direct as client:
        start = _open(client, QUEUE)
        for odd in dice.sample(ENTRIES, 10):
            client.xadd(start + b"events", odd)


def places(stage: Stage, dice: random.Random) -> None:
    """Ids that look like something else, jobs that are in no list, places of another type."""
    with stage.redis.direct as client:
        start = _open(client, QUEUE)
        for job_id in dice.sample(IDS, 3):
            if job_id != "meta":
                _job(client, start, job_id)
        lost, gone = f"lost-{_now_ms()}", f"gone-{_now_ms()}"
        for job_id in (lost, gone):
            _job(client, start, job_id)
            client.lrem(start + b"wait", 0, job_id)
        client.delete(start + gone.encode())


def keys(stage: Stage, dice: random.Random) -> None:
    """Queues that are none: their meta or events are of another type."""
    mark = f"odd{dice.randrange(10**6)}"
    meta, events = f"bull:{mark}:meta".encode(), f"bull:{mark}:events".encode()
    with stage.redis.direct as client:
        how = dice.randrange(5)
        if how == 0:
            client.set(meta, 1)
        elif how == 1:
            client.rpush(meta, "a", "b")
        elif how == 2:
            client.zadd(meta, {"a": 1})
        elif how == 3:
            client.hset(meta, "paused", "1")
            client.set(events, "x")
        else:
            client.hset(meta, "opts.maxLenEvents", "text")
            client.rpush(events, "x")
        stage.refused[mark] = events if how > 2 else meta


def names(stage: Stage, dice: random.Random) -> None:
    """Names that are no UTF-8, or that a terminal would take for orders."""
    with stage.redis.direct as client:
        mark = f"bad{dice.randrange(10**6)}"
        start = _open(client, mark.encode() + b"\xff\xfe")
        stage.refused[mark] = start + b"meta"
        client.xadd(start + b"events", {"event": "added", "jobId": "1", "name": "x"})
        for name in ("hostile\x1b[31m\nlines", "hostile/slash%2F", "hostile " + "x" * 200, "hostile-ä€😀"):
            _job(client, _open(client, name), "1")


def turn(stage: Stage) -> None:
    """The stream of a queue that is read becomes a string."""
    with stage.redis.direct as client:
        start = _open(client, FLIPPING)
        _job(client, start, f"before-{_now_ms()}")
        time.sleep(1.5)  # it is found within a second
        with client.pipeline() as pipe:
            pipe.delete(start + b"events")
            pipe.set(start + b"events", "x")
            pipe.execute()


def mend(stage: Stage) -> None:
    with stage.redis.direct as client:
        start = _open(client, FLIPPING)
        try:
            client.delete(start + b"events")
            _job(client, start, f"after-{_now_ms()}")
        except redis.RedisError as error:
            raise RuntimeError(f"the queue {FLIPPING} cannot be mended") from error
