"""`demo`: servers, topics, bridge, worker and the sample application, shown live; ends all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
from aiokafka import AIOKafkaConsumer

from streams.commands import console, errors
from streams.commands.errors import CommandError
from streams.demo import compose, consumer, servers, summary, verdict
from streams.demo.board import Board
from streams.demo.children import Child, Children
from streams.demo.environment import environment
from streams.demo.source import connection
from streams.demo.views import FRAME_S, View, now_ms, view
from streams.settings import ConfigError, Problem, Settings
from streams.settings.url import masked

READY_S: Final = 60.0
FIRST_JOB_S: Final = 60.0
_ASK_S: Final = 0.2
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    """A step."""
    console.line(("· ", "cyan"), (text, ""))


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
    demo = Demo(settings, directory, seconds)
    work = asyncio.ensure_future(demo.on_compose() if docker else demo.on_servers(named=named))
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, demo.interrupt, work)
    return await _end_of(work, demo)


async def _end_of(work: asyncio.Task[int], demo: Demo) -> int:
    code = 1
    try:
        code = await work
    except asyncio.CancelledError:
        code = 0
    finally:
        demo.children.kill()  # nothing is left but where a stop was cut short
        if code:
            say(f"logs: {demo.directory}")
        else:
            shutil.rmtree(demo.directory, ignore_errors=True)
    return code


def _log_to(file: Path) -> None:
    """The Kafka client's log would spoil the screen."""
    logging.basicConfig(filename=file, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", force=True)


class Demo:
    """One run. `directory` has the logs and the local servers' data."""

    def __init__(self, settings: Settings, directory: Path, seconds: float | None) -> None:
        self.directory = directory
        self.children = Children(directory)
        self._settings = settings
        self._seconds = seconds
        self._board = Board()
        self._running: dict[str, Child] = {}
        self._interrupted = False

    def interrupt(self, work: asyncio.Task[int]) -> None:
        """Ctrl-C: end in order; a second one does not wait for anybody."""
        if self._interrupted:
            self.children.kill()
        else:
            self._interrupted = True
            work.cancel()

    async def on_servers(self, *, named: bool) -> int:
        """On the servers of the settings, or on local ones."""
        servers.require_packages()
        self._warn()
        async with AsyncExitStack() as stack:
            settings = self._settings
            if not named:
                say("no servers named: a Kafka and a Valkey from PyPI, in a folder of their own")
                settings = await stack.enter_async_context(servers.local(settings, self.children, say))
            settings = servers.for_demo(settings)
            say(f"Kafka {settings.kafka.bootstrap_servers}, Redis {_redis(settings)}")
            await servers.require_unused(settings)
            await servers.create_topics(settings, say)
            await stack.enter_async_context(self._process("bridge", settings, settings.bridge.http_port))
            await stack.enter_async_context(self._process("worker", settings, settings.worker.http_port))
            with errors.kafka(settings):
                client = await stack.enter_async_context(consumer.consumer(settings, from_beginning=False))
            await stack.enter_async_context(self._application(settings))
            await self._watch(client, settings)
        return self._judge()

    async def on_compose(self) -> int:
        """In containers; only the view runs here."""
        self._warn()
        async with AsyncExitStack() as stack:
            settings = await stack.enter_async_context(compose.project(self.children, say))
            with errors.kafka(settings):
                client = await stack.enter_async_context(consumer.consumer(settings, from_beginning=True))
            await self._watch(client, settings)
        return self._judge()

    def _warn(self) -> None:
        late = verdict.too_late(self._seconds) if self._seconds is not None else []
        if late:
            say(f"{self._seconds:g} s are too short to see for sure: {', '.join(late)}")

    def _judge(self) -> int:
        return summary.print_verdict(self._board)

    @asynccontextmanager
    async def _process(self, name: str, settings: Settings, port: int) -> AsyncIterator[None]:
        """The bridge or the worker, ready; ended at the end."""
        child = self.children.python(name, "streams.cli", name, environment=environment(settings))
        async with self._ended(name, child):
            await _ready(child, port)
            say(f"{name} is ready (process {child.process.pid}, metrics on http://127.0.0.1:{port}/metrics)")
            yield

    @asynccontextmanager
    async def _application(self, settings: Settings) -> AsyncIterator[None]:
        child = self.children.python("application", "streams.demo.application", environment=environment(settings))
        async with self._ended("application", child):
            say(f"sample application on BullMQ started (process {child.process.pid}), its queues begin with demo-")
            yield

    @asynccontextmanager
    async def _ended(self, name: str, child: Child) -> AsyncIterator[None]:
        self._running[name] = child
        try:
            yield
        finally:
            del self._running[name]
            say(f"stopping the {name}")
            await child.stop()

    async def _watch(self, client: AIOKafkaConsumer, settings: Settings) -> None:
        """Show what comes until the time is over. The summary is printed also after Ctrl-C."""
        reading = asyncio.ensure_future(consumer.read(client, settings, self._board))
        title = f"Kafka {settings.kafka.bootstrap_servers}"
        try:
            with view(title, self._seconds) as shown:
                await self._until_over(shown, reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            summary.print_summary(self._board)

    async def _until_over(self, shown: View, reading: asyncio.Task[None]) -> None:
        started_ms = now_ms()
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
            if now_ms() - started_ms > FIRST_JOB_S * 1000:
                raise CommandError(
                    f"no job was seen within {FIRST_JOB_S:.0f} s; the logs are in {self.directory}",
                    "run: bullmq-streams doctor",
                )
            return False
        return self._seconds is not None and now_ms() - first_ms >= self._seconds * 1000


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


def _redis(settings: Settings) -> str:
    return masked(connection(settings).url.get_secret_value())
