"""A connection to Redis on which many commands are written at once: redis-py connects, this talks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams.bridge.bullmq import command
from streams.bridge.history import Server, server_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

_MULTI = command(b"MULTI")
_EXEC = command(b"EXEC")
_WHO = (command(b"INFO", b"server"), command(b"INFO", b"replication"), command(b"ROLE"))

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


def is_refusal(error: BaseException) -> bool:
    """Whether Redis refuses this command, and would go on refusing it, while others may well be answered."""
    return isinstance(error, ResponseError) and not str(error).startswith(_NOT_NOW)


class Link:
    """One connection. Replies are text (`surrogateescape`), numbers, lists, dicts; errors within stay values."""

    def __init__(
        self,
        url: str,
        connected: Callable[[Link, Server], None] = lambda _link, _server: None,
        *,
        timeout_s: float = PROGRESS_S,
    ) -> None:
        """`url` as redis-py takes it; where no reply comes for `timeout_s` the connection ends.

        `connected` is told whom a new connection has got, and may raise OSError.
        """
        self._pool = ConnectionPool.from_url(
            url,
            protocol=3,
            decode_responses=True,
            encoding_errors="surrogateescape",
            socket_timeout=None,
            socket_connect_timeout=5,
        )
        self._connection: AbstractConnection | None = None
        self._buffered: Callable[[], Any] | None = None
        self._none: Any = None
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._connected = connected
        self._outdated = False

    async def connect(self) -> None:
        """Open the connection. Raises one of `Away`."""
        await self.close()
        self._outdated = False
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
            *infos, role = await self._exchange(connection, list(_WHO), len(_WHO), self._timeout_s)
            self._connected(self, server_of(*infos, role=role))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        self._buffered, self._none = _buffered(connection)

    def renew(self) -> None:
        """Connect anew before the next command."""
        self._outdated = True

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
            if self._connection is None or self._outdated:
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
                reply = self._none if self._buffered is None else self._buffered()
                if reply is self._none:
                    deadline.reschedule(loop.time() + timeout_s)
                    reply = await self._reply(connection)
                elif isinstance(reply, RedisConnectionError):  # the server is loading, or has no room for us
                    raise reply
                received.append(reply)
        return received

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response()
        except ResponseError as error:
            return error


def _buffered(connection: AbstractConnection) -> tuple[Callable[[], Any] | None, Any]:
    """What gives the next reply that has been received already, and what it gives where there is none.

    redis-py takes seven calls for each reply, and a turn has thousands that came in one piece: a tenth of the bridge's
    CPU. Where its parser is another one than hiredis', there is no such thing (None).
    """
    reader = getattr(connection._parser, "_reader", None)  # noqa: SLF001 - redis-py offers no other way to them
    gets: Callable[[], Any] | None = getattr(reader, "gets", None)
    return (None, None) if gets is None else (gets, gets())
