from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from streams import topology
from streams.worker.app import _keep_gauges, build_app, main
from streams.worker.handler import TICK_INTERVAL_S, JobStatusHandler
from tests.engine.fakes import until
from tests.worker.build import settings

OUTPUTS = {"transitions", "alerts", "probes", "dead-letters", "health"}


async def test_the_app_is_told_all_by_the_settings():
    found = settings(
        KAFKA__BOOTSTRAP_SERVERS="one:1,two:2",
        WORKER__APP_ID="mine",
        DELIVERY="at_least_once",
        KAFKA__TOPIC_PREFIX="p",
        KAFKA__PARTITIONS="3",
    )
    app = build_app(found)
    options = app.engine.options
    assert app.loop is asyncio.get_running_loop()
    assert (options.app_id, app.conf.id) == ("mine", "mine")
    assert options.bootstrap_servers == ("one:1", "two:2")
    assert options.events_topic == topology.full_name("p", "events")
    assert options.table_topic == topology.full_name("p", "status")
    assert set(options.output_topics) == {topology.full_name("p", name) for name in OUTPUTS}
    assert options.exactly_once is False
    assert options.partitions[options.events_topic] == options.partitions[options.table_topic] == 3
    assert options.partitions[topology.full_name("p", "dead-letters")] == 1
    assert isinstance(app.engine.handler, JobStatusHandler)


async def test_exactly_once_is_the_default():
    app = build_app(settings())
    assert app.engine.options.exactly_once is True
    assert app.engine.options.table_topic == "t.status.v1"
    assert set(app.readiness().missing) == {"kafka", "topics", "recovery"}


def test_outside_of_a_loop_no_app_is_built():
    with pytest.raises(RuntimeError, match="loop"):
        build_app(settings())


class Running:
    """Stands in for the engine and for what follows the heartbeats: `main` has servers and tasks around them."""

    def __init__(self, monkeypatch, code, port):
        self.code, self.port = code, port
        self.cancelled: list[str] = []
        self.pages: dict[str, str] = {}
        monkeypatch.setattr("streams.worker.app.engine.run", self.run)
        monkeypatch.setattr("streams.worker.app.GAUGES_INTERVAL_S", 0.01)
        monkeypatch.setattr("streams.worker.app.Follower.follow", lambda _: self.follow())

    async def run(self, app, *, tick_interval_s, on_started, beat):
        assert tick_interval_s == TICK_INTERVAL_S
        beat("ticks")
        app.engine.stats.restore_s = 2.5
        on_started()
        await asyncio.sleep(0.05)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session:
            for path in ("/metrics", "/livez", "/readyz"):
                async with session.get(path) as answer:
                    self.pages[path] = await answer.text()
        return self.code

    async def follow(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append("heartbeats")


@pytest.mark.parametrize("code", [0, 1])
async def test_main_serves_metrics_while_the_engine_runs(monkeypatch, unused_tcp_port, code):
    running = Running(monkeypatch, code, unused_tcp_port)
    assert await main(settings(WORKER__HTTP_PORT=str(unused_tcp_port))) == code
    await asyncio.sleep(0)
    assert running.cancelled == ["heartbeats"]
    assert "bullmq_streams_table_restore_seconds 2.5" in running.pages["/metrics"]
    assert "bullmq_streams_table_rows 0.0" in running.pages["/metrics"]
    assert '"recovery"' in running.pages["/readyz"]
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{unused_tcp_port}/livez"):
            pass


async def test_before_a_recovery_there_is_no_duration_of_one(monkeypatch):
    monkeypatch.setattr("streams.worker.app.GAUGES_INTERVAL_S", 0.001)
    told: list[str] = []
    meters: Any = SimpleNamespace(refresh=lambda: told.append("refresh"), restored=lambda _: told.append("restored"))
    app: Any = SimpleNamespace(engine=SimpleNamespace(stats=SimpleNamespace(restore_s=None)))
    task = asyncio.create_task(_keep_gauges(app, meters))
    await until(lambda: len(told) > 2)
    task.cancel()
    assert set(told) == {"refresh"}
