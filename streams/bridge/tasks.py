"""Tasks that run beside each other, and fail together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

T = TypeVar("T")


async def run_beside(main: Coroutine[Any, Any, T], helpers: Iterable[Coroutine[Any, Any, Any]]) -> T:
    """The result of `main`, with endless helpers beside it; whatever fails first is raised. None is left running."""
    working = asyncio.create_task(main)
    helping = [asyncio.create_task(helper) for helper in helpers]
    try:
        while not working.done():
            done, _ = await asyncio.wait([working, *helping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return working.result()
    finally:
        for task in (working, *helping):
            task.cancel()
        await asyncio.gather(working, *helping, return_exceptions=True)


async def unless(stop: asyncio.Event, start: Coroutine[Any, Any, T]) -> T | None:
    """The result of `start`; None where `stop` came first, and `start` is cancelled."""
    starting = asyncio.create_task(start)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        return starting.result()
    starting.cancel()
    await asyncio.wait([starting])
    return None
