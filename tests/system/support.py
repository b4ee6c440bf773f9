"""A bridge and workers as processes of their own, as a user runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

NODE_DIR = Path(__file__).parent / "node"


class Line:
    """The processes of one test: their settings are environment variables, their output goes to files."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, logs: Path, **settings: str) -> None:
        self.bootstrap, self.redis_url, self.prefix, self.logs = bootstrap, redis_url, prefix, logs
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BULLMQ_STREAMS_")},
            "BULLMQ_STREAMS_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": prefix,
            "BULLMQ_STREAMS_SOURCES__DEFAULT__URL": redis_url,
            "BULLMQ_STREAMS_SOURCES__DEFAULT__DISCOVER_INTERVAL_S": "1",
            "BULLMQ_STREAMS_BRIDGE__HTTP_PORT": "0",
            "BULLMQ_STREAMS_WORKER__HTTP_PORT": "0",
            "BULLMQ_STREAMS_WORKER__APP_ID": f"{prefix}-worker",
            "BULLMQ_STREAMS_LOG__FORMAT": "json",
            **settings,
        }
        self.processes: list[subprocess.Popen[Any]] = []

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """`bridge` or `worker`; ended by `stop_all` at the latest."""
        log = (self.logs / f"{command}-{len(list(self.logs.glob('*.log')))}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", command], env=self.env, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """As an operator ends it."""
        self.processes.remove(process)
        process.terminate()
        process.wait(35)

    def stop_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the product, run to its end."""
        return subprocess.run(
            [sys.executable, "-m", "streams.cli", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log_text(self) -> str:
        """The last lines of every process, for a failed test."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.logs.glob("*.log"))
        )


async def until(check: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
    """The first true answer of `check`; AssertionError with its last answer's words after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        answer = await check()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.2)


def node(script: str, **config: Any) -> subprocess.Popen[str]:
    """A script of tests/system/node; prints JSON lines."""
    return subprocess.Popen(
        ["node", str(NODE_DIR / script), json.dumps(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def address_of(redis_url: str) -> dict[str, int]:
    """Port and database, as the scripts take them."""
    port, _, database = redis_url.rsplit(":", 1)[1].partition("/")
    return {"port": int(port), "db": int(database or 0)}
