"""Output of the commands: styled text on a terminal, plain text elsewhere, JSON on request."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from streams import wire
from streams.escape import printable, printable_json


def out() -> Console:
    """Standard output as it is now (tests exchange it). Long lines are the terminal's to wrap."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def line(*parts: tuple[str, str]) -> None:
    """One line of (text, style) parts, whatever is in the texts."""
    out().print(Text.assemble(*((printable(text), style) for text, style in parts)))


def print_json(value: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(printable_json(wire.dumps(value).decode()) + "\n")
    sys.stdout.flush()


def text(value: str) -> Text:
    """For a table's cell."""
    return Text(printable(value))
