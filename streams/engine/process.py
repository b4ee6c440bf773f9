"""The engine's main: start, run until a signal or a crash, stop within bounds."""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from streams.clock import wall_ms
from streams.engine import quiet
from streams.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from streams.engine.app import BatchApp

log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 20.0
TICKS: Final = "ticks"
GC_THRESHOLDS: Final = (50_000, 20, 100)
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run(
    app: BatchApp,
    *,
    tick_interval_s: float,
    on_started: Callable[[], None] | None = None,
    beat: Callable[[str], None] | None = None,
) -> int:
    """Run until SIGTERM or SIGINT (0) or a crash (1). `on_started` is called after the first recovery.

    `beat` hears from the endless loops, `ticks` and `fetch`, each time that they turn.

    Raises UserError, after a stop, for what only its user can mend.

    Waits for Kafka and the topics first. After a signal it takes at most 20 s: where the stop takes longer
    (the broker is gone) the process ends here, with 0, since what was not committed will be aborted.
    """
    loop = asyncio.get_running_loop()
    if app.loop is not loop:
        raise RuntimeError("the app was built outside of the loop that runs it: it would never fetch")
    if beat is not None:
        app.beat = beat
    quiet.limit()
    gc.set_threshold(*GC_THRESHOLDS)
    stop = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    helpers = [loop.create_task(stop.wait(), name="signal")]
    try:
        return await _run(app, helpers, tick_interval_s, on_started)
    finally:
        for task in helpers:
            task.cancel()
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _run(
    app: BatchApp,
    helpers: list[asyncio.Task[Any]],
    tick_interval_s: float,
    on_started: Callable[[], None] | None,
) -> int:
    def helper(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        helpers.append(task)
        return task

    signalled = helpers[0]
    waiting = helper(_prepare(app), "wait for Kafka")
    if await _first(signalled, waiting) is signalled or waiting.exception() is not None:
        await app.broker.close()
        return 0 if signalled.done() else waiting.result()  # which raises
    crashed = helper(app._crashed.wait(), "crash")
    watching = helper(app.broker.watch(), "watch Kafka")
    starting = asyncio.get_running_loop().create_task(app.start(), name="start")  # until recovered
    ended = await _first(signalled, crashed, watching, starting)
    if ended is starting and starting.exception() is None:
        _started(on_started)
        ended = await _first(signalled, crashed, watching, helper(_tick(app, tick_interval_s), "ticks"))
    code = 0 if ended is signalled and not app.crashed else 1
    reason = ended.exception() if ended.done() and not ended.cancelled() else None
    refused = reason if isinstance(reason, UserError) else None
    if refused:
        log.error("the worker ends: %s", refused)
    elif code:
        log.error("the worker ends after a crash: %r", reason or app.crash_reason)
    await _stop(app, refused.exit_code if refused else code)
    starting.cancel()
    if refused:
        raise refused
    return code


async def _prepare(app: BatchApp) -> None:
    """Kafka is there, and what its topics take is known."""
    await app.broker.wait()
    await app.engine.limits.read()


async def _first(*tasks: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """The first of the tasks, in their order, that is done."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return next(task for task in tasks if task in done)


def _started(on_started: Callable[[], None] | None) -> None:
    quiet.limit()  # loggers come into being with their modules
    if on_started is not None:
        on_started()


async def _tick(app: BatchApp, interval_s: float) -> None:
    frozen = 0
    while True:
        if frozen != app.engine.stats.recoveries:
            frozen = app.engine.stats.recoveries
            gc.collect()
            gc.freeze()  # what lives after a recovery stays: the collector need not walk it again
        await asyncio.sleep(interval_s)
        app.beat(TICKS)
        app.engine.tick(wall_ms())


async def _stop(app: BatchApp, code: int) -> None:
    """Stop the app, or end the process when that takes too long.

    Not by wait_for: Faust swallows the cancellation, and wait_for would wait for that for ever.
    """
    stopping = asyncio.get_running_loop().create_task(_stop_all(app), name="stop")
    done, _ = await asyncio.wait([stopping], timeout=STOP_TIMEOUT_S)
    if not done:
        log.warning("the stop takes longer than %.0f s; what is not committed will be aborted", STOP_TIMEOUT_S)
        exit_now(code)
    elif (error := stopping.exception()) is not None:
        log.warning("while stopping: %r", error)


async def _stop_all(app: BatchApp) -> None:
    await app.stop()
    await app.broker.close()


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for threads, which may linger after a crash."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
