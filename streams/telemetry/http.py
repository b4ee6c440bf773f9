"""`/metrics`, `/livez` and `/readyz` of one process."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from streams import __version__
from streams.errors import UserError
from streams.telemetry import held
from streams.telemetry.metrics import CONTENT_TYPE, Metrics
from streams.telemetry.pulse import Pulse

Missing = Callable[[], Iterable[str]]
"""What the process still waits for: `redis`, `replica`, `kafka`, `topics`, `recovery`."""

_CLOSE_S: Final = 1.0


class ListenError(UserError):
    """The port cannot be had. The text names the setting that changes it."""


@asynccontextmanager
async def serve(
    host: str, port: int, setting: str, metrics: Metrics, missing: Missing, pulse: Pulse | None = None
) -> AsyncIterator[int]:
    """Serve inside the block; yields the port, 0 where the server is off. Raises ListenError.

    `setting` is the key of the port, for the error's remedy. `pulse` hears from the process's loops; the event loop's
    own beats and the time it is held are told from here, with a server or without.
    """
    pulse = pulse or Pulse()
    watching = asyncio.get_running_loop().create_task(held.watch(metrics, pulse), name="watch the loop")
    try:
        if port == 0:
            yield 0
            return
        runner = web.AppRunner(application(metrics, missing, pulse), access_log=None, shutdown_timeout=_CLOSE_S)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise ListenError(_explain(error, host, port, setting)) from None
            yield port
        finally:
            await runner.cleanup()
    finally:
        watching.cancel()


def application(metrics: Metrics, missing: Missing, pulse: Pulse) -> web.Application:
    """The three paths."""
    metrics.set("build_info", 1, {"version": __version__})
    rendering = asyncio.Lock()

    async def scrape(_: web.Request) -> web.Response:
        async with rendering:  # however many ask, one thread is enough
            metrics.set("ready", not missing())
            metrics.refresh()
            body = await asyncio.to_thread(metrics.text)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def live(_: web.Request) -> web.Response:
        stale = pulse.stale()
        return web.json_response({"live": not stale, "stale": stale}, status=503 if stale else 200)

    async def ready(_: web.Request) -> web.Response:
        absent = sorted(missing())
        return web.json_response({"ready": not absent, "missing": absent}, status=503 if absent else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/livez", live), web.get("/readyz", ready)])
    return app


def _explain(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; set {setting} to another one, or to 0 for no HTTP server"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed to this user; set {setting} to one above 1023"
    return f"cannot listen on {host}:{port}: {error.strerror}; set http_host to an address of this machine"
