from __future__ import annotations

import re

import pytest

from streams.demo import lines, views
from streams.demo.board import Board
from tests.demo.records import NOW_MS, alert, full_board, transition


def test_on_a_pipe_each_new_thing_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    board = full_board()
    board.notes.append("queue q paused")
    with views.view("title", 60) as view:
        view.show(board)
        view.show(board)
        board.transition(transition("removed"), written_ms=NOW_MS, now_ms=NOW_MS)
        board.alert(alert("failed", "resolved", resolved_by="retried"), NOW_MS)
        view.show(board)

    printed = [re.sub(r"^ *\d+\.\d s  ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [
        "application: queue q paused",
        *(f"first job {state}" for state in board.counts),
        "alert FIRING   failed crawl-drive …abcdef  in the active list without a lock",
        "alert resolved stuck  crawl-drive …abcdef  rescued after 7.4 s",
        "alert resolved failed crawl-drive …abcdef  retried after 7.4 s",
    ]


def test_the_counts_come_every_five_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW_MS]
    monkeypatch.setattr(views, "wall_ms", lambda: now[0])
    view = views.Plain(NOW_MS)
    for second in range(11):
        now[0] = NOW_MS + second * 1000
        view.show(Board())

    counted = [line for line in capsys.readouterr().out.splitlines() if "waiting 0" in line]
    assert [line.split(" s ")[0].strip() for line in counted] == ["5.0", "10.0"]


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (8_400, "8.4 s"), (119_000, "119.0 s"), (150_000, "2 min")]
)
def test_durations_read_well(ms: int, text: str) -> None:
    assert lines.duration(ms) == text


@pytest.mark.parametrize(
    ("name", "job_id", "text"),
    [
        ("crawl-drive-507f1f77-bcf8", "crawl-drive-507f1f77-bcf8-1a2b3c4d5e6f", "crawl-drive …4d5e6f"),
        ("send-mail", "42", "send-mail 42"),
        (None, "42", "? 42"),
    ],
)
def test_a_job_reads_well(name: str | None, job_id: str, text: str) -> None:
    assert lines.job({"name": name, "job_id": job_id}) == text
