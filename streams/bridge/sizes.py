"""How large the hashes of a queue's jobs are, before they are read.

Redis builds a reply whole, counts it toward `maxmemory`, and holds up every BullMQ client meanwhile. So a queue is
believed to have small hashes only after it has shown some; until then, and again once one was large, the long fields of
each are measured first. In a calm queue that is done for the payload of new jobs alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import bullmq

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from streams.bridge.bullmq import Keys

MULTI_JOBS: Final = 200
"""Most jobs that one MULTI reads."""
MULTI_BYTES: Final = 4_000_000
"""Most bytes of reply that one MULTI is expected to lead to."""
_UNSURE_JOBS: Final = 200
_SMALL_BYTES: Final = 16_000
_FIRST_GUESS_BYTES: Final = 2_000
_FIELD_BYTES: Final = 113
"""What two short strings and their place in a dict take in memory."""
_LONGEST_ID: Final = 10_000
"""Characters: no record may have a longer key, so of such a job only the entry itself is told."""
_WEIGHT: Final = 0.05
_TEXTS: Final = ("stacktrace", "failedReason")
"""They are cut, so they are of use however long they are."""


@dataclass(slots=True)
class Hash:
    """What is known of a hash before it is read: bytes expected, and fields not to be read, with their bytes."""

    size_bytes: int
    left_out: dict[str, int] = field(default_factory=dict)


class Sizes:
    """Of one queue. Not for use by several tasks at once."""

    def __init__(self) -> None:
        """Nothing is known of it."""
        self.mean_bytes: float = _FIRST_GUESS_BYTES
        self._unsure = _UNSURE_JOBS
        self._hashes: dict[str, Hash] = {}
        self._usual = Hash(_FIRST_GUESS_BYTES)
        self.read_bytes = 0
        """Of hashes read since the last turn, in memory."""

    @property
    def calm(self) -> bool:
        """Whether its hashes have been small for long."""
        return self._unsure <= 0

    def forget(self) -> None:
        """Sizes of single jobs hold for one turn."""
        self._hashes.clear()
        self._usual = Hash(int(self.mean_bytes))
        self.read_bytes = 0

    def commands(self, keys: Keys, job_ids: Iterable[str], new: Collection[str]) -> list[bytes]:
        """What to ask before these are read; `new` are those just added."""
        if self.calm:
            return [keys.data_size(bullmq.raw(job_id)) for job_id in job_ids if job_id in new]
        return [command for job_id in job_ids for command in keys.sizes(bullmq.raw(job_id))]

    def learn(self, job_ids: Iterable[str], new: Collection[str], replies: list[Any], most_bytes: int) -> None:
        """The answers to `commands`. A field longer than `most_bytes` fits into no record, and is not read."""
        lengths = iter([reply if isinstance(reply, int) else 0 for reply in replies])
        if self.calm:
            for job_id in job_ids:
                if job_id in new and (length := next(lengths)) > _SMALL_BYTES:
                    self._note(job_id, {"data": length}, most_bytes)
            return
        for job_id in job_ids:
            fields = {name: next(lengths) for name in bullmq.SIZED}
            if sum(fields.values()) > _SMALL_BYTES:
                self._note(job_id, fields, most_bytes)

    def _note(self, job_id: str, lengths: dict[str, int], most_bytes: int) -> None:
        total = sum(lengths.values())
        self._unsure = _UNSURE_JOBS
        left_out = {name: size for name, size in lengths.items() if size > most_bytes and name not in _TEXTS}
        for name, size in sorted(lengths.items(), key=lambda pair: -pair[1]):
            if total - sum(left_out.values()) <= MULTI_BYTES:
                break
            left_out[name] = size
        rest = total - sum(left_out.values())
        self._hashes[job_id] = Hash(int(max(rest, _FIRST_GUESS_BYTES)), left_out)

    def of(self, job_id: str) -> Hash:
        """What is expected of a job's hash."""
        return self._hashes.get(job_id) or self._usual

    def is_readable(self, job_id: str) -> bool:
        """Whether a record of this job could be made at all."""
        return len(job_id) <= _LONGEST_ID

    def command(self, keys: Keys, job_id: str) -> bytes:
        """The read of a hash; where the queue is not calm, of the fields that are known alone."""
        left_out = self.of(job_id).left_out
        if self.calm and not left_out:
            return keys.hash(bullmq.raw(job_id))
        return keys.fields(bullmq.raw(job_id), left_out)

    def read(self, job_id: str, reply: Any) -> tuple[dict[str, str] | None, dict[str, int]]:
        """The job's hash out of the answer to `command`, None where it is none; and what was left out of it."""
        left_out = self.of(job_id).left_out
        hash_ = bullmq.fields_read(reply, left_out) if isinstance(reply, list) else reply
        if not bullmq.is_job(hash_):
            return None, {}
        size_bytes = held_bytes(hash_)
        self.read_bytes += size_bytes
        self._seen(size_bytes)
        return hash_, left_out

    def _seen(self, size_bytes: int) -> None:
        self.mean_bytes += (size_bytes - self.mean_bytes) * _WEIGHT
        self._unsure = self._unsure - 1 if size_bytes <= _SMALL_BYTES else _UNSURE_JOBS


def held_bytes(hash_: dict[str, str]) -> int:
    """About what a hash takes in memory."""
    return _FIELD_BYTES * len(hash_) + sum(map(len, hash_.values()))
