"""Bytes on the wire: JSON, CloudEvents headers, times. The only module that knows the JSON libraries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import orjson

Headers = list[tuple[str, bytes]]

NO_HEADERS: Final[Headers] = []
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

loads = orjson.loads
JSONDecodeError = orjson.JSONDecodeError
Raw = orjson.Fragment
"""JSON text that goes out as it is, unchecked: only for text that `dumps` made or `loads` accepted."""
dumps = orjson.dumps
"""JSON in UTF-8. Integers beyond 64 bits and lone surrogates raise TypeError (orjson.JSONEncodeError)."""

Carried = msgspec.Raw
"""In a shape: a value that is carried along as the text that it is, and neither decoded nor encoded on the way."""
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""In a shape: an integer that every reader of JSON can hold."""
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""In a shape: ms since the epoch."""
pack = msgspec.json.Encoder().encode
"""As `dumps`, but for Carried values too; and what it returns holds on to little more memory than its length, where
what `dumps` returns holds several KiB. Raises one of Unpackable."""
Unpackable = (TypeError, ValueError, RecursionError)


def reader(shape: Any) -> Callable[[bytes], Any]:
    """Reads JSON of a shape (a TypedDict, `total=False`), checks its types, leaves out fields that it does not name.

    The function raises ShapeError for what is not so; text that is not UTF-8 may pass in what is Carried or left out.
    """
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(shape).decode
    return decode


ShapeError = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


_MILLIS: Final = tuple(b".%03dZ" % milli for milli in range(1000))


@lru_cache(maxsize=1024)
def _second(seconds: int) -> bytes:
    """Events come in order of time, so nearly all of them share their second with the one before."""
    return f"{datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC):%Y-%m-%dT%H:%M:%S}".encode()


def rfc3339(ms: int) -> bytes:
    """Milliseconds since the epoch as `2026-11-24T20:57:53.123Z`.

    A stream id may be any number and a clock may be wrong: what lies before 1970 or after the year 9999, the last that
    RFC 3339 can write, becomes the nearest second that it can.
    """
    ms = max(ms, 0)
    return _second(ms // 1000) + _MILLIS[ms % 1000]


@lru_cache(maxsize=4096)
def _shared(ce_type: str, ce_source: str) -> Headers:
    """What the records of one kind and queue have in common."""
    return [
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
        ("ce_type", ce_type.encode()),
        ("ce_source", ce_source.encode()),
    ]


def cloud_event(ce_id: bytes, ce_type: str, ce_source: str, at_ms: int) -> Headers:
    """Headers of a CloudEvents 1.0 record in Kafka's binary mode."""
    return [*_shared(ce_type, ce_source), ("ce_id", ce_id), ("ce_time", rfc3339(at_ms))]
