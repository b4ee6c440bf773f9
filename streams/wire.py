"""Bytes on the wire: JSON, CloudEvents headers, times. The only module that knows the JSON library."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import orjson

Headers = list[tuple[str, bytes]]

NO_HEADERS: Final[Headers] = []
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_FIXED: Final[Headers] = [("ce_specversion", b"1.0"), ("content-type", b"application/json")]

loads = orjson.loads
JSONDecodeError = orjson.JSONDecodeError
Raw = orjson.Fragment
"""JSON text that goes out as it is, unchecked: only for text that `dumps` made or `loads` accepted."""
dumps = orjson.dumps
"""JSON in UTF-8. Integers beyond 64 bits and lone surrogates raise TypeError (orjson.JSONEncodeError)."""


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Events come in order of time, so nearly all of them share their second with the one before."""
    return f"{datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC):%Y-%m-%dT%H:%M:%S}"


def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as `2026-11-24T20:57:53.123Z`.

    A stream id may be any number and a clock may be wrong: what lies before 1970 or after the year 9999, the last that
    RFC 3339 can write, becomes the nearest second that it can.
    """
    seconds, milli = divmod(max(ms, 0), 1000)
    return f"{_second(seconds)}.{milli:03d}Z"


def cloud_event(ce_id: str, ce_type: str, ce_source: str, at_ms: int) -> Headers:
    """Headers of a CloudEvents 1.0 record in Kafka's binary mode."""
    return [
        *_FIXED,
        ("ce_id", ce_id.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_source", ce_source.encode()),
        ("ce_time", rfc3339(at_ms).encode()),
    ]
