"""Everything that a run needs, started and stopped: brokers, Redis, application, product, recorder, reader."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.faults import cluster
from tests.faults.application import Application, CommandError
from tests.faults.cluster import Cluster
from tests.faults.processes import NAMES, Processes, clean_environment
from tests.faults.proxy import Thread
from tests.faults.redis import Server
from tests.faults.topics import Topics

PARTITIONS: Final = 4
BUFFER_BYTES: Final = 32 << 20
MAX_TEXT_BYTES: Final = 65_536
VERIFY_AFTER_S: Final = 10
WATCH_S: Final = 0.2
HEAL_S: Final = 60.0
APPLIES: Final = 3
"""One of three brokers may not know yet of topics that another has made, and then `apply` says so."""


class Stage:
    """One run's servers and processes. `seed` decides what the application does."""

    def __init__(self, directory: Path, versions: dict[str, Path], seed: int, jobs_per_s: float) -> None:
        self.directory = directory
        self.thread = Thread()
        self.cluster = Cluster(directory / "kafka", self.thread)
        self.redis = Server(directory / "redis", self.thread)
        self.prefix = f"faults{uuid.uuid4().hex[:6]}"
        self.applications = [
            Application(folder, app, self.redis.application.port, seed, jobs_per_s, directory)
            for app, folder in versions.items()
        ]
        self.processes = Processes(self._environment(), directory)
        self.topics = Topics(self.cluster.direct, self.prefix)
        self.refused: dict[str, bytes] = {}
        """Marks in the names of queues that nobody can read, with the key that is wrong."""

    def _environment(self) -> dict[str, str]:
        prefix = "BULLMQ_STREAMS_"
        return {
            **clean_environment(),
            f"{prefix}KAFKA__BOOTSTRAP_SERVERS": self.cluster.bootstrap,
            f"{prefix}KAFKA__TOPIC_PREFIX": self.prefix,
            f"{prefix}KAFKA__PARTITIONS": str(PARTITIONS),
            f"{prefix}KAFKA__REPLICATION_FACTOR": str(cluster.BROKERS),
            f"{prefix}SOURCES__DEFAULT__URL": self.redis.url,
            f"{prefix}SOURCES__DEFAULT__DISCOVER_INTERVAL_S": "1",
            f"{prefix}BRIDGE__BUFFER_BYTES": str(BUFFER_BYTES),
            f"{prefix}WORKER__APP_ID": f"{self.prefix}-worker",
            f"{prefix}WORKER__VERIFY_AFTER_S": str(VERIFY_AFTER_S),
            f"{prefix}LOG__FORMAT": "json",
        }

    @property
    def queues(self) -> list[str]:
        return [queue for application in self.applications for queue in application.queues]

    async def start(self) -> None:
        await asyncio.to_thread(self.redis.start)
        await asyncio.to_thread(self.cluster.start)
        for _ in range(APPLIES):
            made = await asyncio.to_thread(self._command, "topics", "apply")
            if made.returncode == 0:
                break
        assert made.returncode == 0, made.stderr + made.stdout
        await asyncio.gather(*(application.start() for application in self.applications))
        for name in NAMES:
            self.processes.start(name)
        await self.topics.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """The product first, so that it can end well; then all it stands on."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self.topics.stop()
        await asyncio.to_thread(self.processes.stop)

    async def clear(self) -> None:
        """Whatever is left, whatever happened before."""
        for application in self.applications:
            await application.kill()
        for name in list(self.processes.running):
            self.processes.kill(name)
        with contextlib.suppress(Exception):
            await self.topics.stop()
        await asyncio.to_thread(self.redis.stop)
        await asyncio.to_thread(self.cluster.stop)
        self.thread.stop()

    async def everywhere(self, what: str, within_s: float = 60.0) -> None:
        """Tell all applications the same. Raises CommandError."""
        await asyncio.gather(*(application.do(what, within_s) for application in self.applications))

    async def heal(self) -> None:
        """All servers and processes run and reach each other; brokers have all replicas in sync.

        Raises what the recorder could not understand.
        """
        if self._watching.done():
            self._watching.result()
        await asyncio.to_thread(self.cluster.heal)
        await asyncio.to_thread(self.redis.heal)
        await asyncio.to_thread(self.processes.heal)
        end = time.monotonic() + HEAL_S
        while not await cluster.in_sync(self.cluster.direct, self.prefix):
            assert time.monotonic() < end, f"the brokers are not in sync within {HEAL_S:.0f} s"
            await asyncio.sleep(0.5)

    async def rest(self) -> None:
        """The application stops adding and all its jobs have ended, or wait for what will not come."""
        for attempt in range(3):
            try:
                await self.everywhere("rest")
            except CommandError:
                if attempt == 2:
                    raise
            else:
                return

    async def _watch(self) -> None:
        """Record what the streams are, and who has ended."""
        while True:
            await asyncio.to_thread(self.redis.record)
            self.processes.watch()
            await asyncio.sleep(WATCH_S)

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "streams.cli", *arguments],
            env=self.processes.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@asynccontextmanager
async def standing(directory: Path, versions: dict[str, Path], seed: int, jobs_per_s: float) -> AsyncIterator[Stage]:
    """A stage that has started; nothing of it is left afterwards."""
    stage = Stage(directory, versions, seed, jobs_per_s)
    with cluster.quiet():  # each broker that is away would be told of hundreds of times
        try:
            await stage.start()
            yield stage
        finally:
            await stage.clear()
