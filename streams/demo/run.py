"""`demo`: servers, topics, bridge, worker and the sample application, shown live; ends all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
from aiokafka import AIOKafkaConsumer

from streams.clock import wall_ms
from streams.commands import console, errors
from streams.commands.errors import CommandError
from streams.demo import compose, consumer, servers, summary, verdict
from streams.demo.board import Board
from streams.demo.children import Child, Children
from streams.demo.environment import environment
from streams.demo.source import connection, require_redis
from streams.demo.views import FRAME_S, View, view
from streams.settings import ConfigError, Problem, Settings

READY_S: Final = 60.0
FIRST_JOB_S: Final = 60.0
_ASK_S: Final = 0.2
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    """A step."""
    console.line(("· ", "cyan"), (text, ""))


def _say_if_heard(text: str) -> None:
    """At the end: nobody may be there to read it, and the rest must end all the same."""
    with contextlib.suppress(OSError, SystemExit):  # rich leaves by SystemExit where the pipe is closed
        say(text)


async def main(
    settings: Settings, *, seconds: float | None, docker: bool, bootstrap: str | None, redis: str | None
) -> int:
    """Run until Ctrl-C, or for `seconds` from the first job; returns the exit code.

    With `seconds`: 0 only if all was seen that should be. Raises CommandError, ConfigError.
    """
    if docker and (bootstrap or redis):
        raise ConfigError([Problem("--docker", "", "brings its own servers; leave out --bootstrap and --redis")])
    named = bool(bootstrap or redis) or servers.are_named(settings)
    settings = servers.with_flags(settings, bootstrap, redis)
    directory = Path(tempfile.mkdtemp(prefix="bullmq-streams-demo-"))
    _log_to(directory / "demo.log")
    code = 1
    try:
        async with AsyncExitStack() as ends:
            demo = Demo(settings, directory, seconds, ends)
            over = await _interruptible(demo, demo.on_compose() if docker else demo.on_servers(named=named))
        code = demo.conclude() if over else demo.stopped()
    finally:
        if code and demo.children.have_logs:
            _say_if_heard(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


async def _interruptible(demo: Demo, work: Coroutine[None, None, None]) -> bool:
    """Whether the work came to its end; False where a signal ended it. Its exit stack no signal interrupts."""
    task = asyncio.ensure_future(work)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(number, demo.interrupt, task)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def _log_to(file: Path) -> None:
    """The Kafka client's log would spoil the screen."""
    logging.basicConfig(filename=file, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", force=True)


class Demo:
    """One run. `directory` has the logs and the local servers' data; `ends` gets what ends all that is started."""

    def __init__(self, settings: Settings, directory: Path, seconds: float | None, ends: AsyncExitStack) -> None:
        self.directory = directory
        self._ends = ends
        self.children = Children(directory)
        self._settings = settings
        self._seconds = seconds
        self._board = Board()
        self._running: dict[str, Child] = {}
        self._interrupted = False

    def interrupt(self, work: asyncio.Task[None]) -> None:
        """Ctrl-C: end in order; a second one does not wait for anybody."""
        if self._interrupted:
            self.children.kill()
        self._interrupted = True
        work.cancel()

    async def on_servers(self, *, named: bool) -> None:
        """On the servers of the settings, or on local ones."""
        servers.require_packages()
        self._warn()
        settings = self._settings
        if not named:
            say("no servers named: a Kafka and a Valkey from PyPI, in a folder of their own")
            settings = await servers.start_local(settings, self.children, self._ends, say, _say_if_heard)
        settings = servers.for_demo(settings)
        where = connection(settings)
        say(f"Kafka {settings.kafka.bootstrap_servers}, Redis {where.address}")
        await require_redis(where)
        await servers.require_unused(settings)
        await servers.create_topics(settings, say)
        await self._start("bridge", settings, settings.bridge.http_port)
        await self._start("worker", settings, settings.worker.http_port)
        client = await self._consumer(settings, from_beginning=False)
        self._start_application(settings)
        await self._watch(client, settings)

    async def on_compose(self) -> None:
        """In containers; only the view runs here."""
        self._warn()
        settings = await compose.up(self.children, self._ends, say, _say_if_heard)
        client = await self._consumer(settings, from_beginning=True)
        await self._watch(client, settings)

    def stopped(self) -> int:
        """After Ctrl-C: a summary of what there was; returns the exit code."""
        if self._board.first_job_ms is not None:
            summary.print_summary(self._board)
        return 0

    def conclude(self) -> int:
        """After the time is over: summary and verdict; returns the exit code."""
        summary.print_summary(self._board)
        return summary.print_verdict(self._board)

    def _warn(self) -> None:
        late = verdict.too_late(self._seconds) if self._seconds is not None else []
        if late:
            say(f"{self._seconds:g} s are too short to see for sure: {', '.join(late)}")

    async def _start(self, name: str, settings: Settings, port: int) -> None:
        """The bridge or the worker; returns when it is ready."""
        child = self._child(name, settings, "streams.cli", name)
        await _ready(child, port)
        say(f"{name} is ready (process {child.process.pid}, metrics on http://127.0.0.1:{port}/metrics)")

    def _start_application(self, settings: Settings) -> None:
        child = self._child("application", settings, "streams.demo.application")
        say(f"sample application on BullMQ started (process {child.process.pid}), its queues begin with demo-")

    def _child(self, name: str, settings: Settings, *arguments: str) -> Child:
        child = self.children.python(name, *arguments, environment=environment(settings))
        self._running[name] = child

        async def stop() -> None:
            _say_if_heard(f"stopping the {name}")
            await child.stop()

        self._ends.push_async_callback(stop)
        return child

    async def _consumer(self, settings: Settings, *, from_beginning: bool) -> AIOKafkaConsumer:
        with errors.kafka(settings):
            return await self._ends.enter_async_context(consumer.consumer(settings, from_beginning=from_beginning))

    async def _watch(self, client: AIOKafkaConsumer, settings: Settings) -> None:
        """Show what comes until the time is over."""
        reading = asyncio.ensure_future(consumer.read(client, settings, self._board))
        try:
            with view(f"Kafka {settings.kafka.bootstrap_servers}", self._seconds) as shown:
                await self._until_over(shown, reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _until_over(self, shown: View, reading: asyncio.Task[None]) -> None:
        started_ms = wall_ms()
        while not self._is_over(started_ms):
            self.children.require_alive(*self._running.values())
            if reading.done():
                reading.result()
            if "application" in self._running:
                self._board.notes.extend(self._running["application"].new_lines())
            shown.show(self._board)
            await asyncio.sleep(FRAME_S)

    def _is_over(self, started_ms: int) -> bool:
        first_ms = self._board.first_job_ms
        if first_ms is None:
            if wall_ms() - started_ms > FIRST_JOB_S * 1000:
                raise CommandError(
                    f"no job was seen within {FIRST_JOB_S:.0f} s; the logs are in {self.directory}",
                    "run: bullmq-streams doctor",
                )
            return False
        return self._seconds is not None and wall_ms() - first_ms >= self._seconds * 1000


async def _ready(child: Child, port: int) -> None:
    """Wait until a process answers `/readyz` with 200. Raises CommandError."""
    missing = "its HTTP server"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while True:
                    child.require_alive()
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                            if response.ok:
                                return
                            missing = ", ".join((await response.json())["missing"])
                    await asyncio.sleep(_ASK_S)
    raise child.failure(f"is not ready after {READY_S:.0f} s (missing: {missing})", "run: bullmq-streams doctor")
