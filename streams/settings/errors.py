"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.errors import UserError
from streams.escape import printable


@dataclass(frozen=True, slots=True)
class Problem:
    """`where`: a file's path (with `:line` where known) or `environment`; `key`: as it was written there."""

    where: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = ": ".join(printable(part) for part in (self.where, self.key, self.message) if part)
        return f"{text}; {printable(self.hint)}" if self.hint else text


class ConfigError(UserError):
    """Nothing may start with this configuration. The text has one line for each of `problems`."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that was probably meant; empty where none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")
