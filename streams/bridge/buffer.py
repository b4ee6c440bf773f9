"""The bound on what the bridge has read and not yet written."""

from __future__ import annotations

import asyncio


class Buffer:
    """Bytes read and not yet on Kafka, of all streams of all sources together."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is where readers begin to wait."""
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def add(self, size_bytes: int) -> None:
        """Bytes came in."""
        self.size_bytes += size_bytes
        if self.size_bytes >= self.limit_bytes:
            self._room.clear()

    def remove(self, size_bytes: int) -> None:
        """Bytes are on Kafka."""
        self.size_bytes -= size_bytes
        if self.size_bytes < self.limit_bytes:
            self._room.set()

    async def room(self) -> None:
        """Return once there is room."""
        await self._room.wait()
