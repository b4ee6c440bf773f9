"""Bridge and workers of a run: killed, frozen, ended and started again, and watched for ending by themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streams.local import process

NAMES: Final = ("bridge", "worker-1", "worker-2")
WORKERS: Final = ("worker-1", "worker-2")
STOP_S: Final = 35.0
TAIL_LINES: Final = 12
READY: Final = 200
PORT_TAKEN: Final = "is in use; set"


@dataclass
class Running:
    """One process of the product. `number` tells its log from those of its earlier lives."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    shift_ms: int
    expected: bool = False


@dataclass
class Processes:
    """All of them, by name. `environment` has the settings; `ports` are those of /metrics, new ones at each start."""

    environment: dict[str, str]
    logs: Path
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    """One line for each that ended by itself, or badly when it was told to."""
    peaks: dict[str, int] = field(default_factory=dict)
    """Most memory that any life of the process had, in bytes."""
    starts: int = 0

    def start(self, name: str, shift_ms: int = 0) -> None:
        """`shift_ms`: how much its wall clock is ahead."""
        self.starts += 1
        log = self.logs / f"{name}-{self.starts}.log"
        command = name.partition("-")[0]
        with process._listen_anywhere() as free:
            self.ports[name] = free.getsockname()[1]
        environment = {
            **self.environment,
            f"BULLMQ_STREAMS_{command.upper()}__HTTP_PORT": str(self.ports[name]),
            "FAULTS_SHIFT_MS": str(shift_ms),
        }
        with log.open("wb") as out:
            started = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.shifted", command],
                env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.running[name] = Running(name, started, log, shift_ms)

    def kill(self, name: str) -> None:
        """SIGKILL; another is started by `start`."""
        self._end(name, signal.SIGKILL)

    def end(self, name: str) -> None:
        """SIGTERM, and what comes of it: anything but 0 within 30 s is noted. Blocks."""
        self._end(name, signal.SIGTERM)

    def freeze(self, name: str) -> None:
        self.running[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        running = self.running.get(name)
        if running is not None and running.process.poll() is None:
            running.process.send_signal(signal.SIGCONT)

    def watch(self) -> None:
        """Note who has ended by itself, and start it again, as a supervisor would."""
        for name, running in list(self.running.items()):
            if running.expected:
                continue
            self._remember(running)
            code = running.process.poll()
            if code is None:
                continue
            last = tail(running.log)
            if PORT_TAKEN not in last:  # by another program on this machine, meanwhile
                self.ended.append(f"{name} ended by itself with {code}; its log {running.log} ends:\n{last}")
            self.start(name)

    def heal(self) -> None:
        """All run, none frozen, all by the right clock."""
        for name in NAMES:
            self.thaw(name)
            running = self.running.get(name)
            if running is not None and running.process.poll() is None and running.shift_ms:
                self.end(name)
            if name not in self.running:
                self.start(name)
        self.watch()

    def stop(self) -> None:
        """End all, noting who does not end well. One after the other: to tell one twice would end it at once."""
        for name in list(self.running):
            self._end(name, signal.SIGTERM)

    def metrics(self, name: str) -> str:
        """What it says at /metrics; empty where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def is_ready(self, name: str) -> bool:
        """Whether it says so at /readyz."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=5) as answer:
                return bool(answer.status == READY)
        except OSError:
            return False

    def _end(self, name: str, how: signal.Signals) -> None:
        running = self.running.pop(name)
        running.expected = True
        self._remember(running)
        code = running.process.poll()
        running.process.send_signal(signal.SIGCONT)
        running.process.send_signal(how)
        try:
            running.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
            self.ended.append(f"{name} did not end within {STOP_S:.0f} s of SIGTERM:\n{tail(running.log)}")
            return
        if code is None:
            code = running.process.returncode
        # Before it has a handler, and thus anything to say, a SIGTERM ends it as the system does.
        silent = running.log.stat().st_size == 0
        if code not in (0, -how) or (code == -how and how is signal.SIGTERM and not silent):
            self.ended.append(
                f"{name} ended with {code} on {how.name}; its log {running.log} ends:\n{tail(running.log)}"
            )

    def _remember(self, running: Running) -> None:
        peak = peak_bytes(running.process.pid)
        self.peaks[running.name] = max(self.peaks.get(running.name, 0), peak)


def peak_bytes(pid: int) -> int:
    """The most memory that a process had, 0 for one that is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def clean_environment() -> dict[str, Any]:
    """This process' environment without settings of the product."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BULLMQ_STREAMS_")}
