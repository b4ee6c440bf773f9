"""The Compose file, as Compose itself reads it, and what it has to agree on with the rest."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from streams.settings import load
from tests.needs import missing

ROOT = Path(__file__).parents[1]


def docker_compose(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the program inside the wheel: the wheel's own console script always exits with 0."""
    wheel = importlib.util.find_spec("compose")
    if wheel is None or wheel.origin is None:
        missing("no wheel of Compose for this platform", "these tests run on Linux x86-64")
    program = Path(wheel.origin).with_name("docker-compose")
    return subprocess.run([str(program), *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services():
    done = docker_compose("-f", "docker-compose.yml", "config", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["services"]


def test_compose_itself_would_name_a_mistake(tmp_path):
    text = (ROOT / "docker-compose.yml").read_text().replace("healthcheck:", "healthchek:", 1)
    (tmp_path / "docker-compose.yml").write_text(text)
    done = docker_compose("config", "-q", cwd=tmp_path)
    assert done.returncode == 1
    assert "healthchek" in done.stderr


def test_each_starts_after_what_it_needs(services):
    after = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    healthy, completed = "service_healthy", "service_completed_successfully"
    assert after == {
        "kafka": {},
        "valkey": {},
        "topics": {"kafka": healthy},
        "bridge": {"topics": completed, "valkey": healthy},
        "worker": {"topics": completed},
        "application": {"valkey": healthy, "bridge": healthy, "worker": healthy},
    }
    awaited = {other for needs in after.values() for other, how in needs.items() if how == healthy}
    assert all("healthcheck" in services[name] for name in awaited)


@pytest.mark.parametrize("name", ["topics", "bridge", "worker", "application"])
def test_the_settings_are_settings(services, name):
    settings = load([], services[name]["environment"])
    assert not settings.warnings


@pytest.mark.parametrize("name", ["bridge", "worker"])
def test_readiness_is_asked_where_the_process_listens(services, name):
    settings = load([], services[name]["environment"])
    port = getattr(settings, name).http_port
    assert f"http://127.0.0.1:{port}/readyz" in services[name]["healthcheck"]["test"][-1]
    assert settings.http_host == "0.0.0.0"
    assert [published["target"] for published in services[name]["ports"]] == [port]


def test_nothing_is_published_beyond_this_machine(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_the_processes_have_time_to_end(services):
    assert all(services[name]["stop_grace_period"] == "35s" for name in ("bridge", "worker"))


def test_kafka_is_the_version_that_the_tests_run():
    from streams.local.jars import KAFKA_VERSION  # noqa: PLC0415 -- needed by this test alone

    assert f"image: apache/kafka:{KAFKA_VERSION}\n" in (ROOT / "docker-compose.yml").read_text()


class TestImage:
    text = (ROOT / "Dockerfile").read_text()

    def test_it_has_the_bullmq_that_the_project_names(self):
        pin = next(line for line in self.text.splitlines() if "pip install bullmq==" in line).split()[-1]
        assert f'"{pin}"' in (ROOT / "pyproject.toml").read_text()

    def test_every_stage_that_runs_is_without_root(self):
        base = self.text.split("AS base\n")[1]
        assert "USER 10001" in base.split("FROM")[0]
        assert "USER root" not in base

    def test_what_it_copies_is_not_ignored(self):
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copies = [line.split()[1:-1] for line in self.text.splitlines() if line.startswith("COPY") and "--" not in line]
        copied = {name for names in copies for name in names}
        assert copied == allowed
        assert all((ROOT / name).exists() for name in copied)

    def test_the_stages_that_compose_builds_are_there(self, services):
        targets = {service["build"]["target"] for service in services.values() if "build" in service}
        assert all(f" AS {target}\n" in self.text for target in targets)
