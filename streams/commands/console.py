"""Output of the commands: styled text on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from streams import wire


def out() -> Console:
    """Standard output as it is now (tests exchange it). Long lines are the terminal's to wrap."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def line(*parts: tuple[str, str]) -> None:
    """One line of (text, style) parts."""
    out().print(Text.assemble(*((printable(text), style) for text, style in parts)))


def print_json(value: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(wire.dumps(value).decode() + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text of other people's jobs, without what could steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def text(value: str) -> Text:
    """For a table's cell."""
    return Text(printable(value))
