from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.local.errors import LocalStackError
from streams.local.process import HOST, Process, known_ports, ports

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def process(tmp_path):
    process = Process("server", tmp_path / "a folder")
    yield process
    process.kill()


def started(process, command=SLEEP):
    process.start(command)
    until = time.monotonic() + 10
    while "ready" not in process.tail():
        assert time.monotonic() < until
        time.sleep(0.01)


def started_elsewhere(process, command=SLEEP):
    """By another Python process, which has ended since: no child of this one."""
    start = "import sys; from pathlib import Path; from streams.local.process import Process; "
    start += f"Process('server', Path({str(process.directory)!r})).start({command!r})"
    subprocess.run([sys.executable, "-c", start], check=True)
    until = time.monotonic() + 10
    while "ready" not in process.tail():
        assert time.monotonic() < until
        time.sleep(0.01)


def becomes(pid, *, stopped):
    """The kernel takes a moment to stop or wake a process."""
    until = time.monotonic() + 10
    while (_state(pid) == "T") != stopped:
        assert time.monotonic() < until
        time.sleep(0.01)
    return True


def _state(pid):
    """One letter, T = stopped. The name before it, in brackets, may itself hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_runs_in_its_folder_and_in_a_session_of_its_own(process):
    started(process)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.require_alive()


def test_another_object_for_the_same_folder_finds_and_stops_it(process):
    started(process)
    Process("server", process.directory).stop()
    assert process.pid is None
    assert not list(process.directory.glob("*.pid"))


@pytest.mark.parametrize("start", [started, started_elsewhere])
@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_an_ended_server_has_let_go_of_its_port(process, start, end):
    """A process loses its folder, by which it is known, a little before its sockets."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    listen = (
        f"import socket, time; s = socket.create_server(('{HOST}', {port})); print('ready', flush=True); time.sleep(60)"
    )
    start(process, [sys.executable, "-c", listen])
    end(process)
    socket.create_server((HOST, port)).close()


def test_one_started_by_another_process_is_stopped_too(process):
    started_elsewhere(process, DEAF)
    process.stop(grace_s=0.1)
    assert process.pid is None


def test_stopping_what_does_not_run_is_fine(process):
    process.stop()
    process.freeze()
    process.thaw()


def test_one_that_ignores_sigterm_is_killed_after_its_grace(process):
    started(process, DEAF)
    process.stop(grace_s=0.1)
    assert process.pid is None


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="the state of a process is read in /proc")


@needs_proc
def test_a_frozen_one_stops_too(process):
    started(process)
    process.freeze()
    assert becomes(process.pid, stopped=True)
    process.stop(grace_s=5)
    assert process.pid is None


@needs_proc
def test_a_thawed_one_goes_on(process):
    started(process)
    process.freeze()
    assert becomes(process.pid, stopped=True)
    process.thaw()
    assert becomes(process.pid, stopped=False)


def test_a_stale_pid_file_whose_number_another_program_has_ends_nothing(process, tmp_path):
    other = subprocess.Popen(SLEEP, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        process.directory.mkdir(parents=True)
        (process.directory / "server.pid").write_text(str(other.pid))
        assert process.pid is None
        process.stop()
        process.kill()
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_broken_pid_file_is_no_process(process, text):
    process.directory.mkdir(parents=True)
    (process.directory / "server.pid").write_text(text)
    assert process.pid is None


def test_one_that_has_ended_is_told_with_the_tail_of_its_log(process):
    process.start([sys.executable, "-c", "print('cannot bind'); raise SystemExit(3)"])
    until = time.monotonic() + 10
    while process.pid is not None:
        assert time.monotonic() < until
    with pytest.raises(LocalStackError, match=r"server ended by itself; its log .*server\.log ends with:\ncannot bind"):
        process.require_alive()


def test_a_log_that_is_not_there_or_empty_has_words(process):
    assert process.tail() == "(no log)"
    process.directory.mkdir(parents=True)
    process.log.touch()
    assert process.tail() == "(nothing)"


def test_the_log_of_an_earlier_run_is_kept(process):
    for _ in range(2):
        process.start([sys.executable, "-c", "print('once')"])
        while process.pid is not None:
            time.sleep(0.01)
    assert process.tail().split() == ["once", "once"]


class TestPorts:
    def test_free_ones_are_below_those_of_outgoing_connections_and_stay(self, tmp_path):
        first = ports(tmp_path / "new", {"a": 0, "b": 0})
        assert all(20_000 <= port < 32_000 for port in first.values())
        assert first["a"] != first["b"]
        assert ports(tmp_path / "new", {"a": 0, "b": 0}) == first == known_ports(tmp_path / "new")

    def test_one_wanted_wins_over_the_one_before(self, tmp_path):
        (tmp_path / "ports.json").write_text(json.dumps({"a": 20_001}))
        with socket.create_server((HOST, 0)) as free:
            wanted = free.getsockname()[1]
        assert ports(tmp_path, {"a": wanted}) == {"a": wanted}

    def test_one_that_is_taken_is_an_error_that_says_what_to_do(self, tmp_path):
        with socket.create_server((HOST, 0)) as taken:
            number = taken.getsockname()[1]
            with pytest.raises(LocalStackError, match=f"port {number} cannot be used .*in use.*another port"):
                ports(tmp_path, {"a": number})

    def test_before_the_first_start_none_is_known(self, tmp_path):
        assert known_ports(tmp_path) == {}


class TestWithoutProc:
    """As on macOS: lsof tells where a process works."""

    @pytest.fixture(autouse=True)
    def no_proc(self, monkeypatch, tmp_path):
        monkeypatch.setattr("streams.local.process._PROC", tmp_path / "nowhere")

    def lsof(self, monkeypatch, folder, prints):
        (folder / "lsof").write_text(f"#!/bin/sh\nprintf '{prints}'\n")
        (folder / "lsof").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    def test_a_process_in_the_folder_is_the_server(self, process, monkeypatch, tmp_path):
        started_elsewhere(process)
        self.lsof(monkeypatch, tmp_path, f"p1\\nfcwd\\nn{process.directory}\\n")
        pid = process.pid
        assert pid is not None
        process.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_a_process_that_lsof_does_not_know_is_none(self, process, monkeypatch, tmp_path):
        started_elsewhere(process)
        self.lsof(monkeypatch, tmp_path, "")
        assert process.pid is None
        monkeypatch.undo()

    def test_without_lsof_nothing_is_guessed(self, process, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
        process.directory.mkdir(parents=True)
        (process.directory / "server.pid").write_text(str(os.getpid()))
        with pytest.raises(LocalStackError, match="install lsof"):
            process.require_alive()
        monkeypatch.undo()
