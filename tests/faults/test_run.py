"""The hand without servers: the row of faults that a seed stands for, and what the checks say of a stage."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from streams import clock
from tests.faults import inspect
from tests.faults.faults import chosen
from tests.faults.processes import Processes
from tests.faults.run import Outcome, Plan, choose
from tests.faults.table import HOUR_MS, TABLE
from tests.faults.topics import Topics

KINDS = {"process", "application", "clock", "kafka", "redis", "network", "stream", "queue", "hostile"}


def names(plan: Plan) -> list[str]:
    return [fault.name for fault in choose(plan)]


class TestTheRow:
    def test_a_seed_stands_for_one_row(self):
        assert names(Plan(1, 50)) == names(Plan(1, 50))
        assert names(Plan(1, 50)) != names(Plan(2, 50))

    def test_a_longer_row_begins_with_the_shorter(self):
        assert names(Plan(1, 50))[:15] == names(Plan(1, 15))

    def test_each_kind_comes_about_as_often(self):
        counts = Counter(fault.kind for fault in choose(Plan(5, 50)))
        assert counts.keys() == KINDS
        assert max(counts.values()) - min(counts.values()) <= 1

    def test_none_comes_again_before_all_of_its_kind_have_been(self):
        row = [fault for fault in choose(Plan(5, 400)) if fault.kind == "kafka"]
        size = sum(fault.kind == "kafka" for fault in TABLE.values())
        assert len({fault.name for fault in row[:size]}) == size

    def test_the_short_form_has_every_kind(self):
        assert {fault.kind for fault in choose(Plan(11, 15))} == KINDS

    def test_the_long_form_has_every_fault(self):
        assert {name for seed in range(1, 21) for name in names(Plan(seed, 50))} == set(TABLE)

    def test_kinds_and_names_choose(self):
        assert {fault.kind for fault in chosen("redis, clock")} == {"redis", "clock"}
        assert [fault.name for fault in chosen("bridge_killed")] == ["bridge_killed"]
        assert len(chosen("")) == len(TABLE)

    def test_an_unknown_one_is_named(self):
        with pytest.raises(ValueError, match="no such fault: rediss; there are bridge_killed"):
            chosen("rediss")


class TestProcesses:
    @pytest.fixture
    def processes(self, tmp_path, monkeypatch):
        """Processes that only wait for their end, instead of the product."""
        started: Any = subprocess.Popen
        script = (
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True)"
        )
        ends = {"code": 0}

        def popen(_command: list[str], **more: Any) -> subprocess.Popen[bytes]:
            last = f"sys.exit({ends['code']})" if ends["code"] else "time.sleep(60)"
            process: subprocess.Popen[bytes] = started([sys.executable, "-c", f"{script}\n{last}"], **more)
            return process

        monkeypatch.setattr("tests.faults.processes.subprocess.Popen", popen)
        processes = Processes({}, tmp_path)
        processes.ends = ends  # type: ignore[attr-defined]  # for the test alone
        yield processes
        for name in list(processes.running):
            processes.kill(name)

    def up(self, processes):
        processes.start("bridge")
        log = processes.running["bridge"].log
        while b"up" not in log.read_bytes():
            pass

    def test_one_that_ends_by_itself_is_told_and_started_again(self, processes):
        processes.ends["code"] = 3
        self.up(processes)
        processes.running["bridge"].process.wait()
        processes.ends["code"] = 0
        processes.watch()
        assert "bridge ended by itself with 3" in processes.ended[0]
        assert "up" in processes.ended[0]
        assert processes.running["bridge"].process.poll() is None

    def test_a_killed_one_is_not(self, processes):
        self.up(processes)
        processes.kill("bridge")
        processes.watch()
        assert (processes.ended, processes.running) == ([], {})

    def test_one_that_ends_well_is_not_either(self, processes):
        self.up(processes)
        processes.end("bridge")
        assert processes.ended == []

    def test_a_frozen_one_ends_too(self, processes):
        self.up(processes)
        processes.freeze("bridge")
        processes.end("bridge")
        assert processes.ended == []

    def test_its_memory_is_known(self, processes):
        self.up(processes)
        processes.watch()
        assert processes.peaks["bridge"] > 1 << 20


def stage(**more: Any) -> Any:
    topics = Topics("nowhere:1", "p")
    for name, value in more.items():
        setattr(topics, name, value)
    return SimpleNamespace(topics=topics, processes=SimpleNamespace(peaks={}, metrics=lambda _: ""), refused={})


class TestWhatTheStageSays:
    def test_only_hostile_things_may_be_set_aside(self):
        letters = [
            {"key": f"default/{queue}/1", "place": "here", "dlq_reason": "too_large"} for queue in ("hostile", "v5")
        ]
        (line,) = inspect.dead_letters(stage(dead=letters))
        assert "'default/v5/1' set aside as too_large" in line

    def test_a_record_that_breaks_its_schema(self):
        (line,) = inspect.schemas(
            stage(samples=[("health", {"type": "gap", "source": "s", "queue": "q", "at": "now"})])
        )
        assert line.startswith("health q/None")

    def test_a_type_that_nobody_published(self):
        (line,) = inspect.schemas(stage(samples=[("health", {"type": "weather"})]))
        assert "type 'weather' is not published" in line

    def test_a_drift_and_none_at_all(self, monkeypatch):
        monkeypatch.setattr(inspect, "twice", lambda _: ['queue="hostile"'])
        told = stage(health=[])
        assert inspect.drift(told) == ["no drift can be told: 0 tables and 0 heartbeats on health"]
        told.topics.health = [
            {"type": "table", "partition": 0, "counts": {"s/q": {}}},
            {"type": "heartbeat", "source": "s", "queue": "q", "at": 1, "paused": False, "counts": {}},
        ]
        sample = 'bullmq_streams_jobs_drift{queue="q",source="s",state="active"}'
        told.processes.metrics = lambda _: f"# HELP\n{sample} 0.0\n"
        assert inspect.drift(told) == []
        told.processes.metrics = lambda _: f"{sample} -2.0\n"
        assert "jobs_drift{queue=" in inspect.drift(told)[0]
        told.processes.metrics = lambda _: f"{sample} -2.0\n".replace('"q"', '"hostile"')
        assert inspect.drift(told) == []

    def test_too_much_memory(self):
        told = stage()
        told.processes.peaks = {"bridge": 100 << 20, "worker-1": 500 << 20}
        assert inspect.memory(told) == ["worker-1: had 500 MiB, expected at most 400"]


def test_a_report_keeps_the_lines_of_logs():
    assert inspect.report({"rows": ["a\nb"], "processes": ["ended\nlast words"]}) == (
        "== rows: 1\na\\nb\n== processes: 2\nended\nlast words"
    )


def test_a_repeated_ce_id_is_told():
    topics = Topics("nowhere:1", "p")
    for offset, value in enumerate((b"{}", b"{}", b'{"a": 1}')):
        headers = [("ce_id", b"x")]
        topics._take(
            SimpleNamespace(topic="p.health.v1", partition=0, offset=offset, headers=headers, key=b"k", value=value)
        )
    assert topics.broken == [
        "health[0]@1: ce_id x is there twice, first at health[0]@0: the same",
        "health[0]@2: ce_id x is there twice, first at health[0]@0: another content",
    ]


def test_an_outcome_says_what_was_done():
    outcome = Outcome(["a", "b"], [], 2, 100, 10, {"bridge": 5 << 20})
    assert str(outcome) == (
        "2 faults, 2 rests, 100 entries, 10 ends of jobs; most memory: bridge 5 MiB; 0 rests with something wrong"
    )


def test_the_clock_is_shifted_in_every_module(monkeypatch):
    script = (
        "import runpy, sys, streams.cli, time; streams.cli.main = lambda: None; "
        "runpy.run_module('tests.faults.shifted', run_name='__main__'); "
        "from streams.bridge.health import wall_ms; print(wall_ms() - time.time_ns() // 1_000_000)"
    )
    monkeypatch.setenv("FAULTS_SHIFT_MS", "-3600000")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert abs(int(done.stdout) + HOUR_MS) < 1_000
    assert clock.wall_ms.__module__ == "streams.clock"
