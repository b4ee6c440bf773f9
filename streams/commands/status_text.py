"""`status` for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from streams import wire
from streams.commands import console
from streams.core.lifecycle import STATES
from streams.escape import printable

if TYPE_CHECKING:
    from streams.commands.health import QueueName
    from streams.commands.standing import Queue

STATE_STYLES: Final = {
    "waiting": "cyan",
    "active": "blue",
    "delayed": "magenta",
    "paused": "yellow",
    "completed": "green",
    "failed": "bold red",
    "stuck": "bold red",
}
SHORT: Final = 60
MOST_NAMED: Final = 5
SILENT_MS: Final = 30_000
"""Three heartbeats missed."""


def overview(queues: Mapping[QueueName, Queue], firing: Mapping[str, int], now_ms: int) -> None:
    """A table of queues, and a line on alerts."""
    if not queues:
        console.line(("no queues yet: is the bridge running?", "yellow"))
    else:
        _print(_table(queues, now_ms))
        _warnings(queues, now_ms)
    alerts = ", ".join(f"{count} {printable(rule, SHORT)}" for rule, count in firing.items() if count) or "none"
    console.line(("alerts firing: ", "bold"), (alerts, "green" if alerts == "none" else "bold red"))


def _warnings(queues: Mapping[QueueName, Queue], now_ms: int) -> None:
    """What is easily missed in a long table."""
    refused = [f"{source}/{name}" for (source, name), queue in queues.items() if queue.refused is not None]
    if refused:
        more = f" and {len(refused) - MOST_NAMED} more" if len(refused) > MOST_NAMED else ""
        names = ", ".join(printable(name, SHORT) for name in refused[:MOST_NAMED])
        console.line((f"refused by the bridge: {names}{more}; bullmq-streams doctor says why", "bold red"))
    beats = [queue.heartbeat_at for queue in queues.values() if queue.heartbeat_at is not None]
    if beats and now_ms - max(beats) > SILENT_MS:
        console.line(
            (f"no heartbeat of any queue for {duration(now_ms - max(beats))}: is the bridge running?", "yellow")
        )


def _table(queues: Mapping[QueueName, Queue], now_ms: int) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("source", "queue"):
        table.add_column(name, no_wrap=True)
    for name in (*STATES, "lag", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bridge", no_wrap=True)
    for (source, name), queue in queues.items():
        table.add_row(console.text(source), console.text(name), *_numbers(queue), _bridge(queue, now_ms))
    return table


def _numbers(queue: Queue) -> list[Text]:
    states = [_number(queue.jobs.get(state, 0), STATE_STYLES.get(state, "")) for state in STATES]
    lag = Text("?") if queue.lag_ms is None else Text(duration(queue.lag_ms))
    lost = Text("?") if queue.lost is None else _number(queue.lost, "bold red")
    return [*states, lag, lost]


def _number(count: int, style: str) -> Text:
    return Text(f"{count:,}", style if count else "dim")


def _bridge(queue: Queue, now_ms: int) -> Text:
    """What there is to say of the bridge's side, the worst of it."""
    if queue.refused is not None:
        return Text(printable(f"refused: {queue.refused}", SHORT), "bold red")
    if queue.heartbeat_at is None:
        return Text("no heartbeat yet", "yellow")
    age_ms = now_ms - queue.heartbeat_at
    if age_ms > SILENT_MS:
        return Text(f"silent for {duration(age_ms)}", "yellow")
    if queue.snapshot is not None:
        return Text(_progress(queue.snapshot), "cyan")
    drift = sum(abs(count) for count in (queue.drift or {}).values())
    paused = "paused queue" if queue.paused else ""
    said = ", ".join(filter(None, (paused, f"drift {drift:,}" if drift else "")))
    return Text(said, "yellow") if said else Text("ok", "green")


def _progress(snapshot: Mapping[str, Any]) -> str:
    done, jobs = snapshot.get("done"), snapshot.get("jobs")
    if isinstance(done, int) and isinstance(jobs, int):
        return f"comparing, {done:,} of {jobs:,} jobs"
    return "comparing"


def job(row: Mapping[str, Any]) -> None:
    """All fields of a row but the worker's notes, then its history."""
    state = row["state"]
    console.line((f"{row['source']}/{row['queue']}/{row['id']}  ", "bold"), (state, STATE_STYLES.get(state, "")))
    for name, value in row.items():
        if name not in ("history", "_") and value is not None:
            console.line((f"  {name:<16}", "dim"), (_value(name, value), ""))
    if row.get("history"):
        console.line(("history", "bold"))
    for step in row.get("history", []):
        error = f"  {step['error']}" if step.get("error") else ""
        console.line(
            (f"  {clock(step['at'])}  ", "dim"),
            (f"{step['from'] or '·'} → ", ""),
            (step["to"], STATE_STYLES.get(step["to"], "")),
            (f"  {step['cause']}", "dim"),
            (error, "red"),
        )


_TIMES: Final = ("timestamp", "processed_on", "finished_on", "since", "due_at", "observed_at", "life")


def _value(name: str, value: Any) -> str:
    if name in _TIMES and isinstance(value, int):
        return f"{clock(value)}  ({value})"
    return value if isinstance(value, str) else wire.dumps(value).decode()


def clock(ms: int) -> str:
    """Local date and time, to the millisecond."""
    seconds, milli = divmod(ms, 1000)
    try:
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{milli:03d}"
    except (OverflowError, ValueError, OSError):
        return str(ms)


def duration(ms: int) -> str:
    """`85 ms`, `3.2 s`, `12 min`, `5.0 h`, `2.1 d`."""
    for unit, size, places in (("d", 86_400_000, 1), ("h", 3_600_000, 1), ("min", 60_000, 0), ("s", 1_000, 1)):
        if ms >= size:
            return f"{ms / size:.{places}f} {unit}"
    return f"{ms} ms"


def _print(table: Table) -> None:
    terminal = console.out()
    if not terminal.is_terminal:
        terminal.width = 240  # nothing is cut off in a file
    terminal.print(table)
