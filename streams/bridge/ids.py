"""Ids of stream entries, as the stream orders them."""

from __future__ import annotations

from typing import Final

Id = tuple[int, int]
START: Final[Id] = (0, 0)


def parse_id(text: str) -> Id:
    """`ms-seq` as two ints, which compare as the stream orders."""
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def format_id(at: Id) -> str:
    """The inverse of `parse_id`."""
    return f"{at[0]}-{at[1]}"
