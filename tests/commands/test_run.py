"""`bridge` and `worker` as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.telemetry.names import METRICS
from tests.commands.support import free_port, run, servers

pytestmark = pytest.mark.system

PATIENCE_S = 40


class Process:
    def __init__(self, command: str, settings: dict[str, str], log: Path) -> None:
        self.port = free_port()
        ports = {"BRIDGE__HTTP_PORT": str(self.port), "WORKER__HTTP_PORT": str(self.port)}
        environ = {f"BULLMQ_STREAMS_{name}": value for name, value in (settings | ports).items()}
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", command], env={**os.environ, **environ}, stdout=out, stderr=out
            )

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_for(self, status: int) -> dict[str, Any]:
        """The body of `/readyz` once it has this status."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                found, body = self.get("/readyz")
            except OSError:
                found, body = 0, b""
            if found == status:
                value: dict[str, Any] = json.loads(body)
                return value
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (found, body)
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=["bridge", "worker"])
def command(request) -> str:
    name: str = request.param
    return name


@pytest.fixture
def start(command, tmp_path) -> Iterator[Any]:
    started: list[Process] = []

    def start(settings: dict[str, str]) -> Process:
        started.append(Process(command, settings, tmp_path / "log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_measured_and_ended_by_a_signal(kafka, redis_server, prefix, command, start, number):
    settings = servers(kafka, prefix) | {"SOURCES__DEFAULT__URL": redis_server, "SOURCES__DEFAULT__PREFIX": prefix}
    run("topics", "apply", **settings)
    process = start(settings)
    assert process.wait_for(200) == {"ready": True, "missing": []}
    status, body = process.get("/metrics")
    assert status == 200
    names = {line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")}
    assert names >= {metric.full_name for metric in METRICS if metric.role == command}
    assert process.end(number) == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert lines[0]["logger"].startswith("streams")
    assert {line["level"] for line in lines} <= {"info", "warning"}


def test_without_servers_it_waits_says_so_once_and_ends_with_0(prefix, start):
    settings = servers("127.0.0.1:1", prefix) | {"SOURCES__DEFAULT__URL": "redis://:sesame@127.0.0.1:1"}
    process = start(settings)
    assert "kafka" in process.wait_for(503)["missing"]
    time.sleep(3)
    assert process.get("/livez")[0] == 200
    assert process.end(signal.SIGTERM) == 0
    text = process.log.read_text()
    assert len(text.splitlines()) < 12, text
    assert "Traceback" not in text
    assert "sesame" not in text
