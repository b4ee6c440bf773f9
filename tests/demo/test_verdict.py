from __future__ import annotations

import pytest

from streams.demo import summary, timeline, verdict
from streams.demo.board import Board
from tests.demo.records import NOW_MS, alert, full_board, transition


def test_nothing_is_missing_when_all_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict.missing(full_board()) == []
    assert summary.print_verdict(full_board()) == 0
    assert "all that should be seen was seen" in capsys.readouterr().out


def test_what_was_not_seen_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board()
    for state in ("waiting", "active", "delayed", "completed", "failed", "stuck"):
        board.transition(transition(state), written_ms=NOW_MS, now_ms=NOW_MS)
    board.alert(alert("failed", "firing"), NOW_MS)
    board.alert(alert("stuck", "firing"), NOW_MS)

    assert verdict.missing(board) == ["a job paused", "a stuck alert that resolved"]
    assert summary.print_verdict(board) == 1
    assert "not seen: a job paused, a stuck alert that resolved" in capsys.readouterr().out


def test_a_failed_alert_that_resolved_is_no_stuck_one() -> None:
    board = Board()
    board.alert(alert("failed", "resolved"), NOW_MS)

    assert "a stuck alert that resolved" in verdict.missing(board)


def test_an_empty_board_misses_everything() -> None:
    assert verdict.missing(Board()) == [each.what for each in verdict.EXPECTED]


def test_half_a_minute_shows_everything_and_a_short_demo_says_what_it_cannot() -> None:
    assert verdict.too_late(30) == []
    assert verdict.too_late(timeline.KILL_AFTER_S) == [
        "a job stuck",
        "a job failed",
        "a failed alert",
        "a stuck alert",
        "a stuck alert that resolved",
    ]


def test_the_rescuer_comes_after_the_alert() -> None:
    assert timeline.RESCUE_S > timeline.STUCK_WITHIN_S


def test_the_summary_has_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    summary.print_summary(full_board())

    printed = capsys.readouterr().out
    assert "waiting 1  active 1" in printed
    assert "failed: 1 fired, 0 resolved, stuck: 1 fired, 1 resolved" in printed
    assert "p50 40 ms, p99 40 ms" in printed
