"""Read the hashes of jobs just added before their turn comes, where a turn is far behind.

With `removeOnComplete: true` BullMQ deletes a job's hash as it completes: what was not read by then is
never known. As long as the pump keeps up, its own read is early enough and this does nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from streams.bridge import bullmq
from streams.bridge.ids import START, Id, parse_id
from streams.bridge.looks import HEAD_WIDTH, read_head
from streams.bridge.stream import Known
from streams.clock import wall_ms

if TYPE_CHECKING:
    from streams.bridge.buffer import Buffer
    from streams.bridge.link import Link
    from streams.bridge.stream import Raw, Stream

TICK_S: Final = 0.05
BEHIND: Final = 3000
"""Entries in a stream's buffer from which on it counts as behind, although its position moves."""
_FRESH_MS: Final = 5_000
"""Jobs added longer ago are finished, or will still be waiting when their turn comes."""
_PAGE: Final = 500
_HASH_OVERHEAD_BYTES: Final = 600


class _Added:
    """Jobs of one stream that were added and whose turn has not come."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.jobs: deque[tuple[Id, str]] = deque()
        self._position = START

    def due(self) -> list[str]:
        """A page of them, where the stream has not moved since the last call or is far behind."""
        position, unmoved = self.stream.position, self.stream.position == self._position
        self._position = position
        while self.jobs and self.jobs[0][0] <= position:
            self.jobs.popleft()
        if not unmoved and len(self.stream.buffer) < BEHIND:
            return []
        return [self.jobs.popleft()[1] for _ in range(min(_PAGE, len(self.jobs)))]


class Early:
    """Jobs to read early, of all streams of a source."""

    def __init__(self, buffer: Buffer) -> None:
        """What is read counts against `buffer`; past a half of its limit no more is read."""
        self._buffer = buffer
        self._added: dict[str, _Added] = {}

    def note(self, stream: Stream, entries: list[Raw]) -> None:
        """Entries that have just been appended to a stream's buffer."""
        if stream.read_to[0] < wall_ms() - _FRESH_MS:
            return
        ids = [(entry[0], job_id) for entry in entries if (job_id := bullmq.added_job(entry[1]))]
        if ids:
            added = self._added.setdefault(stream.queue, _Added(stream))
            added.jobs.extend((parse_id(stream_id), job_id) for stream_id, job_id in ids)

    async def step(self, link: Link) -> bool:
        """Read one page of each stream that is behind; whether there was any. Raises one of link.Away."""
        room = self._buffer.size_bytes < self._buffer.limit_bytes // 2
        pages = [(added.stream, page) for added in self._added.values() if (page := added.due()) and room]
        groups = [
            [*stream.keys.head, *(stream.keys.hash(bullmq.raw(job_id)) for job_id in page)] for stream, page in pages
        ]
        if not groups:
            return False
        for (stream, page), replies in zip(pages, await link.multi(groups), strict=True):
            as_of = read_head(replies).at
            for job_id, hash_ in zip(page, replies[HEAD_WIDTH:], strict=True):
                if bullmq.is_job(hash_):
                    self._keep(stream, job_id, Known(as_of, hash_))
        return True

    def _keep(self, stream: Stream, job_id: str, known: Known) -> None:
        if job_id not in stream.early:
            size = _HASH_OVERHEAD_BYTES + sum(len(text) for text in known.hash.values())
            stream.early[job_id] = known
            stream.early_bytes += size
            self._buffer.add(size)
