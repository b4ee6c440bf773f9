"""`bridge`: the process around the bridge, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal

from streams import __version__, telemetry
from streams.bridge import run as bridge_run
from streams.bridge.outage import Outage
from streams.settings import Settings

log = logging.getLogger("streams")


def stop_on_signals() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def bridge(settings: Settings) -> int:
    """Run the bridge with its HTTP server; returns the exit code."""
    stop, outage, metrics, pulse = stop_on_signals(), Outage(), telemetry.Metrics("bridge"), telemetry.Pulse()
    port = settings.bridge.http_port
    async with telemetry.serve(settings.http_host, port, "bridge.http_port", metrics, lambda: outage.missing, pulse):
        log.info(
            "bridge %s (version %s): %s → %s",
            settings.bridge.id,
            __version__,
            ", ".join(settings.sources),
            settings.kafka.bootstrap_servers,
        )
        return await bridge_run.run(settings, stop=stop, metrics=metrics, outage=outage, pulse=pulse)
