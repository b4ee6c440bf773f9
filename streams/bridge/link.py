"""A connection to Redis on which many commands are written at once: redis-py connects, this talks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from streams.bridge.bullmq import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection

_MULTI = command(b"MULTI")
_EXEC = command(b"EXEC")

Away = (OSError, RedisError, TimeoutError)
"""What says that Redis cannot be used right now."""


class Link:
    """One connection. Replies are text (`surrogateescape`), numbers, lists, dicts; errors within stay values."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """`url` as redis-py takes it; a call not answered within `timeout_s` ends the connection."""
        self._pool = ConnectionPool.from_url(
            url,
            protocol=3,
            decode_responses=True,
            encoding_errors="surrogateescape",
            socket_timeout=None,
            socket_connect_timeout=5,
        )
        self._connection: AbstractConnection | None = None
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()

    async def connect(self) -> None:
        """Open the connection. Raises one of `Away`."""
        await self.close()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        async with asyncio.timeout(self._timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
        self._connection = connection

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def call(self, *parts: bytes, timeout_s: float | None = None) -> Any:
        """One command. Raises ResponseError, or one of `Away`."""
        replies = await self.send([command(*parts)], 1, timeout_s=timeout_s)
        if isinstance(replies[0], Exception):
            raise replies[0]
        return replies[0]

    async def multi(self, groups: Sequence[Sequence[bytes]]) -> list[list[Any]]:
        """Each group as one MULTI … EXEC, all in one round trip; raises ResponseError where one was refused."""
        packed: list[bytes] = []
        for group in groups:
            packed.append(_MULTI)
            packed.extend(group)
            packed.append(_EXEC)
        replies = await self.send(packed, len(packed))
        results, at = [], 0
        for group in groups:
            at += len(group) + 2
            result = replies[at - 1]
            if isinstance(result, Exception):
                refused = next((r for r in replies[at - len(group) - 1 : at] if isinstance(r, Exception)), result)
                raise refused
            results.append(result)
        return results

    async def send(self, packed: list[bytes], replies: int, *, timeout_s: float | None = None) -> list[Any]:
        """Write commands that are already packed, return so many replies; errors are returned as values."""
        async with self._lock:
            if self._connection is None:
                await self.connect()
            connection = self._connection
            assert connection is not None  # noqa: S101 - connect() has set it
            try:
                async with asyncio.timeout(timeout_s or self._timeout_s):
                    await connection.send_packed_command([b"".join(packed)], check_health=False)
                    return [await self._reply(connection) for _ in range(replies)]
            except BaseException:
                await self.close()  # the rest of the replies would be taken for those of the next call
                raise

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response()
        except ResponseError as error:
            return error
