from __future__ import annotations

import logging

import pytest

from streams import clock, telemetry
from streams.worker.clocks import TRUSTED_MS, WINDOW_MS, Clocks
from tests.test_telemetry import samples


class Hearing:
    """Clocks that heartbeats of a bridge come to, each after a while on its way."""

    def __init__(self):
        self.now = 1_000_000
        self.metrics = telemetry.Metrics("worker")
        self.clocks = Clocks(self.metrics, lambda: self.now, lambda: self.now)

    def hear(self, ahead_ms, *delays_ms):
        """A window of heartbeats of a bridge whose clock is so far ahead."""
        for delay in delays_ms:
            self.clocks.take({"type": "heartbeat", "at": self.now + ahead_ms - delay})
        self.now += WINDOW_MS
        self.clocks.take({"type": "heartbeat", "at": self.now + ahead_ms - max(delays_ms)})

    @property
    def skew(self):
        return samples(self.metrics).get(("bullmq_streams_clock_skew_seconds", ("bridge-worker",)))


def test_the_fastest_heartbeat_of_a_window_tells_the_skew():
    hearing = Hearing()
    hearing.hear(0, 400, 20, 900)
    assert hearing.skew == -0.02
    hearing.hear(5_000, 10, 1_500)
    assert hearing.skew == 4.99


@pytest.mark.errors_expected
def test_a_skew_is_said_when_it_begins_grows_and_ends(caplog):
    caplog.set_level(logging.INFO)
    hearing = Hearing()
    for ahead in (0, 3_000, 3_000, -61_000, -61_000, 3_000, 100):
        hearing.hear(ahead, 0)
    assert [(one.levelname, one.getMessage().partition(" ours")[0]) for one in caplog.records] == [
        ("WARNING", "the clock of the bridge is 3.0 s ahead of"),
        ("ERROR", "the clock of the bridge is 61.0 s behind"),
        ("INFO", "the clock of the bridge and"),
    ]


@pytest.mark.parametrize("way", [-1, 1])
def test_they_are_trusted_while_the_newest_heartbeat_and_the_wall_clock_agree(way):
    hearing = Hearing()
    assert not hearing.clocks.trusted, "nothing was heard"
    hearing.clocks.take({"type": "heartbeat", "at": hearing.now + way * TRUSTED_MS})
    assert hearing.clocks.trusted
    hearing.clocks.take({"type": "heartbeat", "at": hearing.now + way * (TRUSTED_MS + 1)})
    assert not hearing.clocks.trusted
    hearing.clocks.take({"type": "gap", "at": hearing.now})
    assert not hearing.clocks.trusted
    hearing.clocks.take({"type": "heartbeat", "at": hearing.now})
    hearing.now += TRUSTED_MS + 1
    assert not hearing.clocks.trusted, "the bridge is silent"


@pytest.mark.parametrize("record", [{}, {"type": "heartbeat"}, {"type": "heartbeat", "at": "x"}])
def test_a_strange_record_is_an_error_for_whoever_reads(record):
    hearing = Hearing()
    with pytest.raises((KeyError, ValueError)):
        hearing.clocks.take(record)
    assert not hearing.clocks.trusted


def test_the_steady_clock_is_not_set_with_the_wall_clock(monkeypatch):
    before = clock.steady_ms()
    assert abs(before - clock.wall_ms()) < 1_000
    monkeypatch.setattr("streams.clock.time.time_ns", lambda: 0)
    assert clock.wall_ms() == 0
    assert 0 <= clock.steady_ms() - before < 60_000
