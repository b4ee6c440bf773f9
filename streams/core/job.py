"""A job's address: its key on Kafka, the partition of a key, and what a key can be read back to."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


class JobKey(NamedTuple):
    """`source` names one Redis and prefix of the configuration; `job_id` is empty for entries of the queue itself."""

    source: str
    queue: str
    job_id: str


def escape(part: str) -> str:
    """Source or queue as it stands in a key: `%` and `/` percent-encoded, all else as it is."""
    return part.replace("%", "%25").replace("/", "%2F")


def unescape(part: str) -> str:
    """The inverse of `escape`."""
    return part.replace("%2F", "/").replace("%25", "%")


def job_key(source: str, queue: str, job_id: str) -> str:
    """`<source>/<queue>/<jobId>`; the job id is taken as it is, so it may hold slashes."""
    return _queue_prefix(source, queue) + job_id


@lru_cache(maxsize=1 << 14)
def _queue_prefix(source: str, queue: str) -> str:
    return f"{escape(source)}/{escape(queue)}/"


def parse_key(key: str) -> JobKey:
    """The inverse of `job_key`. Raises ValueError where the text has fewer than two slashes."""
    source, queue, job_id = key.split("/", 2)
    return JobKey(unescape(source), unescape(queue), job_id)


def murmur2(data: bytes) -> int:
    """The hash of Kafka's Java client (seed 0x9747b28c), as an unsigned 32-bit int."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length >> 2
    for k in struct.unpack_from(f"<{whole}I", data):
        k = (k * _M) & _MASK  # noqa: PLW2901 - mixing in place is what the algorithm is
        h = (h * _M & _MASK) ^ ((k ^ (k >> 24)) * _M & _MASK)
    tail = data[whole << 2 :]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition to which Kafka's default partitioner sends a key. Cached: a job's events come close together."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
