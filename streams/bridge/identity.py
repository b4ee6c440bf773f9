"""Which server a source is read from, as each of its connections finds it.

A connection may be open for days to a server that has long become another's replica, and an address may name another
server at each connect. So each connection asks whom it has got, and all of a source are to have got the same.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from streams.bridge.history import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.bridge.link import Link
    from streams.bridge.outage import Outage

_STEADY_S: Final = 1.0


class ReplicaError(OSError):
    """The server follows a master: it lags, and a lock that was renewed looks gone there."""


class Identity:
    """Of one source."""

    def __init__(self, *, allow_replica: bool, changed: Callable[[], None], renamed: Callable[[Server], None]) -> None:
        """`changed` is called where nothing read before is known to be this server's past, `renamed` where it is, and
        the server's replication has another id since a first replica follows it.
        """
        self._renamed = renamed
        self._allow_replica = allow_replica
        self._changed = changed
        self._changed_s = -_STEADY_S
        self.server = Server()
        self.links: list[Link] = []

    def connected(self, link: Link, server: Server, *, reads: bool) -> None:
        """A connection was opened; `reads` whether entries are read over it. Raises OSError where it is not to be used.

        Where another server answers than before, all other connections are renewed.
        """
        self._check_role(server)
        before, self.server = self.server, server
        if before.run_id != server.run_id or not server.goes_on_from(before):
            now_s = time.monotonic()
            steady = now_s - self._changed_s >= _STEADY_S
            self._changed_s = now_s
            self._renew(but=link)
            self._changed()
            if not steady:
                raise ConnectionError("connections to this address reach different servers")
        elif reads:
            self._changed()

    def heard(self, server: Server) -> None:
        """What the server said over a connection that is open. Raises ReplicaError where it became a replica."""
        before, self.server = self.server, replace(server, run_id=self.server.run_id)
        if server.is_replica and not self._allow_replica:
            self._renew()
            self._changed()
        self._check_role(server)
        if not server.goes_on_from(before):
            self._changed()
        elif server.replid != before.replid:
            self._renamed(self.server)

    def _renew(self, but: Link | None = None) -> None:
        for link in self.links:
            if link is not but:
                link.renew()

    def _check_role(self, server: Server) -> None:
        if server.is_replica and not self._allow_replica:
            raise ReplicaError("this server is a replica (with allow_replica the source is read from it all the same)")


class Reach:
    """Whether this Redis can be used: away, or there and a replica."""

    def __init__(self, outage: Outage, name: str) -> None:
        """`name` of the source; empty where it is the only one."""
        self._outage = outage
        self._redis, self._replica = (f"{what} ({name})" if name else what for what in ("redis", "replica"))
        outage.expect(self._redis)

    async def wait(self, error: Exception, who: str) -> None:
        """It cannot be used by `who`: sleep before the next try."""
        if isinstance(error, ReplicaError):
            self._outage.over(self._redis, who=who)
            await self._outage.wait(self._replica, error, who)
        else:
            await self._outage.wait(self._redis, error, who)

    def over(self, who: str) -> None:
        """It has answered `who`."""
        self._outage.over(self._redis, self._replica, who=who)
