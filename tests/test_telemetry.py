from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import time

import aiohttp
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from streams import __version__, telemetry
from streams.settings import Settings, load
from streams.telemetry import logs
from streams.telemetry.names import JOB_S, METRICS, PREFIX
from streams.telemetry.skew import Skew
from tests.engine.fakes import until

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


@given(st.lists(st.floats(0, 1000)))
def test_buckets_count_what_is_at_most_their_bound(values):
    metrics = telemetry.Metrics("worker")
    for value in values:
        metrics.observe("job_run_seconds", value, QUEUE)
    metrics.observe("job_run_seconds", 0, QUEUE, count=2)
    found, name = samples(metrics), f"{PREFIX}job_run_seconds"
    bounds = {labels[0]: float(labels[0]) for this, labels in found if this == f"{name}_bucket"}
    assert len(bounds) == len(JOB_S) + 1
    for text, bound in bounds.items():
        assert found[f"{name}_bucket", (text, "default", "q")] == sum(value <= bound for value in values) + 2
    assert found[f"{name}_count", ("default", "q")] == len(values) + 2
    assert found[f"{name}_sum", ("default", "q")] == pytest.approx(sum(values))


def test_what_bears_a_queues_labels_is_forgotten_with_it():
    metrics = telemetry.Metrics("worker")
    for queue in ("a", "b"):
        metrics.child("worker_events_total", "default", queue).inc()
        metrics.child("worker_transitions_total", "default", queue, "", "waiting").inc()
        metrics.child("job_run_seconds", "default", queue).observe(1)
    metrics.child("worker_anomalies_total", "a").inc()
    metrics.forget({"source": "default", "queue": "a"})
    metrics.forget({"source": "default", "queue": "never"})
    found = {labels for name, labels in samples(metrics) if "a" in labels or "b" in labels}
    assert found == {("b", "default"), ("", "b", "default", "waiting"), ("a",)} | {
        label for label in found if len(label) == 3 and label[1:] == ("b", "default")
    }
    assert samples(metrics)[f"{PREFIX}job_run_seconds_count", ("b", "default")] == 1
    metrics.forget({"kind": "a"})
    assert (f"{PREFIX}worker_anomalies_total", ("a",)) not in samples(metrics)


def test_gauges_worked_out_when_somebody_asks():
    metrics, asked = telemetry.Metrics("worker"), []
    metrics.before(lambda: asked.append("refreshed"))
    metrics.read("jobs", lambda: {("default", "q", "waiting"): len(asked)})
    assert samples(metrics)[f"{PREFIX}jobs", ("default", "q", "waiting")] == 1
    assert samples(metrics)[f"{PREFIX}jobs", ("default", "q", "waiting")] == 2


@given(st.text(max_size=8))
def test_labels_are_read_back_as_they_were_written(text):
    metrics = telemetry.Metrics("worker")
    metrics.child("worker_events_total", "s", text).inc(2)
    queues = [labels for name, labels in samples(metrics) if name == f"{PREFIX}worker_events_total"]
    assert queues == [tuple(sorted(("s", text)))]


def test_a_label_that_is_no_text_spoils_nothing():
    metrics = telemetry.Metrics("worker")
    metrics.child("worker_events_total", "s", "\ud800").inc()
    assert b'queue="?"' in metrics.render()


def of_many_queues(queues: int) -> telemetry.Metrics:
    """What a worker has after it has seen so many queues in all their states."""
    metrics = telemetry.Metrics("worker")
    states = ("waiting", "active", "delayed", "paused", "completed", "failed", "stuck")
    names = [f"orders:{number}" for number in range(queues)]
    jobs: dict[tuple[str, ...], float] = {("default", name, state): 3.0 for name in names for state in states}
    metrics.read("jobs", lambda: jobs)
    for name in names:
        metrics.child("worker_events_total", "default", name).inc()
        for before, after in (("", "waiting"), ("waiting", "active"), ("active", "completed")):
            metrics.child("worker_transitions_total", "default", name, before, after).inc()
        metrics.child("job_run_seconds", "default", name).observe(0.5)
        metrics.child("job_wait_seconds", "default", name).observe(0.5)
    return metrics


async def test_the_loop_turns_while_thousands_of_queues_are_rendered():
    metrics, port, latest, turns = of_many_queues(5_000), free_port(), time.perf_counter(), 0
    held: list[float] = []

    async def turn() -> None:
        nonlocal latest, turns
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            held.append(now - latest)
            latest, turns = now, turns + 1

    async with telemetry.serve("127.0.0.1", port, "worker.http_port", metrics, list):
        turning = asyncio.create_task(turn())
        status, body = await get(port, "/metrics")
        turning.cancel()
    assert status == 200
    assert body.count("\n") > 5_000 * (7 + 1 + 3 + 2 * 18)
    # Rendered in the loop it would turn a few times only; most of what is left is this test's own reading.
    assert len(held) >= 10


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


async def test_a_loop_that_has_not_turned_fails_livez():
    now = 100.0
    pulse, port = telemetry.Pulse(lambda: now), free_port()
    async with telemetry.serve("127.0.0.1", port, "bridge.http_port", telemetry.Metrics("bridge"), list, pulse):
        pulse.expect("probes")
        pulse.beat("default")
        now += 30
        assert json.loads((await get(port, "/livez"))[1]) == {"live": True, "stale": []}
        now += 1
        await until(lambda: pulse.stale() == ["default", "probes"])  # its own loop turns by itself
        status, body = await get(port, "/livez")
        assert (status, json.loads(body)) == (503, {"live": False, "stale": ["default", "probes"]})
        pulse.beat("default")
        pulse.expect("probes")
        assert pulse.stale() == ["probes"]
        pulse.ended("probes")
        pulse.ended("never begun")
        assert (await get(port, "/livez"))[0] == 200
        assert pulse.stale(now + 31) == ["default", "loop"]


async def test_how_long_the_loop_is_held_is_measured():
    metrics = telemetry.Metrics("worker")
    async with telemetry.serve("127.0.0.1", 0, "worker.http_port", metrics, list):
        histogram = metrics.child("loop_held_seconds")
        await until(lambda: sum(histogram.counts) > 2)
        held_before = histogram.sum
        time.sleep(0.3)  # noqa: ASYNC251 - held on purpose
        await until(lambda: histogram.sum - held_before > 0.25)


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


@pytest.mark.errors_expected
def test_a_skew_is_a_gauge_and_a_line_where_it_begins_grows_and_ends(caplog):
    caplog.set_level("INFO")
    metrics = telemetry.Metrics("bridge")
    skew = Skew(metrics, "redis-bridge/a", "Redis (source a)", "events have its times")
    for ahead_ms in (1_999, 2_001, 2_500, -60_001, -2_001, 0):
        skew.tell(ahead_ms)
    assert [line.levelname for line in caplog.records] == ["WARNING", "ERROR", "INFO"]
    assert "the clock of Redis (source a) is 60.0 s behind ours" in caplog.messages[1]
    assert samples(metrics)["bullmq_streams_clock_skew_seconds", ("redis-bridge/a",)] == 0


async def test_which_version_runs_and_whether_it_is_ready():
    metrics, missing = telemetry.Metrics("bridge"), ["redis"]
    async with telemetry.serve("127.0.0.1", free_port(), "bridge.http_port", metrics, lambda: missing) as port:
        for expected in (0, 1):
            text = (await get(port, "/metrics"))[1]
            assert f'bullmq_streams_build_info{{version="{__version__}"}} 1' in text
            assert f"bullmq_streams_ready {expected}" in text
            missing.clear()
