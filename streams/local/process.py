"""One server process in a folder of its own: start, stop, kill, freeze, and the tail of its log.

The process outlives the Python process that started it, so its identity lives on disk: a pid file, believed only
while that process still works in this folder. A stale file whose number was given to another program ends nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from streams.local.errors import LocalStackError

HOST: Final = "127.0.0.1"
_POLL_S: Final = 0.02
_PORTS: Final = "ports.json"
_PROC: Final = Path("/proc")
_DEAD: Final = ("Z", "X")  # a zombie waits for nobody but its parent
_KILL_S: Final = 10
_OWN_PORTS: Final = range(20_000, 32_000)
_TAIL_BYTES: Final = 2000
# Children of this very process stay zombies until asked about; they are kept here, with their folder, to be asked.
_children: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}


class Process:
    """The server `name` of the folder `directory`. Nothing is started by creating this object."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory.resolve()
        self.log = self.directory / f"{name}.log"
        self._pid_file = self.directory / f"{name}.pid"

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Run `command` in the folder, in a session of its own: no Ctrl-C of the terminal reaches it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 -- the command is ours, no shell is involved
                command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _children[child.pid] = child, self.directory
        self._pid_file.write_text(str(child.pid))

    @property
    def pid(self) -> int | None:
        """The number of the running server, None where it does not run."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if _works_in(pid, self.directory) else None

    def require_alive(self) -> None:
        """Raise LocalStackError with the tail of the log where the server has ended."""
        if self.pid is None:
            raise LocalStackError(f"{self.name} ended by itself; its log {self.log} ends with:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            text = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return text.strip() or "(nothing)"

    def stop(self, grace_s: float = 15) -> None:
        """SIGTERM, and SIGKILL after `grace_s`; returns when the server is gone. Nothing to do is fine."""
        pid = self.pid
        self._signal(signal.SIGCONT)  # a frozen process would never see the SIGTERM
        self._signal(signal.SIGTERM)
        if pid is not None and not _gone_within(pid, grace_s):
            self.kill()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL; returns when the server is gone."""
        pid = self.pid
        self._signal(signal.SIGKILL)
        if pid is not None and not _gone_within(pid, _KILL_S):
            raise LocalStackError(f"{self.name} (process {pid}) does not die; end it by hand: kill -9 {pid}")

    def freeze(self) -> None:
        """SIGSTOP: the server keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: the end of `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _works_in(pid: int, directory: Path) -> bool:
    if pid in _children:
        return _children[pid][1] == directory and not _gone(pid)
    return _working_directory(pid) == directory


def _gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not _gone(pid):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def _gone(pid: int) -> bool:
    """Whether the process has let go of everything, its ports too. Its working directory goes a little earlier."""
    if pid in _children:
        if _children[pid][0].poll() is None:
            return False
        del _children[pid]
        return True
    try:
        if not _PROC.exists():
            os.kill(pid, 0)
            return False
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in _DEAD
    except OSError:
        return True


def _working_directory(pid: int) -> Path | None:
    """The working directory of a live process; None for a dead one, a zombie, and somebody else's."""
    if _PROC.exists():
        try:
            return (_PROC / str(pid) / "cwd").resolve(strict=True)
        except OSError:
            return None
    lsof = shutil.which("lsof", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if lsof is None:
        raise LocalStackError("cannot tell whose process is whose without /proc or lsof; install lsof")
    found = subprocess.run(  # noqa: S603 -- a fixed program and a number
        [lsof, "-a", "-p", str(pid), "-d", "cwd", "-Fn"], capture_output=True, text=True, check=False
    )
    names = [line[1:] for line in found.stdout.splitlines() if line.startswith("n")]
    return Path(names[0]).resolve() if names else None


def ports(directory: Path, wanted: Mapping[str, int]) -> dict[str, int]:
    """The ports of the server in `directory`: those wanted (0 = any), else those it had before, else free ones.

    Raises LocalStackError where one is taken: the caller starts nothing then.
    """
    before = known_ports(directory)
    chosen = {name: port or before.get(name, 0) for name, port in wanted.items()}
    sockets = [_listen(port) if port else _listen_anywhere() for port in chosen.values()]
    chosen = {name: sock.getsockname()[1] for name, sock in zip(chosen, sockets, strict=True)}
    for sock in sockets:
        sock.close()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _PORTS).write_text(json.dumps(chosen))
    return chosen


def known_ports(directory: Path) -> dict[str, int]:
    """The ports that the server in `directory` has or had last; empty before its first start."""
    file = directory / _PORTS
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise LocalStackError(
            f"port {port} cannot be used ({os.strerror(error.errno or 0)}): "
            "end the program that has it, or choose another port"
        ) from None


def _listen_anywhere() -> socket.socket:
    """Below the range of outgoing connections: one of those could take the port while its server is down, and a client
    that knocks at such a port in vain can even end up connected to itself.
    """
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        with contextlib.suppress(OSError):
            return socket.create_server((HOST, port))
    raise LocalStackError("no free port between 20000 and 32000; end what uses them")
