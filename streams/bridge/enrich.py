"""Attach each entry's job: one MULTI per stream and turn, each job read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq
from streams.bridge.ids import format_id
from streams.bridge.looks import HEAD_WIDTH, Head, read_head
from streams.bridge.stream import Entry, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.bridge.stream import Item, Known


@dataclass(slots=True)
class _Job:
    entries: list[Entry] = field(default_factory=list)
    waiting: Entry | None = None
    width: int = 1


class Enrichment:
    """The jobs of one turn's entries: what to ask of Redis, and where the answers go."""

    def __init__(self, stream: Stream, items: Sequence[Item]) -> None:
        """`items` are the turn's entries and looks, in order."""
        self._jobs: dict[str, _Job] = {}
        self._keys = stream.keys
        self._early = stream.early
        for item in items:
            if isinstance(item, Entry) and item.job_id and item.event in bullmq.CARRIES_JOB:
                self._add(item)

    def _add(self, entry: Entry) -> None:
        job = self._jobs.setdefault(entry.job_id, _Job())
        job.entries.append(entry)
        if entry.event != bullmq.STALLED:
            job.waiting = entry if entry.event == bullmq.WAITING else None

    @property
    def commands(self) -> list[bytes]:
        """The MULTI's commands; the head even where no job is asked for, since it tells what was lost."""
        commands = list(self._keys.head)
        for job_id, job in self._jobs.items():
            asked = self._of_job(bullmq.raw(job_id), job)
            job.width = len(asked)
            commands.extend(asked)
        return commands

    def _of_job(self, job_id: bytes, job: _Job) -> list[bytes]:
        keys = self._keys
        if job.waiting is None:
            return [keys.hash(job_id)]
        commands = [keys.hash(job_id), keys.score("prioritized", job_id)]
        if "prev" in job.waiting.fields:
            left = [keys.is_active(job_id), keys.score("delayed", job_id), keys.score("waiting-children", job_id)]
            commands.extend(left)
        return commands

    def apply(self, replies: list[Any]) -> Head:
        """Put the answers into the entries."""
        head = read_head(replies)
        as_of = format_id(head.at)
        at = HEAD_WIDTH
        for job_id, job in self._jobs.items():
            hash_, *rest = replies[at : at + job.width]
            at += job.width
            known = self._early.pop(job_id, None) if self._early else None
            if bullmq.is_job(hash_):
                for entry in job.entries:
                    entry.job, entry.job_as_of = hash_, as_of
                if job.waiting is not None:
                    job.waiting.where = _where(hash_, rest)
            elif known is not None:
                _apply_early(job, known)
        return head


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
