"""Attach each entry's job: each job of a stream's turn is read once, in MULTIs of bounded size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq
from streams.bridge.ids import format_id
from streams.bridge.looks import HEAD_WIDTH, Head, read_head
from streams.bridge.sizes import MULTI_BYTES, MULTI_JOBS
from streams.bridge.stream import Entry, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.bridge.stream import Item, Known


@dataclass(slots=True)
class _Job:
    entries: list[Entry] = field(default_factory=list)
    waiting: Entry | None = None
    width: int = 1


class Enrichment:
    """Some jobs of one turn's entries: one MULTI's commands, and where the answers go."""

    def __init__(self, stream: Stream, jobs: dict[str, _Job]) -> None:
        """The head is asked for even where no job is, since it tells what was lost."""
        self._stream = stream
        self._jobs = jobs
        self.commands = list(stream.keys.head)
        self.expected_bytes = 0
        for job_id, job in jobs.items():
            asked = self._of_job(job_id, job)
            job.width = len(asked)
            self.commands.extend(asked)
            self.expected_bytes += stream.sizes.of(job_id).size_bytes

    def halves(self) -> list[Enrichment]:
        """The same in two, where there are two jobs."""
        if len(self._jobs) < 2:  # noqa: PLR2004 - nothing to divide
            return [self]
        jobs = list(self._jobs.items())
        middle = len(jobs) // 2
        return [Enrichment(self._stream, dict(jobs[:middle])), Enrichment(self._stream, dict(jobs[middle:]))]

    def _of_job(self, job_id: str, job: _Job) -> list[bytes]:
        keys, id_ = self._stream.keys, bullmq.raw(job_id)
        hash_ = self._stream.sizes.command(keys, job_id)
        if job.waiting is None:
            return [hash_]
        commands = [hash_, keys.score("prioritized", id_)]
        if "prev" in job.waiting.fields:
            commands += [keys.is_active(id_), keys.score("delayed", id_), keys.score("waiting-children", id_)]
        return commands

    def apply(self, replies: list[Any]) -> Head:
        """Put the answers into the entries. Raises ResponseError where the stream itself cannot be read."""
        head = read_head(replies)
        as_of = format_id(head.at)
        at = HEAD_WIDTH
        for job_id, job in self._jobs.items():
            reply, *rest = replies[at : at + job.width]
            at += job.width
            known = self._stream.early.get(job_id) if self._stream.early else None
            hash_, left_out = self._stream.sizes.read(job_id, reply)
            if hash_ is not None:
                for entry in job.entries:
                    entry.job, entry.job_as_of, entry.left_out = hash_, as_of, left_out
                if job.waiting is not None:
                    job.waiting.where = _where(hash_, rest)
            elif known is not None:
                _apply_early(job, known)
        return head


def enrichments(
    stream: Stream, items: Sequence[Item], *, jobs: int = MULTI_JOBS, size_bytes: int = MULTI_BYTES
) -> Iterator[Enrichment]:
    """At least one, of at most so many jobs and bytes each. `items` are the turn's entries and looks, in order."""
    group: dict[str, _Job] = {}
    room = size_bytes
    for job_id, job in _jobs_of(stream, items).items():
        expected = stream.sizes.of(job_id).size_bytes
        if group and (len(group) >= jobs or room < expected):
            yield Enrichment(stream, group)
            group, room = {}, size_bytes
        group[job_id] = job
        room -= expected
    yield Enrichment(stream, group)


def _jobs_of(stream: Stream, items: Sequence[Item]) -> dict[str, _Job]:
    jobs: dict[str, _Job] = {}
    for item in items:
        if isinstance(item, Entry) and item.job_id and item.event in bullmq.CARRIES_JOB:
            job = jobs.get(item.job_id)
            if job is None:
                if not stream.sizes.is_readable(item.job_id):
                    continue
                job = jobs[item.job_id] = _Job()
            job.entries.append(item)
            if item.event != bullmq.STALLED:
                job.waiting = item if item.event == bullmq.WAITING else None
    return jobs


def _apply_early(job: _Job, known: Known) -> None:
    """The hash is gone by now, but had been read before; it says nothing of entries that came after that."""
    for entry in job.entries:
        if entry.at <= known.as_of:
            entry.job, entry.job_as_of = known.hash, format_id(known.as_of)


def _where(hash_: dict[str, str], replies: list[Any]) -> str | None:
    prioritized, *elsewhere = (None if isinstance(reply, Exception) else reply for reply in replies)
    if prioritized is not None:
        return "prioritized"
    return None if bullmq.moved_on(hash_, elsewhere) else "wait"
