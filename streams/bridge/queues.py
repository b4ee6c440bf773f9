"""The queues of one source as they come and go: opened, refused, read again, forgotten.

Every name that SCAN finds is hostile until it has been opened: what cannot be read is passed over, told, and looked at
again at each discovery, while all others are read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq, checkpoint, discovery, refusal
from streams.bridge.bullmq import Keys
from streams.bridge.link import is_refusal
from streams.bridge.looks import read_head
from streams.bridge.stream import Stream, parse_id
from streams.bridge.walk import pause_walk, snapshot_walk

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
        self._run_id = ""
        self.streams: dict[str, Stream] = {}
        self.known: dict[bytes, Checkpoint] = {}
        """Where each stream was left."""
        self.connected = False
        """Set to False where the connection was lost: another Redis may be there by now."""

    def serve(self, pump: Pump, reader: Reader, early: Early | None) -> None:
        """Who is to have the streams."""
        self._pump, self._reader, self._early = pump, reader, early
        pump.failed = self.failed

    async def find(self) -> bool:
        """Open what is new, and what can be read again; forget what is gone. Raises one of link.Away."""
        if not self.connected:
            self._run_id = bullmq.run_id(await self._link.call(b"INFO", b"server"))
            for stream in self.streams.values():
                stream.run_id = self._run_id
            self.connected = True
        config = self._config
        found = await discovery.find(self._link, config.prefix, config.queues, config.exclude)
        self._refusals.begin()
        await self._forget(found)
        due = [queue for queue in sorted(found) if self._is_due(queue)]
        for at in range(0, len(due), _OPENED_AT_ONCE):
            await self._try(due[at : at + _OPENED_AT_ONCE])
        return True

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
            wrong = replies if isinstance(replies, Exception) else self._opened(queue, own, replies)
            if wrong is None:
                self._refusals.remove(queue)
            else:
                self._refusals.add(queue, refusal.reason_of(wrong), refusal.said_by(wrong))

    def _opened(self, queue: str, keys: Keys, replies: list[Any]) -> Exception | None:
        """What went wrong."""
        try:
            self._open(queue, keys, read_head(replies))
        except Exception as error:  # noqa: BLE001 - whatever a queue holds concerns that queue alone
            return error
        return None

    def _open(self, queue: str, keys: Keys, head: Head) -> None:
        stream = self.streams.get(queue)
        if stream is not None:
            stream.refused = False
        else:
            stream = Stream(self._source, queue, keys, run_id=self._run_id)
            known = self.known.get(self._key(queue))
            if known is None:
                self._first_sight(stream, head)
            else:
                resume(stream, known)
            if stream.snapshot == "pending":
                stream.walks.append(snapshot_walk())
            self.streams[queue] = stream
            self._pump.add(stream)
        stream.last = head.at
        self._reader.add(stream)
        self._pump.work.set()
        name = refusal.printable(queue)
        log.info("reading queue %s of source %s from %s-%s", name, self._source, *stream.position)

    def _first_sight(self, stream: Stream, head: Head) -> None:
        stream.paused = head.paused
        stream.dirty = True
        stream.snapshot = "pending" if self._settings.bridge.snapshot else "done"
        if self._settings.bridge.start == "end":
            stream.position = stream.read_to = stream.settled = stream.committed = head.at
            stream.ordinal = head.added or 0
            return
        stream.ordinal = (head.added or 0) - head.length
        stream.pause_unsure = True

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
            if not await self._link.call(b"EXISTS", stream.keys.events) and not stream.busy:
                self._close(stream)
                self._refusals.remove(stream.queue)
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

    def _key(self, queue: str) -> bytes:
        return checkpoint.key_of(self._settings.bridge.id, self._source, queue)


def resume(stream: Stream, known: Checkpoint) -> None:
    """Go on where the checkpoint says."""
    stream.position = stream.read_to = stream.settled = stream.committed = parse_id(known.position)
    stream.ordinal = known.entries_added
    stream.paused = known.paused
    stream.snapshot = known.snapshot
    if known.pausing is not None:
        stream.walks.append(pause_walk(paused=known.pausing == "pause"))
