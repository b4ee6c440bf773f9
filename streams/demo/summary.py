"""What is said at the end."""

from __future__ import annotations

from streams.commands.console import line
from streams.demo import lines, verdict
from streams.demo.board import Board


def print_summary(board: Board) -> None:
    """Figures of the whole run."""
    line(("\nsummary", "bold"))
    line(("  jobs         ", "bright_black"), (lines.counts(board).plain, ""))
    line(("  events       ", "bright_black"), (str(board.events.total), ""))
    line(("  transitions  ", "bright_black"), (str(board.transitions_total), ""))
    line(("  alerts       ", "bright_black"), (_alerts(board), ""))
    line(
        ("  delay        ", "bright_black"), (f"{lines.delays(board)}, from BullMQ's entry to its transition here", "")
    )


def print_verdict(board: Board) -> int:
    """What should have been seen and was, or was not; returns the exit code."""
    missing = verdict.missing(board)
    for each in verdict.EXPECTED:
        line(("  no   ", "bold red") if each.what in missing else ("  yes  ", "green"), (each.what, ""))
    if missing:
        line((f"not seen: {', '.join(missing)}", "bold red"))
        return 1
    line(("all that should be seen was seen", "bold green"))
    return 0


def _alerts(board: Board) -> str:
    totals = board.alerts_total
    return ", ".join(
        f"{rule}: {totals[rule, 'firing']} fired, {totals[rule, 'resolved']} resolved" for rule in ("failed", "stuck")
    )
