"""Workers of BullMQ's Python port, ended so that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bullmq import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@contextlib.asynccontextmanager
async def working(
    queue: str, process: Callable[[Any, str], Awaitable[Any]], url: str, **options: Any
) -> AsyncIterator[None]:
    """A worker on a queue, until the block ends.

    The port's `close` waits neither for its loop, nor for jobs that this has just begun, nor for its timer, and each
    of them opens a closed connection again.
    """
    worker = Worker(queue, process, {"connection": url, "autorun": False, **options})
    running = asyncio.ensure_future(worker.run())
    try:
        yield
    finally:
        await worker.close()
        await running
        left: set[asyncio.Future[Any]] = set(worker.processing)
        if worker.stalledCheckTimer is not None:
            left.add(worker.stalledCheckTimer._task)
        if left:
            await asyncio.wait(left)
        for connection in (worker.backend.conn, worker.backend.bclient):
            await connection.aclose()
