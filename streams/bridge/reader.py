"""Read the event streams of one source as fast as they are written, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq
from streams.bridge.ids import format_id, parse_id
from streams.bridge.stream import Raw, Stream, fields_of, size_bytes

if TYPE_CHECKING:
    from streams.bridge.buffer import Buffer
    from streams.bridge.early import Early
    from streams.bridge.link import Link

COUNT = 1000
_BLOCK_MS = 250


class Reader:
    """XREAD over all streams of a source into their buffers."""

    def __init__(self, link: Link, buffer: Buffer, work: asyncio.Event, early: Early) -> None:
        """`work` is set whenever entries came; `early` is told of them."""
        self._early = early
        self._link = link
        self._buffer = buffer
        self._work = work
        self.streams: dict[str, Stream] = {}

    def add(self, stream: Stream) -> None:
        """Read this one too, from its `read_to` on."""
        self.streams[stream.keys.events.decode()] = stream

    async def step(self) -> bool:
        """One XREAD; False where there is no stream to read yet. Raises one of link.Away."""
        await self._buffer.room()
        streams = list(self.streams.values())
        if not streams:
            await asyncio.sleep(0.05)
            return False
        ids = [format_id(stream.read_to).encode() for stream in streams]
        keys = [stream.keys.events for stream in streams]
        options = (b"COUNT", b"%d" % COUNT, b"BLOCK", b"%d" % _BLOCK_MS, b"STREAMS")
        reply = await self._link.call(b"XREAD", *options, *keys, *ids)
        for key, entries in _by_key(reply):
            self._keep(self.streams[key], entries)
        return True

    def _keep(self, stream: Stream, entries: list[Raw]) -> None:
        entries = complete(entries)
        if not entries:
            return
        size = sum(map(size_bytes, entries))
        stream.buffer.extend(entries)
        stream.buffered_bytes += size
        stream.read_to = parse_id(entries[-1][0])
        self._buffer.add(size)
        self._early.note(stream, entries)
        self._work.set()


def _by_key(reply: Any) -> list[tuple[str, list[Raw]]]:
    if not reply:
        return []
    return list(reply.items()) if isinstance(reply, dict) else reply


def complete(entries: list[Raw], count: int = COUNT) -> list[Raw]:
    """Without a last `waiting prev=active` where COUNT cut the reply there.

    The same script may have written a `stalled` behind it, which tells a stall from a retry: left for the
    next read, the two come together.
    """
    if len(entries) == count and count > 1 and bullmq.may_be_stall(fields_of(entries[-1])):
        return entries[:-1]
    return entries
