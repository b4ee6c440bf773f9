"""Find the queues of a source: every `<prefix>:<queue>:meta` that the configuration asks for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from streams.bridge import bullmq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.bridge.link import Link


def wanted(queue: str, queues: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a queue matches one of `queues` and none of `exclude` (glob patterns, case counts)."""
    return any(fnmatchcase(queue, p) for p in queues) and not any(fnmatchcase(queue, p) for p in exclude)


async def find(link: Link, prefix: str, queues: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """Names of all that look like queues now, whatever they are. Raises one of link.Away."""
    found: set[str] = set()
    cursor = "0"
    pattern = bullmq.meta_pattern(prefix)
    while True:
        cursor, keys = await link.call(b"SCAN", cursor.encode(), b"MATCH", pattern, b"COUNT", b"1000")
        names = (bullmq.queue_of_meta(prefix, key) for key in keys)
        found.update(name for name in names if name and wanted(name, queues, exclude))
        if cursor == "0":
            return found
