"""The bound on what the bridge holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from streams.bridge.stream import Stream

What = Literal["entries", "hashes", "records"]
WHATS: Final[tuple[What, ...]] = ("entries", "hashes", "records")


class Buffer:
    """Bytes read and not yet on Kafka, of all streams of all sources together: whatever is added is removed again."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is where readers begin to wait."""
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.held: dict[What, int] = dict.fromkeys(WHATS, 0)
        self._room = asyncio.Event()
        self._room.set()

    def add(self, what: What, size_bytes: int) -> None:
        """Bytes came in."""
        self.held[what] += size_bytes
        self.size_bytes += size_bytes
        if self.size_bytes >= self.limit_bytes:
            self._room.clear()

    def remove(self, what: What, size_bytes: int) -> None:
        """They are held no more."""
        self.held[what] -= size_bytes
        self.size_bytes -= size_bytes
        if self.size_bytes < self.limit_bytes:
            self._room.set()

    def drop(self, stream: Stream) -> None:
        """Throw away all that was read of a stream and not handed on."""
        self.remove("entries", sum(stream.held))
        self.remove("hashes", sum(known.size_bytes for known in stream.early.values()))
        stream.buffer.clear()
        stream.held.clear()
        stream.early.clear()

    @property
    def room_bytes(self) -> int:
        """How much more may be read."""
        return max(self.limit_bytes - self.size_bytes, 0)

    async def room(self, patience_s: float) -> bool:
        """Return once there is room, or False after so long."""
        try:
            async with asyncio.timeout(patience_s):
                await self._room.wait()
        except TimeoutError:
            return False
        return True
