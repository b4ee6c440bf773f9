"""Text that BullMQ wrote as JSON, or that somebody else put in its place."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

_SURE_DIGITS: Final = 18
"""A number of so many digits, sign included, fits into 64 bits."""

_SMALL: Final = re.compile(r"0|[1-9][0-9]{0,17}")


def parse_json(text: str | None) -> Any:
    """The value of a JSON text; None for none. What is no JSON is kept as the text that it is.

    The value can be written as JSON in UTF-8 again: numbers beyond 64 bits become floats, as they are in JavaScript,
    and lone surrogates U+FFFD.
    """
    if text is None or text == "null":
        return None
    if _SMALL.fullmatch(text):  # most progress and many results: a tenth of the decoder's price
        return int(text)
    try:
        value = _DECODER.decode(text)
        return _without_lone_surrogates(value) if "\\u" in text else value
    except (ValueError, RecursionError):
        return text


def _without_lone_surrogates(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return _DECODER.decode(text.decode("utf-16", "replace"))


def _whole(digits: str) -> int | float:
    if len(digits) <= _SURE_DIGITS:
        return int(digits)
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    exact = int(digits)
    return exact if -(2**63) <= exact < 2**63 else number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER: Final = json.JSONDecoder(parse_int=_whole, parse_constant=_refuse)
