"""How the demo shows itself: live on a terminal, plain lines on a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.live import Live

from streams.clock import wall_ms
from streams.demo import lines
from streams.demo.board import STATES, Board
from streams.demo.screen import Screen
from streams.escape import printable

COUNTS_EVERY_MS: Final = 5_000
FRAME_S: Final = 0.25


class View(Protocol):
    """Shows a board again and again."""

    def show(self, board: Board) -> None:
        """Called four times a second."""


class Plain:
    """New states, alerts, notes, and every 5 s the counts: one line each."""

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._counted_ms = started_ms
        self._states: set[str] = set()
        self._alerts: dict[tuple[str, int], str] = {}

    def show(self, board: Board) -> None:
        """Print what is new."""
        while board.notes:
            self._line(f"application: {printable(board.notes.popleft())}")
        for state in [each for each in board.states_seen if each in STATES and each not in self._states]:
            self._states.add(state)
            self._line(f"first job {state}")
        for incident, alert in board.alerts.items():
            if self._alerts.get(incident) != alert["status"]:
                self._line(f"alert {lines.alert(alert).plain}")
        self._alerts = {incident: alert["status"] for incident, alert in board.alerts.items()}
        if wall_ms() - self._counted_ms >= COUNTS_EVERY_MS:
            self._counted_ms = wall_ms()
            self._line(
                f"{lines.counts(board).plain}  |  {board.events.per_second(wall_ms()):.1f} events/s  |  "
                f"delay {lines.delays(board)}"
            )

    def _line(self, text: str) -> None:
        seconds = (wall_ms() - self._started_ms) / 1000
        sys.stdout.write(f"{seconds:6.1f} s  {text}\n")
        sys.stdout.flush()


class Terminal:
    """The whole screen, given back at the end."""

    def __init__(self, live: Live, title: str, seconds: float | None) -> None:
        self._live = live
        self._title = title
        self._seconds = seconds

    def show(self, board: Board) -> None:
        """Draw a frame."""
        self._live.update(Screen(board, self._title, self._elapsed(board), wall_ms()), refresh=True)

    def _elapsed(self, board: Board) -> str:
        passed = (wall_ms() - board.first_job_ms) // 1000 if board.first_job_ms is not None else 0
        text = f"{passed // 60:02d}:{passed % 60:02d}"
        return (
            text if self._seconds is None else f"{text} / {int(self._seconds) // 60:02d}:{int(self._seconds) % 60:02d}"
        )


@contextmanager
def view(title: str, seconds: float | None) -> Iterator[View]:
    """The view that suits standard output."""
    terminal = Console(emoji=False, markup=False, highlight=False)
    if not terminal.is_terminal or terminal.is_dumb_terminal:
        yield Plain(wall_ms())
        return
    with Live(console=terminal, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield Terminal(live, title, seconds)
