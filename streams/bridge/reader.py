"""Read the event streams of one source as fast as they are written, and nothing else.

A stream of which the last read was full is behind: those are read without waiting, few at a time and with as many
entries as fit. All others are quiet: few enough of them are waited for together; of many, slices are asked in turn,
since Redis looks at each stream of an XREAD while every other client waits.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from streams.bridge import bullmq
from streams.bridge.bullmq import command
from streams.bridge.history import server_of
from streams.bridge.ids import format_id, parse_id
from streams.bridge.link import is_refusal
from streams.bridge.stream import Raw, Stream, fields_of, size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.bridge.buffer import Buffer
    from streams.bridge.early import Early
    from streams.bridge.history import Server
    from streams.bridge.link import Link

COUNT: Final = 1000
_LEAST_COUNT: Final = 4
"""More than one, so that an entry and the one that the same script wrote behind it can come together."""
_BLOCK_MS: Final = 250
_SLICE: Final = 500
"""Streams of one XREAD: a quarter of a millisecond of Redis' time."""
_ROUND_S: Final = 0.2
"""In which all quiet streams are asked once, or longer where there are more than _STREAMS_PER_S x _ROUND_S."""
_STREAMS_PER_S: Final = 12_500
_STREAMS_PER_S_AT_REST: Final = 5_000
"""Asked for nothing: two percent of Redis' time, and of the bridge's."""
_REST_S: Final = 5.0
"""Without an entry in any stream."""
_READ_BYTES: Final = 4_000_000
"""Most that one reply is expected to hold."""
_FIRST_ENTRY_BYTES: Final = 1_000
_LEAST_ENTRY_BYTES: Final = 700
_PATIENCE_S: Final = 1.0
_ACTIVE_S: Final = 1.0
"""A stream that got an entry so lately is asked in every slice."""
_SAMPLE_S: Final = 0.1
_SAMPLE_MS: Final = 100
"""Least time between two questions for the server's replication offset: 9 microseconds of its time each."""
_INFO: Final = command(b"INFO", b"replication")
_FALL: Final = 0.9
"""How slowly the size that is expected of a stream's entries falls."""


