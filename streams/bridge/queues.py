"""The queues of one source as they come and go: opened, refused, read again, forgotten.

Every name that SCAN finds is hostile until it has been opened: what cannot be read is passed over, told, and looked at
again at each discovery, while all others are read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streams.bridge import checkpoint, discovery, refusal
from streams.bridge.bullmq import Keys
from streams.bridge.ids import START, parse_id
from streams.bridge.link import is_refusal
from streams.bridge.looks import read_head
from streams.bridge.metrics import Asked
from streams.bridge.stream import Stream
from streams.bridge.walk import FIRST_SIGHT

if TYPE_CHECKING:
    from streams.bridge.checkpoint import Checkpoint
    from streams.bridge.early import Early
    from streams.bridge.link import Link
    from streams.bridge.looks import Head
    from streams.bridge.metrics import Metrics
    from streams.bridge.pump import Pump
    from streams.bridge.reader import Reader
    from streams.bridge.refusal import Refusals
    from streams.settings import Settings

log = logging.getLogger(__name__)

_OPENED_AT_ONCE = 100
_MOST_ASKED = 10_000
_GONE_AFTER = 2
"""Discoveries that did not find it."""


class Queues:
    """Those that are read, and those that are not."""

    def __init__(self, source: str, settings: Settings, link: Link, refusals: Refusals, metrics: Metrics) -> None:
        """`link` is used by nobody else."""
        self._source = source
        self._settings = settings
        self._config = settings.sources[source]
        self._link = link
        self._refusals = refusals
        self._metrics = metrics
        self.streams: dict[str, Stream] = {}
        self.known: dict[bytes, Checkpoint] = {}
        """Where each stream was left."""
        self.epochs: dict[tuple[str, str], int] = {}
        """The highest of each queue, whichever bridge has read it."""
        self._asked: dict[str, dict[str, tuple[str, str]]] = {}
        self._left: set[str] = set()

    def serve(self, pump: Pump, reader: Reader, early: Early | None) -> None:
        """Who is to have the streams."""
        self._pump, self._reader, self._early = pump, reader, early
        pump.failed = self.failed
        if early is not None:
            pump.dropped = early.remove

    async def find(self) -> bool:
        """Open what is new, and what can be read again; forget what is gone. Raises one of link.Away."""
        config = self._config
        found = await discovery.find(self._link, config.prefix, config.queues, config.exclude)
        self._refusals.begin()
        await self._forget(found)
        due = [queue for queue in sorted({*found, *self._left, *self._asked}) if self._is_due(queue)]
        for at in range(0, len(due), _OPENED_AT_ONCE):
            await self._try(due[at : at + _OPENED_AT_ONCE])
        return True

    def ask(self, queue: str, job_id: str, reason: str, request: str) -> str | None:
        """A question about a queue that is not open. It is opened for it, since it may be gone: that is the answer.

        Why it will not be asked, if it will not.
        """
        if not discovery.wanted(queue, self._config.queues, self._config.exclude):
            return "unknown_queue"
        if queue in self._refusals:
            return "refused"
        questions = self._asked.setdefault(queue, {}) if len(self._asked) < _MOST_ASKED else self._asked.get(queue)
        if questions is None or len(questions) >= _MOST_ASKED:
            return "full"
        questions[job_id or request] = (job_id, reason)
        return None

    def begin(self, known: dict[bytes, Checkpoint]) -> None:
        """Where all streams were left. Those that were being read are opened whether or not they are still found."""
        self.known = dict(known)
        self.epochs = checkpoint.epochs(known.values())
        config = self._config
        for key, each in known.items():
            own = each.source == self._source and key == self._key(each.queue)
            if own and _is_begun(each) and discovery.wanted(each.queue, config.queues, config.exclude):
                self._left.add(each.queue)

    def failed(self, stream: Stream, error: Exception) -> None:
        """A stream cannot be read any more, or something else went wrong with it."""
        if self.streams.get(stream.queue) is not stream:
            return
        self._reader.remove(stream)
        if self._early is not None:
            self._early.remove(stream)
        if is_refusal(error):
            stream.refused = True  # what was read of it is handed on
        else:
            self._close(stream)
        self._refusals.add(stream.queue, refusal.reason_of(error), refusal.said_by(error))
        self._pump.work.set()

    def _is_due(self, queue: str) -> bool:
        if queue in self._refusals:
            return self._refusals.due(queue)
        return queue not in self.streams

    async def _try(self, names: list[str]) -> None:
        """Each is opened, or refused."""
        fit = []
        for queue in names:
            bad = refusal.bad_name(queue)
            if bad is None:
                fit.append(queue)
            else:
                self._refusals.add(queue, "bad_name", bad)
        keys = [Keys(self._config.prefix, queue) for queue in fit]
        answers = await self._link.transactions([each.trial for each in keys])
        for queue, own, replies in zip(fit, keys, answers, strict=True):
            wrong = self._opened(queue, own, replies)
            if wrong is None:
                self._refusals.remove(queue)
            else:
                self._refusals.add(queue, refusal.reason_of(wrong), refusal.said_by(wrong))

    def _opened(self, queue: str, keys: Keys, answer: list[Any] | Exception) -> Exception | None:
        """What went wrong."""
        try:
            self._open(queue, keys, read_head(refusal.replies(answer)))
        except Exception as error:  # noqa: BLE001 - whatever a queue holds concerns that queue alone
            return error
        return None

    def _open(self, queue: str, keys: Keys, head: Head) -> None:
        stream = self.streams.get(queue)
        if stream is not None:
            stream.refused = False
        else:
            stream = Stream(self._source, queue, keys, epoch=self.epochs.get((self._source, queue), 0))
            known = self.known.get(self._key(queue))
            if known is None:
                self._first_sight(stream, head)
            else:
                checkpoint.resume(stream, known)
            stream.epoch = max(stream.epoch, self.epochs.get((self._source, queue), 0))
            self.streams[queue] = stream
            self._left.discard(queue)
            self._pump.add(stream)
        for name, (job_id, reason) in self._asked.pop(queue, {}).items():
            stream.ask(job_id, reason, "" if job_id else name)
        stream.last = head.at
        self._reader.add(stream)
        self._pump.work.set()
        name = refusal.printable(queue)
        log.info("reading queue %s of source %s from %s-%s", name, self._source, *stream.position)

    def _first_sight(self, stream: Stream, head: Head) -> None:
        stream.paused = head.paused
        stream.dirty = True
        if self._settings.bridge.snapshot:
            stream.comparisons.ask(FIRST_SIGHT)
        if self._settings.bridge.start == "end":
            stream.position = stream.read_to = stream.settled = stream.committed = head.at
            stream.ordinal = head.added or 0
        else:
            stream.ordinal = (head.added or 0) - head.length
            stream.pause_unsure = True
        stream.memory.hand_on(stream.position, stream.ordinal, (), None)

    async def _forget(self, found: set[str]) -> None:
        """What was not found twice, and of which the stream is gone too, is not read any more."""
        for queue in self._refusals:
            if queue not in found and queue not in self.streams:
                self._refusals.remove(queue)
        missing = []
        for queue, stream in self.streams.items():
            stream.missed = 0 if queue in found else stream.missed + 1
            if stream.missed >= _GONE_AFTER:
                missing.append(stream)
        for stream in missing:
            if stream.busy or await self._link.call(b"EXISTS", stream.keys.events):
                continue
            if stream.position != START:  # that it is gone is told first, and its jobs are asked about
                stream.unsure = True
                self._pump.work.set()
            else:
                self._close(stream)
                self._refusals.remove(stream.queue)
                if isinstance(self._metrics, Asked):
                    self._metrics.forget({"source": self._source, "queue": stream.queue})
                log.info("queue %s of source %s is gone", refusal.printable(stream.queue), self._source)

    def _close(self, stream: Stream) -> None:
        """Forgotten but for where it was left."""
        del self.streams[stream.queue]
        self._reader.remove(stream)
        if self._early is not None:
            self._early.remove(stream)
        self._pump.remove(stream)
        if stream.covered is not None:
            self.known[self._key(stream.queue)] = stream.covered
            self.epochs[self._source, stream.queue] = stream.epoch

    def _key(self, queue: str) -> bytes:
        return checkpoint.key_of(self._settings.bridge.id, self._source, queue)


def _is_begun(known: Checkpoint) -> bool:
    """Whether anything was read of it, or is to be begun again."""
    return parse_id(known.position) != START or known.snapshot == "pending" or known.pausing is not None
