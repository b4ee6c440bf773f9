"""The sample application on real BullMQ: `python -m streams.demo.application`, until SIGTERM or Ctrl-C.

A producer and two worker processes, on the Redis that the settings name (BULLMQ_STREAMS_SOURCES__DEFAULT__URL). It uses
queues that begin with `demo-` and nothing else. It tells on standard output what it does to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from bullmq import Queue
from redis.exceptions import RedisError

from streams.commands.errors import CommandError
from streams.demo import crawling, timeline
from streams.demo.source import Connection, connection, require_redis
from streams.settings import ConfigError, load

ADD_EVERY_S: Final = 0.4
INDEX_EVERY_S: Final = 3.0
REPEAT_MS: Final = 5_000
SCHEDULER: Final = "demo-crawl-slack"
STOP_S: Final = 5.0
TIDY_S: Final = 2.0
LONG_LOCK_MS: Final = 30_000
_PROBE_S: Final = 0.1


class ApplicationError(Exception):
    """The application cannot go on. The text says why."""


def say(text: str) -> None:
    """One line about what the application does."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Crawlers:
    """The worker processes."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._killed: set[int] = set()

    async def start(self, queue: str, *, concurrency: int, lock_ms: int, stalled_ms: int) -> int:
        """Start the worker process of a queue; returns its pid."""
        command = (sys.executable, "-m", "streams.demo.crawler", queue, str(concurrency), str(lock_ms), str(stalled_ms))
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        self._running[queue] = process
        return process.pid

    async def kill(self, queue: str) -> int:
        """SIGKILL: no lock is given back, no event is written. Returns the pid."""
        process = self._running.pop(queue)
        self._killed.add(process.pid)
        process.kill()
        await process.wait()
        return process.pid

    async def watch(self) -> None:
        """Raise ApplicationError where one ends that nobody killed."""
        while True:
            for queue, process in self._running.items():
                if process.returncode is not None:
                    raise ApplicationError(f"the worker process of {queue} ended with code {process.returncode}")
            await asyncio.sleep(_PROBE_S)

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL after 5 s."""
        processes = list(self._running.values())
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.ensure_future(process.wait()) for process in processes]
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


class Application:
    """The producer, the operator and the accident."""

    def __init__(self, where: Connection, rng: random.Random) -> None:
        self._rng = rng
        self._crawling = Queue(crawling.CRAWLING, where.options())
        self._indexing = Queue(crawling.INDEXING, where.options())
        self._crawlers = Crawlers()
        self._started = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`. Raises ApplicationError, RedisError."""
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait())]
        try:
            await self._open()
            duties = (
                self._feed(),
                self._index(),
                self._pause(),
                self._accidents(),
                self._operate(),
                self._crawlers.watch(),
            )
            tasks += [asyncio.ensure_future(duty) for duty in duties]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    async def _open(self) -> None:
        # Without a worker the first jobs would wait for its start.
        await self._crawlers.start(crawling.CRAWLING, concurrency=5, lock_ms=LONG_LOCK_MS, stalled_ms=LONG_LOCK_MS)
        await self._start_indexer()
        await self._crawling.resume()  # should an earlier run have been killed while it was paused
        template = crawling.repeating(self._rng)
        await self._crawling.upsertJobScheduler(
            SCHEDULER, {"every": REPEAT_MS}, template.name, template.data, template.opts
        )
        self._started = time.monotonic()

    async def _close(self) -> None:
        """Leave no worker, no scheduler and no paused queue behind."""
        # With Redis gone BullMQ's connection would try again for minutes; TimeoutError is an OSError.
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(TIDY_S):
                await self._crawling.removeJobScheduler(SCHEDULER)
                await self._crawling.resume()
        await self._crawlers.stop()
        for queue in (self._crawling, self._indexing):
            with contextlib.suppress(RedisError, OSError):
                await queue.close()

    async def _start_indexer(self) -> int:
        return await self._crawlers.start(
            crawling.INDEXING, concurrency=2, lock_ms=timeline.LOCK_MS, stalled_ms=timeline.STALLED_INTERVAL_MS
        )

    async def _feed(self) -> None:
        for crawl in crawling.crawls(self._rng):
            await self._crawling.add(crawl.name, crawl.data, crawl.opts)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * ADD_EVERY_S)

    async def _index(self) -> None:
        while True:
            crawl = crawling.indexing(self._rng)
            await self._indexing.add(crawl.name, crawl.data, crawl.opts)
            await asyncio.sleep(INDEX_EVERY_S)

    async def _pause(self) -> None:
        for start_s in _every_cycle(timeline.PAUSE_AFTER_S):
            await self._until(start_s)
            await self._crawling.pause()
            say(f"queue {crawling.CRAWLING} paused")
            await self._until(start_s + timeline.PAUSE_S)
            await self._crawling.resume()
            say(f"queue {crawling.CRAWLING} resumed")

    async def _accidents(self) -> None:
        for start_s in _every_cycle(timeline.KILL_AFTER_S):
            await self._until(start_s)
            while not await self._indexing.getJobCountByTypes("active"):  # noqa: ASYNC110 - state in Redis sets no event
                await asyncio.sleep(_PROBE_S)
            pid = await self._crawlers.kill(crawling.INDEXING)
            say(f"worker process {pid} of {crawling.INDEXING} killed (kill -9) in mid-job")
            await asyncio.sleep(timeline.RESCUE_S)
            pid = await self._start_indexer()
            say(f"worker process {pid} of {crawling.INDEXING} started, {timeline.RESCUE_S:.0f} s after the kill")

    async def _operate(self) -> None:
        """Someone looks at the failed jobs, mends the cause of one and retries it."""
        for start_s in _every_cycle(timeline.RETRY_AFTER_S):
            await self._until(start_s)
            failed = [job for job in await self._crawling.getFailed() if "revoked" not in job.data["metadata"]]
            for job in failed[:1]:
                await job.updateData({**job.data, "metadata": {**job.data["metadata"], "fails": 0}})
                await job.retry()
                say(f"retried the failed job {job.id}")

    async def _until(self, seconds: float) -> None:
        """Sleep until so many seconds after the first job."""
        await asyncio.sleep(max(0.0, self._started + seconds - time.monotonic()))


def _every_cycle(start_s: float) -> Iterator[float]:
    while True:
        yield start_s
        start_s += timeline.CYCLE_S


async def run(where: Connection) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await require_redis(where)  # BullMQ itself would try for minutes without a word
        await Application(where, random.Random()).run(stop)  # noqa: S311 - sample data, no secrets
    except (ApplicationError, CommandError, RedisError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def main() -> None:
    """Entry point: settings from the environment, as for bridge and worker."""
    try:
        settings = load([], os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    sys.exit(asyncio.run(run(connection(settings))))


if __name__ == "__main__":
    main()
