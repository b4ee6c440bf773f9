"""The application that fills BullMQ: one Node process for each version, told by commands what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
LINE_BYTES: Final = 1 << 26
SUFFIXES: Final = ("", "-files", "-held", "-stuck")


class CommandError(Exception):
    """The application could not do what it was told: its Redis, mostly."""


class Application:
    """One version of BullMQ on queues of its own, named after `app`."""

    def __init__(self, directory: Path, app: str, port: int, seed: int, jobs_per_s: float, logs: Path) -> None:
        self.directory, self.app = directory, app
        self.queues = [f"{app}{suffix}" for suffix in SUFFIXES]
        self.logs: list[dict[str, Any]] = []
        """Each end of a job that the application saw."""
        self.kills = 0
        self._config = {"bullmq": str(directory), "port": port, "app": app, "seed": seed, "jobs_per_s": jobs_per_s}
        self._log = logs / f"application-{app}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._ready = asyncio.Event()

    async def start(self) -> None:
        """Returns once it is connected."""
        config = {**self._config, "seed": self._config["seed"] + self.kills, "first": self.kills * 1_000_000}  # type: ignore[operator]  # two ints
        self._ready.clear()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "node", str(HERE / "workload.js"), json.dumps(config),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=LINE_BYTES,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))
        async with asyncio.timeout(30):
            await self._ready.wait()

    async def do(self, what: str, within_s: float = 60.0, **more: Any) -> dict[str, Any]:
        """Its answer. Raises CommandError."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._asked += 1
        number = self._asked
        self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "do": what, "ms": int(within_s * 1000), **more})
        try:
            self._process.stdin.write(f"{line}\n".encode())
            async with asyncio.timeout(within_s + 5):
                answer = await self._waiting[number]
        except (TimeoutError, OSError) as error:
            raise CommandError(f"{self.app}: {what}: {error!r}") from None
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise CommandError(f"{self.app}: {what}: {answer['error']}")
        return answer

    async def kill(self) -> None:
        """SIGKILL, with whatever it is doing; `start` begins another."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if self._reading is not None:
            await self._reading
        self.kills += 1

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            while line := await process.stdout.readline():
                self._take(json.loads(line))
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result({"error": "the application has ended"})

    def _take(self, said: Mapping[str, Any]) -> None:
        if "log" in said:
            self.logs.append(said["log"])
        elif "ready" in said:
            self._ready.set()
        elif said["id"] in self._waiting and not self._waiting[said["id"]].done():
            self._waiting[said["id"]].set_result(dict(said))


async def dump(directory: Path, port: int, queues: list[str]) -> dict[str, dict[str, Any]]:
    """What BullMQ's own Job says: {queue: {"paused": bool, "jobs": {id: {...}}}}."""
    config = {"bullmq": str(directory), "port": port, "queues": queues}
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "dump.js"), json.dumps(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, dict[str, Any]] = json.loads(out)
    return found