class _Followed:
    """A stream that is read, with what is expected of its next entries."""

    __slots__ = ("behind", "entry_bytes", "got_s", "key", "name", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.key = stream.keys.events
        self.name = self.key.decode()
        self.got_s = 0.0
        self.behind = True
        self.entry_bytes: float = _FIRST_ENTRY_BYTES


class Reader:
    """XREAD over all streams of a source into their buffers."""

    def __init__(
        self,
        link: Link,
        buffer: Buffer,
        work: asyncio.Event,
        early: Early | None,
        failed: Callable[[Stream, Exception], None],
        heard: Callable[[Server], None],
    ) -> None:
        """`work` is set whenever entries came; `early` is told of them; `failed` of a stream that cannot be read.

        `heard` is told what the server says of itself, behind what was read, and may raise OSError.
        """
        self._early = early
        self._link = link
        self._buffer = buffer
        self._work = work
        self._failed = failed
        self._heard = heard
        self._heard_s = 0.0
        self._unsampled: set[Stream] = set()
        self._followed: dict[str, _Followed] = {}
        self._quiet: list[_Followed] = []
        self._asked_s = 0.0

    def add(self, stream: Stream) -> None:
        """Read this one too, from its `read_to` on."""
        self._followed[stream.keys.events.decode()] = _Followed(stream)

    def remove(self, stream: Stream) -> None:
        """Read it no more."""
        self._followed.pop(stream.keys.events.decode(), None)
        self._unsampled.discard(stream)

    async def step(self) -> bool:
        """Some XREADs; False where there was no room, or no stream to read. Raises one of link.Away."""
        if not await self._buffer.room(_PATIENCE_S):
            return False
        followed = list(self._followed.values())
        if not followed:
            await asyncio.sleep(0.05)
            return False
        behind = [each for each in followed if each.behind]
        if behind:
            await self._catch_up(behind)
        if len(followed) <= _SLICE:
            await self._read(followed, None if behind else _BLOCK_MS)
        else:
            await self._ask_quiet(followed, wait=not behind)
        return True

    async def _catch_up(self, behind: list[_Followed]) -> None:
        """Once each of those that are behind, so many at a time that each gets a page worth its round trip."""
        while behind:
            largest = max(each.entry_bytes for each in behind[:_SLICE])
            at_once = max(1, min(_SLICE, int(_READ_BYTES / largest / _LEAST_COUNT / 8)))
            part, behind = behind[:at_once], behind[at_once:]
            if not await self._buffer.room(_PATIENCE_S):
                return
            await self._read(part, None)

    async def _ask_quiet(self, followed: list[_Followed], *, wait: bool) -> None:
        """The next slice of all streams; in rounds of _ROUND_S or more where nothing is behind."""
        slices = -(-len(followed) // _SLICE)
        if wait:
            at_rest = self._asked_s - max(each.got_s for each in followed) > _REST_S
            round_s = max(_ROUND_S, len(followed) / (_STREAMS_PER_S_AT_REST if at_rest else _STREAMS_PER_S))
            await asyncio.sleep(max(0.0, self._asked_s + round_s / slices - time.monotonic()))
        self._asked_s = time.monotonic()
        part = [each for each in followed if each.got_s > self._asked_s - _ACTIVE_S][:_SLICE]
        most = len(part) + _SLICE
        while len(part) < most:
            if not self._quiet:
                self._quiet = followed[::-1]
                most = 0
            each = self._quiet.pop()
            if self._followed.get(each.name) is each:
                part.append(each)
        await self._read(list(dict.fromkeys(part)), None)

    async def _read(self, part: Sequence[_Followed], block_ms: int | None) -> None:
        """One XREAD."""
        part = [each for each in part if not each.stream.refused and not each.stream.unsure]
        if not part:
            await asyncio.sleep(0.05)
            return
        count = self._count(part)
        if self._unsampled and block_ms:
            block_ms = _SAMPLE_MS  # what was read is soon to be known to be contained in an offset
        options = [b"COUNT", b"%d" % count, *([b"BLOCK", b"%d" % block_ms] if block_ms else []), b"STREAMS"]
        before = [each.stream.read_to for each in part]
        ids = [format_id(at).encode() for at in before]
        reading = command(b"XREAD", *options, *(each.key for each in part), *ids)
        asks = time.monotonic() - self._heard_s >= _SAMPLE_S
        reply, *info = await self._link.send([reading, _INFO] if asks else [reading], 1 + asks)
        if isinstance(reply, ResponseError):
            if not is_refusal(reply):
                raise reply
            await self._find_refused(part)
            return
        replies = dict(_by_key(reply))
        for each, read_to in zip(part, before, strict=True):
            entries = replies.get(each.name)
            each.behind = entries is not None and len(entries) >= count
            # Doubted meanwhile, or sent back: this is not what follows now.
            going_on = not each.stream.unsure and each.stream.read_to == read_to
            if entries and going_on and self._followed.get(each.name) is each:
                try:
                    self._keep(each, entries, count)
                except Exception as error:  # noqa: BLE001 - whatever a queue holds concerns that queue alone
                    self._failed(each.stream, error)

        for reply in info:
            self._sample(reply)

    def _sample(self, info: Any) -> None:
        """What was read up to now was read while the server was at this offset, or before."""
        self._heard_s = time.monotonic()
        if not isinstance(info, str):
            return
        said = server_of(info)
        self._heard(said)
        for stream in self._unsampled:
            stream.memory.sample(stream.read_to, said.offset)
        self._unsampled.clear()

    def _count(self, part: Sequence[_Followed]) -> int:
        """Entries of each stream: as many as there is room for, were all of them as large as the largest."""
        room = min(_READ_BYTES, max(self._buffer.room_bytes, _READ_BYTES // 16))
        expected = sum(max(each.entry_bytes, _LEAST_ENTRY_BYTES) for each in part)
        return max(_LEAST_COUNT, min(COUNT, int(room / expected)))

    async def _find_refused(self, part: Sequence[_Followed]) -> None:
        """One stream that cannot be read spoils the XREAD of all: each is asked for alone."""
        commands = [
            command(b"XREAD", b"COUNT", b"1", b"STREAMS", each.key, format_id(each.stream.read_to).encode())
            for each in part
        ]
        replies = await self._link.send(commands, len(commands))
        for each, reply in zip(part, replies, strict=True):
            if isinstance(reply, ResponseError):
                if not is_refusal(reply):
                    raise reply
                self._failed(each.stream, reply)

    def _keep(self, followed: _Followed, entries: list[Raw], count: int) -> None:
        stream = followed.stream
        entries = complete(entries, count)
        sizes = [size_bytes(entry) for entry in entries]
        followed.entry_bytes = max(followed.entry_bytes * _FALL, *sizes)
        followed.got_s = self._asked_s
        stream.buffer.extend(entries)
        stream.held.extend(sizes)
        stream.read_to = parse_id(entries[-1][0])
        self._unsampled.add(stream)
        self._buffer.add("entries", sum(sizes))
        if self._early is not None:
            self._early.note(stream, entries)
        self._work.set()


def _by_key(reply: Any) -> list[tuple[str, list[Raw]]]:
    if not reply:
        return []
    return list(reply.items()) if isinstance(reply, dict) else reply


def complete(entries: list[Raw], count: int = COUNT) -> list[Raw]:
    """Without a last `waiting prev=active` or `failed` where COUNT cut the reply there.

    The same script may have written a `stalled` or `retries-exhausted` behind it, which tells a stall from a retry and
    the attempts made: left for the next read, the two come together.
    """
    if len(entries) == count and count > 1:
        fields = fields_of(entries[-1])
        if bullmq.may_be_stall(fields) or bullmq.may_be_exhausted(fields):
            return entries[:-1]
    return entries
