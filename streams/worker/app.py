"""The worker as a whole: the Faust app, its HTTP server, its end."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from streams import __version__, admin, engine, telemetry, topology
from streams.settings import Settings
from streams.worker.clocks import Clocks
from streams.worker.comparisons import Comparisons
from streams.worker.counts import Balance
from streams.worker.drift import Heartbeats
from streams.worker.handler import TICK_INTERVAL_S, JobStatusHandler
from streams.worker.health import Follower
from streams.worker.meters import Meters
from streams.worker.outputs import Outputs
from streams.worker.records import ROWS
from streams.worker.repairs import Repairs

log = logging.getLogger("streams.worker")

GAUGES_INTERVAL_S: Final = 1.0
MAX_QUEUED: Final = 6_000
"""Records that one partition reads ahead: three transactions' worth. More only takes memory (1.4 kB a record)."""
_OUTPUTS: Final = (topology.TRANSITIONS, topology.ALERTS, topology.PROBES, topology.DEAD_LETTERS, topology.HEALTH)


def build_app(
    settings: Settings,
    meters: Meters | None = None,
    clocks: Clocks | None = None,
    comparisons: Comparisons | None = None,
    balance: Balance | None = None,
) -> engine.BatchApp:
    """The Faust app: `events` folded into the table `JobStatus`, whose changelog is `status`.

    `clocks`, `comparisons` and `balance` are fed from `health` by whoever follows it: nothing expires until a heartbeat
    was heard of, and nothing is compared before.

    To be called inside the loop that will run it (RuntimeError otherwise). Connects to nothing yet.
    """
    meters = meters or Meters(telemetry.Metrics("worker"))
    options = engine.EngineOptions(
        app_id=settings.worker.app_id,
        client=settings.kafka.client(),
        events_topic=settings.topic(topology.EVENTS),
        table_topic=settings.topic(topology.STATUS),
        output_topics=tuple(settings.topic(name) for name in _OUTPUTS),
        partitions={topic.name: topic.partitions for topic in admin.wanted(settings)},
        codec=ROWS,
        exactly_once=settings.delivery == "exactly_once",
        max_queued=MAX_QUEUED,
        record_limits=lambda: _record_limits(settings),
    )
    repairs = Repairs(Outputs(settings), comparisons, balance)
    app = engine.build(options, JobStatusHandler(settings, meters, clocks or Clocks(), repairs))
    repairs.folded_to = app.engine.folded_to
    return app


async def _record_limits(settings: Settings) -> dict[str, int]:
    """By the topics' full names."""
    limits = await admin.record_limits(settings, (topology.STATUS, *_OUTPUTS))
    return {settings.topic(name): limit for name, limit in limits.items()}


async def main(settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code."""
    metrics = telemetry.Metrics("worker")
    clocks, pulse = Clocks(metrics), telemetry.Pulse()
    heartbeats, comparisons, balance = Heartbeats(), Comparisons(), Balance(settings.kafka.partitions)
    meters = Meters(metrics, settings.kafka.partitions, heartbeats.counts, balance.drift)
    following = Follower(settings, comparisons, [clocks.take, balance.take, heartbeats.take])
    app = build_app(settings, meters, clocks, comparisons, balance)
    port, missing = settings.worker.http_port, lambda: app.readiness().missing
    async with telemetry.serve(settings.http_host, port, "worker.http_port", metrics, missing, pulse):
        log.info("worker %s (version %s): %s", settings.worker.app_id, __version__, settings.kafka.bootstrap_servers)
        beside = [
            asyncio.create_task(_keep_gauges(app, meters), name="gauges"),
            asyncio.create_task(following.follow(), name="health"),
        ]
        try:
            return await engine.run(
                app, tick_interval_s=TICK_INTERVAL_S, on_started=lambda: log.info("ready"), beat=pulse.beat
            )
        finally:
            for task in beside:
                task.cancel()


async def _keep_gauges(app: engine.BatchApp, meters: Meters) -> None:
    while True:
        meters.refresh()
        restore_s = app.engine.stats.restore_s
        if restore_s is not None:
            meters.restored(restore_s)
        await asyncio.sleep(GAUGES_INTERVAL_S)
