"""Text that BullMQ wrote as JSON, or that somebody else put in its place."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

LARGEST: Final = 2**63 - 1
"""The largest integer that every reader of our records can hold. The smallest that is written is its negative."""

MAX_DEPTH: Final = 500
"""How deep a value may be nested that is taken over as a value: every reader of JSON that we know can follow so far."""

_SURE_DIGITS: Final = 18
"""A number of so many digits, sign included, fits into 64 bits."""

_SMALL: Final = re.compile(r"0|[1-9][0-9]{0,17}")


def parse_json(text: str | None) -> Any:
    """The value of a JSON text; None for none. What is no JSON is kept as the text that it is.

    The value can be written as JSON in UTF-8 again: numbers beyond 64 bits become floats, as they are in JavaScript,
    and lone surrogates U+FFFD. What is nested deeper than MAX_DEPTH, or holds a number that no float can, is text.
    """
    value = json_or(text, _NONE)
    return clean(text) if text is not None and value is _NONE else value


def json_or(text: str | None, otherwise: Any) -> Any:
    """As `parse_json`, but `otherwise` where the text is no JSON."""
    if text is None or text == "null":
        return None
    if _SMALL.fullmatch(text):  # most progress and many results: a tenth of the decoder's price
        return int(text)
    try:
        value = _DECODER.decode(text)
        if len(text) > MAX_DEPTH and _depth(text) > MAX_DEPTH:
            return otherwise
        return value if text.isascii() and "\\u" not in text else _without_lone_surrogates(value)
    except (ValueError, RecursionError):
        return otherwise


def _depth(text: str) -> int:
    """How deep a JSON text is nested."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for mark in _MARKS.findall(text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def _without_lone_surrogates(value: Any) -> Any:
    return _DECODER.decode(clean(json.dumps(value, ensure_ascii=False)))


def clean(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot say."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, limit_bytes: int) -> str:
    """The text, if need be cut at a character and ended with `… (N bytes)` to fit into so many bytes of UTF-8.

    N = bytes of the original, also where the text had been cut before.
    """
    if len(text) <= limit_bytes and text.isascii():
        return text
    encoded = clean(text).encode()
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    before = _CUT.search(text)
    size = before[1] if before else len(encoded)
    suffix = f"… ({size} bytes)"
    kept = max(limit_bytes - len(suffix.encode()), 0)
    return encoded[:kept].decode(errors="ignore") + suffix


def fit(number: int) -> int:
    """The number, or the nearest that fits into 64 bits."""
    if -LARGEST <= number <= LARGEST:
        return number
    return LARGEST if number > 0 else -LARGEST


def whole(value: object) -> int | None:
    """A number out of JSON as an integer of 64 bits, the nearest one that there is; None for what is no number."""
    if type(value) is int:
        return fit(value)
    if not isinstance(value, float) or math.isnan(value):
        return None
    return fit(int(value)) if math.isfinite(value) else LARGEST if value > 0 else -LARGEST


def is_extreme(number: int) -> bool:
    """Whether a number is one of the two that stand for what is beyond."""
    return number >= LARGEST or number <= -LARGEST


def _whole(digits: str) -> int | float:
    if len(digits) <= _SURE_DIGITS:
        return int(digits)
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    exact = int(digits)
    return exact if -(2**63) <= exact < 2**63 else number


def _fraction(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_NONE: Final = object()
_MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_CUT: Final = re.compile(r"… \(([0-9]{1,19}) bytes\)\Z")
_DECODER: Final = json.JSONDecoder(parse_int=_whole, parse_float=_fraction, parse_constant=_refuse)
