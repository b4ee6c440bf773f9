"""The processes that the demo starts: each in a session of its own, with a log, and ended within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streams.commands.errors import CommandError

POLL_S: Final = 0.05
TAIL_LINES: Final = 12
GRACE_S: Final = 30.0
"""What bridge and worker may take after SIGTERM (contract), with their servers gone; usually a second."""


@dataclass
class Child:
    """A process that was started. `name` is for people; `log` has all it wrote."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    _read: int = field(default=0)

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def new_lines(self) -> list[str]:
        """Whole lines of the log since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            text, newline, _ = log.read().rpartition(b"\n")
        self._read += len(text) + len(newline)
        return text.decode(errors="replace").splitlines()

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(lines) or "(nothing)"

    def failure(self, what: str, remedy: str = "") -> CommandError:
        """An error that shows the end of the log."""
        advice = f"; {remedy}" if remedy else ""
        return CommandError(f"{self.name} {what}{advice}\nits log {self.log} ends with:\n{self.tail()}")

    def require_alive(self) -> None:
        """Raise CommandError where it has ended."""
        if self.ended:
            raise self.failure(f"ended by itself with code {self.process.returncode}", "run: bullmq-streams doctor")

    async def wait(self, at_most_s: float = math.inf) -> bool:
        """Wait for its end; False where it still runs after `at_most_s`."""
        end = time.monotonic() + at_most_s
        while not self.ended and time.monotonic() < end:  # noqa: ASYNC110 - the end of a process sets no event
            await asyncio.sleep(POLL_S)
        return self.ended

    async def stop(self, number: signal.Signals = signal.SIGTERM, grace_s: float = GRACE_S) -> None:
        """The signal, and SIGKILL to its whole session after `grace_s`."""
        if not self.ended:
            self.process.send_signal(number)
        await self.wait(grace_s)
        self.kill()
        await self.wait()

    def kill(self) -> None:
        """SIGKILL to its session, children of its own included. Once it has ended its number may be another's."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Children:
    """Starts processes whose logs stand in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._all: list[Child] = []

    @property
    def have_logs(self) -> bool:
        """Whether any was started."""
        return bool(self._all)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a command in a session of its own: no Ctrl-C of the terminal reaches it. Raises CommandError."""
        path = self.directory / f"{name}.log"
        with path.open("wb") as log:
            try:
                process = subprocess.Popen(  # noqa: S603 - commands of our own, no shell
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise CommandError(f"{command[0]} cannot be started ({error.strerror})") from None
        child = Child(name, process, path)
        self._all.append(child)
        return child

    def python(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """`start` this Python with `-m …`."""
        return self.start(name, (sys.executable, "-m", *arguments), environment)

    async def run(self, child: Child, on_line: Callable[[str], None], interrupt: signal.Signals = signal.SIGINT) -> int:
        """Follow a child to its end; returns its exit code. Cancelled, it is interrupted and waited for."""
        try:
            while not child.ended:
                _pass_on(child, on_line)
                await asyncio.sleep(POLL_S)
        finally:
            await child.stop(interrupt)
        _pass_on(child, on_line)
        return child.process.returncode

    def require_alive(self, *children: Child) -> None:
        """Raise CommandError where one has ended."""
        for child in children:
            child.require_alive()

    def kill(self) -> None:
        """SIGKILL to all: for who cannot wait."""
        for child in self._all:
            child.kill()


def _pass_on(child: Child, on_line: Callable[[str], None]) -> None:
    for line in child.new_lines():
        on_line(line)
