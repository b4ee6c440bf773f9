from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.console import Console

from streams.demo.board import STATES, Board
from streams.demo.screen import Screen, spark
from tests.demo.records import NOW_MS, alert, full_board, transition

SIZES = [(80, 24), (120, 40), (200, 60), (60, 14), (40, 10), (20, 5)]


def draw(board: Board, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, color_system=None, emoji=False, markup=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(Screen(board, "Kafka localhost:9092", "00:23 / 01:00", NOW_MS), end="")
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("board", [Board(), full_board()], ids=["empty", "full"])
def test_a_frame_fits_the_terminal(board: Board, width: int, height: int) -> None:
    drawn = draw(board, width, height)

    assert len(drawn) <= height
    assert max(map(cell_len, drawn)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_frame_fills_a_usual_terminal(width: int, height: int) -> None:
    assert len(draw(full_board(), width, height)) == height


def test_at_80_by_24_there_is_something_of_everything() -> None:
    board = full_board()
    board.notes.append("worker process 4711 killed")
    text = "\n".join(draw(board, 80, 24))

    assert all(f"{state} " in text for state in STATES)
    assert "00:23 / 01:00" in text
    assert "p50 40 ms, p99 40 ms" in text
    assert "10/10" in text
    assert "crawl-drive …abcdef" in text
    assert "FIRING   failed" in text
    assert "resolved stuck" in text
    assert "rescued after 7.4 s" in text
    assert "worker process 4711 killed" in text
    assert "Ctrl-C" in text


def test_a_wide_terminal_shows_the_error_of_an_attempt() -> None:
    board = Board()
    board.transition(
        transition("delayed", cause="attempt_failed", error="connect ETIMEDOUT"), written_ms=NOW_MS, now_ms=NOW_MS
    )

    assert "attempt failed: connect ETIMEDOUT" in "\n".join(draw(board, 120, 40))
    assert "ETIMEDOUT" not in "\n".join(draw(board, 80, 24))


def test_alerts_that_fire_stand_before_newer_ones_that_do_not() -> None:
    board = Board()
    board.alert(alert("failed", "firing"), NOW_MS)
    board.alert(alert("stuck", "resolved", starts_at=NOW_MS + 5), NOW_MS)

    text = "\n".join(draw(board, 80, 24))
    assert text.index("FIRING") < text.index("resolved")


def test_a_job_cannot_steer_the_terminal() -> None:
    board = Board()
    board.transition(transition("active", name="evil\x1b[2J", job_id="1"), written_ms=NOW_MS, now_ms=NOW_MS)

    assert "\x1b[2J" not in "\n".join(draw(board, 120, 40))


@pytest.mark.parametrize(("values", "line"), [([], ""), ([0, 0], "  "), ([0, 1, 4, 8], " ▁▄█")])
def test_a_spark_line_grows_to_its_largest_value(values: list[int], line: str) -> None:
    assert spark(values) == line
