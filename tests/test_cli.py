from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from streams import __version__
from tests.commands.support import run

COMMANDS = [
    ["bridge"],
    ["worker"],
    ["demo"],
    ["topics"],
    ["topics", "apply"],
    ["topics", "check"],
    ["doctor"],
    ["status"],
    ["snapshot"],
    ["tail"],
    ["config"],
    ["config", "check"],
    ["config", "show"],
]
HEAVY = ("aiohttp", "aiokafka", "faust", "mode", "prometheus_client", "pydantic", "redis", "structlog")
NOWHERE = {"KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "SOURCES__DEFAULT__URL": "redis://:sesame@127.0.0.1:1"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_help_names_every_command_and_imports_nothing_heavy():
    code = f"""
import sys
from streams.cli import app
try:
    app(["--help"], prog_name="bullmq-streams")
except SystemExit:
    pass
sys.exit([name for name in {HEAVY!r} if name in sys.modules] or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in {command[0] for command in COMMANDS}:
        assert command in done.stdout


@pytest.mark.parametrize("command", [["snapshot", "--timeout"], ["demo", "--seconds"]], ids=" ".join)
@pytest.mark.parametrize("value", ["nan", "-inf", "0", "soon"])
def test_a_time_that_is_none_is_a_usage_error(command, value):
    assert run(*command, value).exit_code == 2


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"bullmq-streams {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["topics", "nonsense"],
        ["status", "--nonsense"],
        ["tail"],
        ["tail", "probes"],
        ["tail", "events", "--from", "yesterday"],
        ["tail", "events", "--max", "0"],
        ["demo", "--seconds", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("command", [["bridge"], ["worker"], ["demo"], ["topics", "check"], ["doctor"], ["status"]])
def test_with_wrong_settings_nothing_starts(command, tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[kafka]\npartition = 3\n[log]\nlevel = 'loud'\n")
    result = run("--config", str(file), *command)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {file}: kafka.partition: unknown key; did you mean kafka.partitions?",
        f"error: {file}: log.level: must be one of debug, info, warning, error",
    ]


def test_config_files_come_before_or_behind_the_command(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text("[kafka]\npartitions = 3\ntopic_prefix = 'first'\n")
    second.write_text("[kafka]\ntopic_prefix = 'second'\n")
    result = run("--config", str(first), "config", "show", "--config", str(second))
    assert f"# {first}" in result.stdout
    assert '"second"' in result.stdout
    assert '"first"' not in result.stdout


def test_other_variables_are_warned_of_on_standard_error():
    result = run("config", "show", PORT="tcp://10.0.0.1")
    assert result.exit_code == 0
    assert "warning: environment: BULLMQ_STREAMS_PORT: is no setting and is ignored" in result.stderr


@pytest.mark.parametrize(
    "command", [["topics", "check"], ["topics", "apply"], ["status"], ["status", "q", "1"], ["tail", "events"]]
)
def test_a_kafka_that_is_not_there_is_one_line(command):
    result = run(*command, **NOWHERE)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: Kafka at 127.0.0.1:1 does not answer (Connection refused); "
        "is it running, and is kafka.bootstrap_servers right?\n"
    )


def test_doctor_tells_of_all_servers_that_are_not_there():
    result = run("doctor", **NOWHERE)
    assert result.exit_code == 1
    assert "redis default: redis://:***@127.0.0.1:1 does not answer" in result.stdout
    assert "kafka: Kafka at 127.0.0.1:1 does not answer" in result.stdout
    assert result.stdout.count("→") == 2
    assert "sesame" not in result.output


@pytest.mark.parametrize("command", ["bridge", "worker"])
def test_a_busy_port_is_told_before_anything_starts(command):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        settings = {**os.environ, "BULLMQ_STREAMS_BRIDGE__HTTP_PORT": port, "BULLMQ_STREAMS_WORKER__HTTP_PORT": port}
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", command], env=settings, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"error: port {port} on 127.0.0.1 is in use; set {command}.http_port to another one, or to 0 for no HTTP server"
    )


def test_a_reader_that_stops_reading_is_no_error():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m streams.cli config show | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("delivery")
