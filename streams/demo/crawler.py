"""A worker process of the sample application: `python -m streams.demo.crawler QUEUE CONCURRENCY LOCK_MS STALLED_MS`.

It is told what to do by each job's `metadata`: how long to take, how often to fail and with which error.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bullmq import Worker
from bullmq.custom_errors import UnrecoverableError

from streams.demo.source import Connection, connection
from streams.settings import load

MAX_STALLED: Final = 3
STEPS: Final = ((0.1, 10), (0.4, 20), (0.5, 100))
"""Shares of a job's time, and the progress reported after each."""


class CrawlError(Exception):
    """What a crawl ran into."""


def processor(stop: asyncio.Event) -> Callable[[Any, str], Awaitable[dict[str, int]]]:
    """BullMQ's processor. Once `stop` is set the jobs in hand hurry to their end."""

    async def crawl(job: Any, _token: str) -> dict[str, int]:
        plan = job.data["metadata"]
        for share, progress in STEPS:
            await _pass(stop, share * plan["seconds"])
            if progress == STEPS[-1][1] and job.attemptsMade < plan.get("fails", 0):
                raise UnrecoverableError(plan["error"]) if plan.get("revoked") else CrawlError(plan["error"])
            await job.updateProgress(progress)
        return {"files": plan["files"]}

    return crawl


async def _pass(stop: asyncio.Event, seconds: float) -> None:
    """A sleep that `stop` cuts short."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def work(where: Connection, queue: str, concurrency: int, lock_ms: int, stalled_ms: int) -> None:
    """Run a worker until SIGTERM or SIGINT, or until the application that started it is gone."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = {
        **where.options(),
        "autorun": False,
        "concurrency": concurrency,
        "lockDuration": lock_ms,
        "stalledInterval": stalled_ms,
        "maxStalledCount": MAX_STALLED,
    }
    worker = Worker(queue, processor(stop), options)
    # The Python port asks for the version nowhere, and without it rounds every wait up to whole seconds.
    await worker.backend.blocking_connection.getRedisVersion()
    running = asyncio.ensure_future(worker.run())
    parent = os.getppid()
    while not stop.is_set() and not running.done() and os.getppid() == parent:
        await _pass(stop, 0.5)
    stop.set()
    await worker.close()
    await running


def main(arguments: list[str]) -> None:
    """Entry point."""
    queue, concurrency, lock_ms, stalled_ms = arguments
    where = connection(load([], os.environ))
    asyncio.run(work(where, queue, int(concurrency), int(lock_ms), int(stalled_ms)))


if __name__ == "__main__":
    main(sys.argv[1:])
