"""One line each for a transition, an alert and the counts: the words of both views."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.text import Text

from streams.demo.board import Board
from streams.escape import printable

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
SHORT_ID: Final = 8
"""Of longer job ids the end is shown."""
STYLES: Final = {
    "waiting": "cyan",
    "active": "bright_blue",
    "delayed": "magenta",
    "paused": "yellow",
    "stuck": "bold bright_red",
    "completed": "green",
    "failed": "red",
    "removed": "bright_black",
}


def clock(ms: int) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def duration(ms: int) -> str:
    """`87 ms`, `8.4 s`, `2 min`."""
    if ms < SECOND_MS:
        return f"{ms} ms"
    return f"{ms / SECOND_MS:.1f} s" if ms < 2 * MINUTE_MS else f"{ms // MINUTE_MS} min"


def job(value: dict[str, Any]) -> str:
    """A job as people know it: its name without the connector's id, and the end of its own."""
    name, job_id = str(value.get("name") or "?"), str(value["job_id"])
    short = "-".join(name.split("-")[:2]) if name.startswith("crawl-") else name
    return printable(f"{short} …{job_id[-6:]}" if len(job_id) > SHORT_ID else f"{short} {job_id}")


def state(word: str | None) -> Text:
    """A state in its color."""
    return Text(word or "·", STYLES.get(word or "", ""))


def alert(value: dict[str, Any]) -> Text:
    """`FIRING stuck crawl-drive …3f2a: in the active list without a lock …`."""
    firing = value["status"] == "firing"
    text = Text.assemble(
        ("FIRING  " if firing else "resolved", "bold white on red" if firing else "green"),
        (f" {value['rule']:<6} ", "bold" if firing else ""),
        job({"name": value["labels"]["job_name"], "job_id": value["job_id"]}),
    )
    if firing:
        text.append(f"  {printable(value['reason'])}", "bright_black")
    else:
        lasted = duration(value["ends_at"] - value["starts_at"])
        text.append(f"  {value['resolved_by']} after {lasted}", "bright_black")
    return text


def counts(board: Board) -> Text:
    """All seven states in one line."""
    return Text("  ").join(
        Text.assemble((f"{name} ", STYLES[name]), str(count)) for name, count in board.counts.items()
    )


def delays(board: Board) -> str:
    """`p50 21 ms, p99 87 ms`."""
    median, slowest = board.delay_ms(0.5), board.delay_ms(0.99)
    if median is None or slowest is None:
        return "-"
    return f"p50 {duration(median)}, p99 {duration(slowest)}"
