"""How large records may be: what the topics themselves say, and what of it is a record's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.wire import Headers

DEFAULT_BYTES: Final = 1_048_588
"""Kafka's `max.message.bytes` where it is not set, of a batch."""
_BATCH_BYTES: Final = 61
"""Kafka's own before the first record of a batch."""
_RECORD_BYTES: Final = 40
"""Most that a record's lengths, times and counts take."""
_HEADER_BYTES: Final = 10
"""Most that the two lengths of a header take."""


class Limits:
    """`max.message.bytes` of the topics by their short names, as last read."""

    def __init__(self) -> None:
        """Kafka's default until they are known."""
        self._bytes: dict[str, int] = {}

    def learn(self, found: Mapping[str, int]) -> None:
        """What the broker says now; a topic that it does not name keeps what was known."""
        self._bytes.update(found)

    def of(self, topic: str) -> int:
        """Most bytes of a batch on this topic."""
        return self._bytes.get(topic, DEFAULT_BYTES)

    def value_bytes(self, topic: str, key: bytes, headers: Headers) -> int:
        """Most bytes of a value, in a record with this key and these headers that is alone in its batch."""
        around = sum(len(name) * 4 + len(value) + _HEADER_BYTES for name, value in headers)
        return self.of(topic) - _BATCH_BYTES - _RECORD_BYTES - len(key) - around
