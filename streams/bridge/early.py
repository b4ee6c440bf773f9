"""Read the hashes of jobs just added before their turn comes, where a turn is far behind.

With `removeOnComplete: true` BullMQ deletes a job's hash as it completes: what was not read by then is
never known. As long as the pump keeps up, its own read is early enough and this does nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import bullmq
from streams.bridge.ids import START, Id, parse_id
from streams.bridge.link import Refused
from streams.bridge.looks import HEAD_WIDTH, read_head
from streams.bridge.sizes import MULTI_BYTES, Sizes, held_bytes
from streams.bridge.stream import Known
from streams.clock import wall_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.bridge.buffer import Buffer
    from streams.bridge.link import Link
    from streams.bridge.stream import Raw, Stream

TICK_S: Final = 0.05
BEHIND: Final = 3000
"""Entries in a stream's buffer from which on it counts as behind, although its position moves."""
_FRESH_MS: Final = 5_000
"""Jobs added longer ago are finished, or will still be waiting when their turn comes."""
_PAGE: Final = 500
_NOTED_BYTES: Final = 240
_OVERHEAD_BYTES: Final = 600


class _Added:
    """Jobs of one stream that were added and whose turn has not come."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.jobs: deque[tuple[Id, str]] = deque()
        self.sizes = Sizes()
        self._position = START

    def pass_on(self) -> int:
        """Forget those whose turn has come; how many."""
        passed, position = 0, self.stream.position
        while self.jobs and self.jobs[0][0] <= position:
            self.jobs.popleft()
            passed += 1
        return passed

    def due(self) -> bool:
        """Whether the stream has not moved since the last call, or is far behind."""
        position, unmoved = self.stream.position, self.stream.position == self._position
        self._position = position
        return bool(self.jobs) and (unmoved or len(self.stream.buffer) >= BEHIND)

    def page(self) -> list[tuple[Id, str]]:
        """The next that fit into one MULTI."""
        room = MULTI_BYTES
        page: list[tuple[Id, str]] = []
        for at, job_id in self.jobs:
            room -= self.sizes.of(job_id).size_bytes
            if len(page) >= _PAGE or (page and room < 0):
                break
            page.append((at, job_id))
        return page


class Early:
    """Jobs to read early, of all streams of a source."""

    def __init__(self, link: Link, buffer: Buffer, most_bytes: Callable[[], int]) -> None:
        """What is read counts against `buffer`; past a half of its limit no more is read.

        A field longer than `most_bytes` is not read, as no record could carry it. `link` is used by nobody else.
        """
        self._link = link
        self._buffer = buffer
        self._most_bytes = most_bytes
        self._added: dict[str, _Added] = {}

    def note(self, stream: Stream, entries: list[Raw]) -> None:
        """Entries that have just been appended to a stream's buffer."""
        if stream.read_to[0] < wall_ms() - _FRESH_MS:
            return
        ids = [(entry[0], job_id) for entry in entries if (job_id := bullmq.added_job(entry[1]))]
        if ids:
            added = self._added.setdefault(stream.queue, _Added(stream))
            added.jobs.extend((parse_id(stream_id), job_id) for stream_id, job_id in ids)
            self._buffer.add("hashes", _NOTED_BYTES * len(ids))

    def remove(self, stream: Stream) -> None:
        """The stream is read no more."""
        added = self._added.pop(stream.queue, None)
        if added is not None:
            self._buffer.remove("hashes", _NOTED_BYTES * len(added.jobs))

    async def step(self) -> bool:
        """Read one page of each stream that is behind; whether there was any. Raises one of link.Away."""
        read = False
        for added in list(self._added.values()):
            self._buffer.remove("hashes", _NOTED_BYTES * added.pass_on())
            if added.due() and self._buffer.size_bytes < self._buffer.limit_bytes // 2 and not added.stream.refused:
                await self._read(added)
                read = True
        return read

    async def _read(self, added: _Added) -> None:
        """One page; a queue that refuses is left to the pump, which says so."""
        stream, sizes, epoch = added.stream, added.sizes, added.stream.epoch
        sizes.forget()
        ids = [job_id for _, job_id in list(added.jobs)[:_PAGE] if sizes.is_readable(job_id)]
        commands = sizes.commands(stream.keys, ids, set(ids))
        sizes.learn(ids, set(ids), await self._link.send(commands, len(commands)), self._most_bytes())
        page = added.page()
        readable = [(at, job_id) for at, job_id in page if sizes.is_readable(job_id)]
        asked = [*stream.keys.head, *(sizes.command(stream.keys, job_id) for _, job_id in readable)]
        (replies,) = await self._link.transactions([asked])
        if self._added.get(stream.queue) is not added:
            return
        for _ in page:
            added.jobs.popleft()
        self._buffer.remove("hashes", _NOTED_BYTES * len(page))
        if isinstance(replies, list) and epoch == stream.epoch and not stream.unsure:
            self._keep(stream, sizes, readable, replies)

    def _keep(self, stream: Stream, sizes: Sizes, jobs: list[tuple[Id, str]], replies: list[Any]) -> None:
        try:
            as_of = read_head(replies).at
        except Refused:
            return
        for (at, job_id), reply in zip(jobs, replies[HEAD_WIDTH:], strict=True):
            hash_, left_out = sizes.read(job_id, reply)
            if hash_ is None or left_out or at <= stream.position or job_id in stream.early:
                continue
            known = stream.early[job_id] = Known(as_of, hash_, at, _OVERHEAD_BYTES + held_bytes(hash_))
            self._buffer.add("hashes", known.size_bytes)
