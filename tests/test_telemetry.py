from __future__ import annotations

import io
import json
import logging
import math
import socket

import aiohttp
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from streams import telemetry
from streams.settings import Settings, load
from streams.telemetry import logs
from streams.telemetry.metrics import Distribution
from streams.telemetry.names import METRICS, PREFIX

QUEUE = {"source": "default", "queue": "q"}


@pytest.fixture
def logging_restored():
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in logs.LIBRARIES}
    yield
    root.handlers[:], level, levels = before
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    structlog.reset_defaults()


def written(settings: Settings, *, say) -> list[str]:
    stream = io.StringIO()
    telemetry.configure(settings, stream)
    say()
    return stream.getvalue().splitlines()


def settings_with(**environ: str) -> Settings:
    return load([], {f"BULLMQ_STREAMS_{name}": value for name, value in environ.items()})


# -- metrics --------------------------------------------------------------------------------------------------


def samples(metrics: telemetry.Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_names_labels_and_units_are_those_of_prometheus():
    for metric in METRICS:
        assert metric.kind != "counter" or metric.name.endswith("_total")
        assert metric.unit != "seconds" or metric.name.endswith("_seconds")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert not set(metric.labels) & {"job", "job_id", "id"}
    assert len({(metric.role, metric.name) for metric in METRICS}) == len(METRICS)


def test_counters_gauges_and_histograms_are_exposed():
    metrics = telemetry.Metrics("worker")
    metrics.inc("worker_events_total", 2, QUEUE)
    metrics.child("worker_events_total", "default", "q").inc()
    metrics.set("table_rows", 7)
    metrics.observe("end_to_end_seconds", 0.2, count=3)
    found = samples(metrics)
    assert found[f"{PREFIX}worker_events_total", ("default", "q")] == 3
    assert found[f"{PREFIX}table_rows", ()] == 7
    assert found[f"{PREFIX}end_to_end_seconds_bucket", ("0.25",)] == 3
    assert found[f"{PREFIX}end_to_end_seconds_bucket", ("0.1",)] == 0
    assert found[f"{PREFIX}end_to_end_seconds_sum", ()] == pytest.approx(0.6)
    assert not [name for name, _ in found if name.endswith("_created") and name.startswith(PREFIX)]


def test_labels_may_come_in_any_order_but_must_be_all():
    metrics = telemetry.Metrics("bridge")
    metrics.inc("bridge_gaps_total", 1, {"queue": "q", "source": "default"})
    assert samples(metrics)[f"{PREFIX}bridge_gaps_total", ("default", "q")] == 1
    with pytest.raises(ValueError, match="has the labels"):
        metrics.inc("bridge_gaps_total", 1, {"source": "default"})
    with pytest.raises(ValueError, match="has the labels"):
        metrics.child("bridge_gaps_total", "default")
    with pytest.raises(KeyError):
        metrics.inc("worker_events_total", 1, QUEUE)  # the worker's


def test_replace_drops_what_is_gone():
    metrics = telemetry.Metrics("worker")
    metrics.replace("jobs", {("default", "a", "waiting"): 1, ("default", "b", "waiting"): 2})
    metrics.replace("jobs", {("default", "b", "waiting"): 3})
    jobs = {labels: value for (name, labels), value in samples(metrics).items() if name == f"{PREFIX}jobs"}
    assert list(jobs.values()) == [3]


@given(st.lists(st.floats(0, 1000)), st.lists(st.floats(0.1, 100), min_size=1, unique=True).map(sorted))
def test_buckets_count_what_is_at_most_their_bound(values, bounds):
    distribution = Distribution(tuple(bounds))
    for value in values:
        distribution.observe(value)
    expected = [sum(value <= bound for value in values) for bound in [*bounds, math.inf]]
    assert [count for _, count in distribution.cumulative()] == expected
    assert distribution.sum == pytest.approx(sum(values))


# -- HTTP -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_health_over_http():
    missing = ["kafka", "redis"]
    port = free_port()
    async with telemetry.serve("127.0.0.1", port, "bridge.http_port", telemetry.Metrics("bridge"), lambda: missing):
        assert (await get(port, "/livez"))[0] == 200
        status, body = await get(port, "/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "missing": ["kafka", "redis"]})
        missing.clear()
        status, body = await get(port, "/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True, "missing": []})
        status, body = await get(port, "/metrics")
        assert status == 200
        assert f"# TYPE {PREFIX}bridge_gaps_total counter" in body


async def test_a_busy_port_is_told_with_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(telemetry.ListenError, match=rf"port {port} on 127.0.0.1 is in use; set worker.http_port"):
            async with telemetry.serve("127.0.0.1", port, "worker.http_port", telemetry.Metrics("worker"), list):
                pass


async def test_port_0_is_no_server():
    async with telemetry.serve("127.0.0.1", 0, "worker.http_port", telemetry.Metrics("worker"), list) as port:
        assert port == 0


async def test_an_address_of_another_machine():
    with pytest.raises(telemetry.ListenError, match="set http_host to an address of this machine"):
        async with telemetry.serve("192.0.2.1", free_port(), "x.http_port", telemetry.Metrics("bridge"), list):
            pass


# -- logs -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.errors_expected
def test_json_has_one_object_a_line_from_either_library():
    def say() -> None:
        logging.getLogger("streams.x").info("read %s of %d", "q", 3)
        structlog.get_logger("streams.y").warning("slow", lag_ms=12)
        try:
            int("bad")
        except ValueError:
            logging.getLogger("streams.x").exception("failed")

    first, second, third = map(json.loads, written(settings_with(LOG__FORMAT="json"), say=say))
    assert (first["event"], first["level"], first["logger"]) == ("read q of 3", "info", "streams.x")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["lag_ms"], second["logger"]) == ("slow", 12, "streams.y")
    assert "ValueError: invalid literal" in third["exception"]


@pytest.mark.usefixtures("logging_restored")
def test_auto_is_json_where_there_is_no_terminal():
    assert json.loads(written(settings_with(), say=lambda: logging.getLogger("x").warning("x"))[0])["event"] == "x"


@pytest.mark.usefixtures("logging_restored")
def test_text_is_a_line_for_people():
    (line,) = written(settings_with(LOG__FORMAT="text"), say=lambda: logging.getLogger("streams").info("hello"))
    assert "[info     ] hello" in line


@pytest.mark.usefixtures("logging_restored")
def test_the_level_holds_for_us_and_libraries_are_heard_from_warning_on():
    def say() -> None:
        for name in ("streams.x", "aiokafka.conn", "faust.app"):
            logging.getLogger(name).debug("d")
            logging.getLogger(name).info("i")
        logging.getLogger("aiokafka.conn").warning("w")

    lines = written(settings_with(LOG__FORMAT="json", LOG__LEVEL="debug"), say=say)
    assert [(line["logger"], line["event"]) for line in map(json.loads, lines)] == [
        ("streams.x", "d"),
        ("streams.x", "i"),
        ("aiokafka.conn", "w"),
    ]


@pytest.mark.usefixtures("logging_restored")
def test_steps_in_the_life_of_services_are_left_out():
    lines = written(settings_with(), say=lambda: logging.getLogger("streams.engine.app").info("[^-App]: Starting..."))
    assert lines == []


def test_a_library_repeats_itself_once_per_interval():
    now = 100.0
    limit = logs.RateLimit(lambda: now)

    def says(name: str, message: str, *args: object) -> logging.LogRecord | None:
        record = logging.LogRecord(name, logging.ERROR, "f", 1, message, args, None)
        return record if limit.filter(record) else None

    assert says("aiokafka", "no %s", 1)
    assert not says("aiokafka", "no %s", 2)
    assert says("aiokafka", "other")
    assert says("aiokafka.conn", "no %s", 1)
    assert says("streams", "ours")
    assert says("streams", "ours")
    now += logs.INTERVAL_S
    record = says("aiokafka", "no %s", 3)
    assert record is not None
    assert record.suppressed == 1  # type: ignore[attr-defined]


@pytest.mark.usefixtures("logging_restored")
def test_the_number_left_out_is_written(monkeypatch):
    monkeypatch.setattr(logs, "INTERVAL_S", -1.0)

    def say() -> None:
        logging.getLogger("aiokafka").handle(
            logging.makeLogRecord(
                {"name": "aiokafka", "levelno": 30, "levelname": "WARNING", "msg": "x", "suppressed": 4}
            )
        )

    assert json.loads(written(settings_with(), say=say)[0])["suppressed"] == 4


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.errors_expected
def test_secrets_are_in_no_line(form):
    settings = settings_with(
        LOG__FORMAT=form,
        SOURCES__DEFAULT__URL='redis://u:pa%40ss%22"w@h/0',
        KAFKA__SECURITY_PROTOCOL="SASL_SSL",
        KAFKA__SASL_MECHANISM="PLAIN",
        KAFKA__SASL_USERNAME="u",
        KAFKA__SASL_PASSWORD="kafka-secret",
    )

    def say() -> None:
        logging.getLogger("streams").info('a kafka-secret, a pa%%40ss%%22"w and a pa@ss""w %s', "redis://x:other@y")
        try:
            int("kafka-secret")
        except ValueError:
            structlog.get_logger().exception("e", url="redis://x:other@y")

    text = "\n".join(written(settings, say=say))
    assert "e" in text
    for secret in ("kafka-secret", "pa%40", "pa@", "other"):
        assert secret not in text
