"""Other people's texts where a terminal or a line-based log reads them: one line, and nothing that could steer it.

What is escaped is what Unicode does not call printable: control characters (C0, DEL, C1), line and paragraph
separators, marks that turn the direction of writing, invisible ones, lone surrogates. Letters of any script stay.
"""

from __future__ import annotations

from typing import Final

_CUT: Final = "…"


def printable(text: str, most: int | None = None) -> str:
    r"""The text in one line: a newline as `\n`, escape as `\x1b`. With `most`, cut to so many characters before."""
    if most is not None and len(text) > most:
        text = text[:most] + _CUT
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def printable_json(text: str) -> str:
    r"""JSON in one line, equal in value: inside of strings what is not printable stands as `\uXXXX`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _unit(char) for char in text)


def _unit(char: str) -> str:
    code = ord(char)
    if code <= 0xFFFF:  # noqa: PLR2004 - the last code point that UTF-16 says in one unit
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
