"""Read the hashes of jobs just added before their turn comes, where a turn is far behind.

With `removeOnComplete: true` BullMQ deletes a job's hash as it completes: what was not read by then is
never known. As long as the pump keeps up, its own read is early enough and this does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from streams.bridge import bullmq
from streams.bridge.looks import HEAD_WIDTH, read_head
from streams.bridge.stream import Known

if TYPE_CHECKING:
    from streams.bridge.link import Link
    from streams.bridge.reader import Buffer
    from streams.bridge.stream import Raw, Stream

BEHIND: Final = 3000
"""Entries in a stream's buffer from which on it counts as behind."""
_FRESH_MS: Final = 5_000
"""Jobs added longer ago are finished, or will still be waiting when their turn comes."""
_PAGE: Final = 500
_HASH_OVERHEAD_BYTES: Final = 600


class Early:
    """Jobs to read early, of all streams of a source."""

    def __init__(self, buffer: Buffer) -> None:
        """What is read counts against `buffer`; past a half of its limit no more is read."""
        self._buffer = buffer
        self._asked: deque[tuple[Stream, str]] = deque()
        self._some = asyncio.Event()

    def note(self, stream: Stream, entries: list[Raw]) -> None:
        """Entries that have just been appended to a stream's buffer."""
        if len(stream.buffer) < BEHIND or stream.read_to[0] < time.time() * 1000 - _FRESH_MS:
            return
        for _, fields in entries:
            job_id = bullmq.added_job(fields)
            if job_id:
                self._asked.append((stream, job_id))
        if self._asked:
            self._some.set()

    async def step(self, link: Link) -> None:
        """Read one page of them. Raises one of link.Away."""
        await self._some.wait()
        page = self._next_page()
        if page:
            stream = page[0][0]
            ids = [job_id for _, job_id in page]
            group = [*stream.keys.head, *(stream.keys.hash(bullmq.raw(job_id)) for job_id in ids)]
            (replies,) = await link.multi([group])
            as_of = read_head(replies).at
            for job_id, hash_ in zip(ids, replies[HEAD_WIDTH:], strict=True):
                if bullmq.is_job(hash_):
                    self._keep(stream, job_id, Known(as_of, hash_))
        for _ in page:
            self._asked.popleft()
        if not self._asked:
            self._some.clear()

    def _next_page(self) -> list[tuple[Stream, str]]:
        """The first jobs, all of one stream; those whose turn has come, or that do not fit, are dropped."""
        asked = self._asked
        if self._buffer.size_bytes > self._buffer.limit_bytes // 2:
            asked.clear()
        while asked and len(asked[0][0].buffer) < BEHIND // 2:
            asked.popleft()
        page: list[tuple[Stream, str]] = []
        for each in asked:
            if each[0] is not asked[0][0] or len(page) == _PAGE:
                break
            page.append(each)
        return page

    def _keep(self, stream: Stream, job_id: str, known: Known) -> None:
        size = _HASH_OVERHEAD_BYTES + sum(len(text) for text in known.hash.values())
        if job_id not in stream.early:
            stream.early[job_id] = known
            stream.early_bytes += size
            self._buffer.add(size)
