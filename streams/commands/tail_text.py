"""`tail` for people: one line a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streams import topology, wire
from streams.commands import console
from streams.commands.reading import Record
from streams.commands.status_text import STATE_STYLES, clock

Parts = list[tuple[str, str]]
_LONGEST: Final = 400


def show(topic: str, record: Record) -> None:
    """Print a record."""
    head: Parts = [(f"{clock(record.timestamp)}  ", "dim"), (f"{short(_decoded(record.key))}  ", "bold")]
    console.line(*head, *_body(topic, record))


def _body(topic: str, record: Record) -> Parts:
    if topic == topology.DEAD_LETTERS:
        headers = {name: _decoded(value) for name, value in record.headers}
        return [(headers.get("dlq_reason", ""), "bold red"), (f"  {short(headers.get('dlq_error', ''))}", "")]
    if record.value is None:
        return [("gone", "dim")]
    try:
        return [(str(text), style) for text, style in _WRITERS[topic](wire.loads(record.value))]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [(short(_decoded(record.value)), "red")]


def _event(value: dict[str, Any]) -> Parts:
    details = value["fields"] if "fields" in value else {k: value.get(k) for k in ("reason", "found", "where")}
    return [(value["event"], _style(value["event"])), (f"  {_pairs(details)}", "dim")]


def _status(row: dict[str, Any]) -> Parts:
    attempts = f"  attempt {row['attempts_made']}/{row['max_attempts'] or '?'}"
    return [(row["state"], _style(row["state"])), (f"  {short(row['name'] or '')}", ""), (attempts, "dim")]


def _transition(value: dict[str, Any]) -> Parts:
    parts: Parts = [
        (f"{value['from'] or '·'} → ", ""),
        (value["to"], _style(value["to"])),
        (f"  {value['cause']}", "dim"),
    ]
    return [*parts, (f"  {short(value['error'])}", "red")] if value["error"] else parts


def _alert(value: dict[str, Any]) -> Parts:
    style = "bold red" if value["status"] == "firing" else "green"
    return [(f"{value['status']} {value['rule']}", style), (f"  {short(value['annotations']['summary'])}", "")]


def _health(value: dict[str, Any]) -> Parts:
    details = {name: item for name, item in value.items() if name not in ("type", "source", "queue", "at")}
    return [(value["type"], "yellow" if value["type"] == "gap" else ""), (f"  {_pairs(details)}", "dim")]


_WRITERS: Final[dict[str, Callable[[dict[str, Any]], Parts]]] = {
    topology.EVENTS: _event,
    topology.STATUS: _status,
    topology.TRANSITIONS: _transition,
    topology.ALERTS: _alert,
    topology.HEALTH: _health,
}


def _style(word: str) -> str:
    return STATE_STYLES.get(word, "")


def _pairs(details: dict[str, Any]) -> str:
    return short(
        " ".join(
            f"{name}={item if isinstance(item, str) else wire.dumps(item).decode()}" for name, item in details.items()
        )
    )


def short(text: str) -> str:
    """No longer than a line that is still read."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _decoded(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "backslashreplace")
