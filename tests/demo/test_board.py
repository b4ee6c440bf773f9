from __future__ import annotations

from streams.demo.board import WINDOW_S, Board, Rate
from tests.demo.records import NOW_MS, alert, full_board, transition


def test_counts_follow_the_rows_and_forget_a_job_that_is_gone() -> None:
    board = Board()
    board.status("a", {"state": "waiting"})
    board.status("b", {"state": "waiting"})
    board.status("a", {"state": "active"})
    board.status("b", None)
    board.status("never seen", None)

    assert {state: count for state, count in board.counts.items() if count} == {"active": 1}


def test_a_rate_is_of_the_last_whole_seconds_and_keeps_a_minute() -> None:
    rate = Rate()
    for second in range(100):
        for _ in range(second):
            rate.add(NOW_MS + second * 1000)

    assert rate.last(3, NOW_MS + 100_000) == [97, 98, 99]
    assert rate.per_second(NOW_MS + 100_500, over_s=2) == 98.5
    assert rate.total == sum(range(100))
    assert len(rate._seconds) <= WINDOW_S + 1


def test_the_delay_is_from_the_entry_to_here_and_of_the_last_minute() -> None:
    board = Board()
    assert board.delay_ms(0.5) is None
    board.transition(transition("active"), written_ms=NOW_MS - 9_000, now_ms=NOW_MS)
    later = NOW_MS + 61_000
    for delay in range(1, 101):
        board.transition(transition("active"), written_ms=later - delay, now_ms=later)

    assert board.delay_ms(0.5) == 51
    assert board.delay_ms(0.99) == 100


def test_a_look_has_no_delay_and_a_clock_that_is_behind_no_negative_one() -> None:
    board = Board()
    board.transition(transition("stuck", observed=True), written_ms=NOW_MS - 5_000, now_ms=NOW_MS)
    assert board.delay_ms(0.5) is None
    board.transition(transition("active"), written_ms=NOW_MS + 5, now_ms=NOW_MS)
    assert board.delay_ms(0.5) == 0


def test_an_incident_counts_once_when_it_fires_and_once_when_it_resolves() -> None:
    board = Board()
    for status in ("firing", "firing", "resolved", "resolved"):
        board.alert(alert("stuck", status), NOW_MS)
    board.alert(alert("stuck", "firing", starts_at=NOW_MS + 1), NOW_MS)

    assert board.alerts_total == {("stuck", "firing"): 2, ("stuck", "resolved"): 1}
    assert [each["starts_at"] for each in board.firing] == [NOW_MS + 1]


def test_only_the_newest_incidents_are_kept() -> None:
    board = Board()
    for number in range(300):
        board.alert(alert("failed", "firing", starts_at=number), NOW_MS)

    assert len(board.alerts) == 100
    assert board.alerts_total["failed", "firing"] == 300


def test_the_first_job_is_the_first_transition() -> None:
    assert Board().first_job_ms is None
    assert full_board().first_job_ms == NOW_MS
