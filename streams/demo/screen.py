"""The live view: what the board has, drawn for the size of the terminal."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from streams.demo import lines
from streams.demo.board import STATES, Board
from streams.demo.verdict import EXPECTED
from streams.escape import printable

SPARKS: Final = " ▁▂▃▄▅▆▇█"
WIDE: Final = 100
"""Columns from which the job's error or cause has room."""
_STATES_HEIGHT: Final = len(STATES) + 2
_BORDER: Final = 2
_JOB_WIDTH: Final = 24
_BORDER_STYLE: Final = "bright_black"


class Screen:
    """One frame; a rich renderable that fits the width and height it is given."""

    def __init__(self, board: Board, title: str, elapsed: str, now_ms: int) -> None:
        self._board = board
        self._title = title
        self._elapsed = elapsed
        self._now_ms = now_ms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Header, states beside figures, transitions, alerts, and one line of the application."""
        width, height = options.max_width, options.height or console.height
        rest = height - _STATES_HEIGHT - 2
        alerts = max(_BORDER + 1, rest // 3)
        parts: list[RenderableType] = [self._header(width), self._top(width)]
        if rest - alerts > _BORDER:
            parts.append(self._transitions(rest - alerts, width))
        if rest > _BORDER:
            parts.append(self._alerts(min(alerts, rest)))
        parts.append(self._footer())
        # What does not fit is cut at the bottom: a line too many would make the terminal scroll.
        for line in console.render_lines(Group(*parts), options.update(height=None))[:height]:
            yield from line
            yield Segment.line()

    def _header(self, width: int) -> Text:
        title = Text.assemble((" bullmq-streams ", "bold black on cyan"), f" {self._title}", no_wrap=True)
        title.truncate(max(0, width - len(self._elapsed) - 1), overflow="ellipsis", pad=True)
        return title.append(f" {self._elapsed}", "bold")

    def _top(self, width: int) -> Table:
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(self._states(width // 2), self._figures(width // 2))
        return grid

    def _states(self, width: int) -> Panel:
        counts = self._board.counts
        room = max(1, width - 21)
        scale = max(room, *counts.values())
        table = Table.grid(padding=(0, 1))
        table.add_column(width=9)
        table.add_column(width=5, justify="right")
        table.add_column(no_wrap=True)
        for name, count in counts.items():
            bar = "█" * max(1, round(count * room / scale)) if count else ""
            table.add_row(
                lines.state(name), Text(str(count), "bold" if count else "bright_black"), Text(bar, lines.STYLES[name])
            )
        return _panel(table, "jobs by state", _STATES_HEIGHT)

    def _figures(self, width: int) -> Panel:
        board = self._board
        history = board.events.last(max(5, width - 24), self._now_ms)
        firing = len(board.firing)
        table = Table.grid(padding=(0, 1))
        table.add_column(min_width=11, style="bright_black", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row(
            "events/s",
            Text.assemble((f"{board.events.per_second(self._now_ms):5.1f} ", "bold"), (spark(history), "cyan")),
        )
        table.add_row("delay", Text(lines.delays(board), "bold"))
        table.add_row("events", str(board.events.total))
        table.add_row("transitions", str(board.transitions_total))
        table.add_row("alerts", Text(f"{firing} firing", "bold red" if firing else "green"))
        table.add_row("seen", self._seen())
        table.add_row("", Text("BullMQ's entry → here", "bright_black"))
        return _panel(table, "figures", _STATES_HEIGHT)

    def _seen(self) -> Text:
        marks = [each.seen(self._board) for each in EXPECTED]
        return Text.assemble(
            *(("●", "green") if mark else ("○", "bright_black") for mark in marks), f" {sum(marks)}/{len(marks)}"
        )

    def _transitions(self, height: int, width: int) -> Panel:
        table = Table.grid(padding=(0, 1), expand=True)
        for fixed in (8, 9, 1, 9, _JOB_WIDTH):
            table.add_column(no_wrap=True, overflow="ellipsis", width=fixed)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        newest = list(self._board.transitions)[-(height - _BORDER) :]
        for value in reversed(newest):
            table.add_row(
                Text(lines.clock(value["at"]), "bright_black"),
                lines.state(value["from"]),
                "→",
                lines.state(value["to"]),
                Text(lines.job(value)),
                _why(value, width),
            )
        return _panel(table, "newest transitions", height)

    def _alerts(self, height: int) -> Panel:
        """Those that fire first, then the newest of the others."""
        ordered = sorted(self._board.alerts.values(), key=lambda each: (each["status"] == "firing", each["starts_at"]))
        rows = [lines.alert(each) for each in reversed(ordered[-(height - _BORDER) :])]
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        return _panel(Group(*rows) if rows else Text("none so far", "bright_black"), "alerts", height)

    def _footer(self) -> Text:
        note = self._board.notes[-1] if self._board.notes else ""
        return Text.assemble((" Ctrl-C ends it ", "reverse"), f" {printable(note)}", no_wrap=True, overflow="ellipsis")


def spark(values: list[int]) -> str:
    """A line of bars; the tallest is the largest value."""
    top = max(values, default=0)
    return "".join(SPARKS[-(-value * (len(SPARKS) - 1) // top) if top else 0] for value in values)


def _why(value: dict[str, Any], width: int) -> Text:
    text = Text(str(value["cause"]).replace("_", " "), "bright_black")
    if value["error"] and width >= WIDE:
        text.append(f": {printable(value['error'])}", "red")
    return text


def _panel(content: RenderableType, title: str, height: int) -> Panel:
    return Panel(content, title=title, title_align="left", height=height, padding=(0, 1), border_style=_BORDER_STYLE)
