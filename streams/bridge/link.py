"""A connection to Redis on which many commands are written at once: redis-py connects, this talks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams.bridge.bullmq import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection

_MULTI = command(b"MULTI")
_EXEC = command(b"EXEC")

Away = (OSError, RedisError, TimeoutError)
"""What says that Redis cannot be used right now. ResponseError is one of them: where a command concerns one queue alone
and may be refused for that queue, `is_refusal` tells the two apart."""
Late = (TimeoutError, RedisTimeoutError)
"""Those of them that say that no answer came in time."""
Refused = ResponseError
"""Redis is there and refuses a command: the type of a key, a missing right."""

_NOT_NOW = (
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
    "UNKILLABLE",
)
PROGRESS_S = 5.0
_REPLIES_A_CHECK = 256


def is_refusal(error: BaseException) -> bool:
    """Whether Redis refuses this command, and would go on refusing it, while others may well be answered."""
    return isinstance(error, ResponseError) and not str(error).startswith(_NOT_NOW)


class Link:
    """One connection. Replies are text (`surrogateescape`), numbers, lists, dicts; errors within stay values."""

    def __init__(self, url: str, *, timeout_s: float = PROGRESS_S) -> None:
        """`url` as redis-py takes it; where no reply comes for `timeout_s` the connection ends."""
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
        results = []
        for result in await self.transactions(groups):
            if isinstance(result, Exception):
                raise result
            results.append(result)
        return results

    async def transactions(
        self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None
    ) -> list[list[Any] | ResponseError]:
        """As `multi`, but a group that was refused (`is_refusal`) is its error. Raises one of `Away`."""
        packed: list[bytes] = []
        for group in groups:
            packed.append(_MULTI)
            packed.extend(group)
            packed.append(_EXEC)
        replies = await self.send(packed, sum(map(len, groups)) + 2 * len(groups), timeout_s=timeout_s)
        results: list[list[Any] | ResponseError] = []
        at = 0
        for group in groups:
            at += len(group) + 2
            result = replies[at - 1]
            if isinstance(result, ResponseError):
                first = next(r for r in replies[at - len(group) - 1 : at] if isinstance(r, ResponseError))
                if not is_refusal(first):
                    raise first
                result = first
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
                return await self._exchange(connection, packed, replies, timeout_s or self._timeout_s)
            except BaseException:
                await self.close()  # the rest of the replies would be taken for those of the next call
                raise

    async def _exchange(
        self, connection: AbstractConnection, packed: list[bytes], replies: int, timeout_s: float
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        received: list[Any] = []
        async with asyncio.timeout(timeout_s) as deadline:
            await connection.send_packed_command([b"".join(packed)], check_health=False)
            while len(received) < replies:
                deadline.reschedule(loop.time() + timeout_s)
                for _ in range(min(_REPLIES_A_CHECK, replies - len(received))):
                    received.append(await self._reply(connection))  # noqa: PERF401 - a slice at a time, then the clock
        return received

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response()
        except ResponseError as error:
            return error
