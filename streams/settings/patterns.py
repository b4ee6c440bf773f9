"""Glob patterns of queues: whether one can match a queue at all, and whether two can match the same one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 512
_TOKEN: Final = re.compile(r"\*|\?|\[!?\]?[^]]*\]|.", re.DOTALL)


def check_pattern(pattern: str) -> str:
    """A pattern of `queues` or `exclude`. Raises ValueError where no queue can ever match it."""
    literal = re.sub(r"\[[^]]*\]", "", pattern)
    if ":" in literal:
        raise ValueError("has a pattern with ':', which no queue's name has; the prefix is not part of the name")
    if "(?!)" in fnmatch.translate(pattern):
        raise ValueError("has a pattern that matches nothing: a range such as [z-a] is empty")
    return pattern


def overlap(queues: Sequence[str], without: Sequence[str], others: Sequence[str], others_without: Sequence[str]) -> str:
    """The pattern or patterns under which both sides may find the same queue; empty where they certainly do not.

    What one pattern of an `exclude` covers as a whole is out; several together are not added up.
    """
    for pattern in queues:
        for other in others:
            excluded = any(covers(each, pattern) or covers(each, other) for each in (*without, *others_without))
            if meet(pattern, other) and not excluded:
                return _narrower(pattern, other)
    return ""


def _narrower(one: str, other: str) -> str:
    if covers(other, one):
        return one
    return other if covers(one, other) else f"{one} and {other}"


def covers(wide: str, narrow: str) -> bool:
    """Whether everything that `narrow` matches is certainly matched by `wide`."""
    if wide == narrow or (wide and not wide.strip("*")):
        return True
    return not re.search(r"[*?\[]", narrow) and fnmatch.fnmatchcase(narrow, wide)


def meet(one: str, other: str) -> bool:
    """Whether a name can match both patterns."""
    left, right = _TOKEN.findall(one), _TOKEN.findall(other)
    # Row i, column k: whether what is left of `left` from i on and of `right` from k on can match the same text.
    below: list[bool] = []
    for i in range(len(left), -1, -1):
        row = [False] * (len(right) + 1)
        for k in range(len(right), -1, -1):
            if i == len(left) and k == len(right):
                row[k] = True
            elif i < len(left) and left[i] == "*":
                row[k] = below[k] or (k < len(right) and row[k + 1])
            elif k < len(right) and right[k] == "*":
                row[k] = row[k + 1] or (i < len(left) and below[k])
            elif i < len(left) and k < len(right):
                row[k] = _share(left[i], right[k]) and below[k + 1]
        below = row
    return below[0]


def _share(one: str, other: str) -> bool:
    """Whether two tokens can stand for the same character. Of two sets that is taken for granted."""
    if len(one) == 1 and one != "?":
        return fnmatch.fnmatchcase(one, other) if other != one else True
    return fnmatch.fnmatchcase(other, one) if len(other) == 1 and other != "?" else True
