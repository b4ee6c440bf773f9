"""The greatest batch that each topic takes: the topics' own `max.message.bytes`, as far as it is known.

The broker measures a batch as it arrives, header included and compressed where it is; a record alone in its batch is
measured here as it is before compression, so what is written here fits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

log = logging.getLogger(__name__)

DEFAULT_BYTES: Final = 1_048_588
"""Kafka's own default of `max.message.bytes`."""
BATCH_BYTES: Final = 900_000
"""What many records are gathered into at most; one record alone may be larger."""
FLOOR_BYTES: Final = 1_024
READ_TIMEOUT_S: Final = 10.0
READ_AGAIN_S: Final = 60.0
"""A record that does not fit has the limits read again, at most this often: somebody may have raised them."""


class Limits:
    """Limits of topics by their full names. `read` asks the broker; it leaves out what it may not know.

    A topic that it does not name has `default`. What the broker refused although its topic says that it fits is
    believed: half of that is the topic's limit, until the topic says something else.
    """

    def __init__(
        self,
        topics: Iterable[str],
        default: int = DEFAULT_BYTES,
        read: Callable[[], Awaitable[Mapping[str, int]]] | None = None,
    ) -> None:
        self.topics = frozenset(topics)
        self.default = default
        self.by_topic: dict[str, int] = {}
        self._read = read
        self._read_at: float | None = None
        self._said: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._told: frozenset[str] = frozenset()

    def of(self, topic: str) -> int:
        """Bytes of the greatest batch that a topic takes."""
        return self.by_topic.get(topic, self.default)

    @property
    def batch_bytes(self) -> int:
        """Bytes that a batch of many records may grow to, whatever topic it goes to."""
        return min(BATCH_BYTES, self.default, *self.by_topic.values())

    async def read(self) -> None:
        """Ask the broker. Where it does not answer, the last known stays."""
        self._read_at = time.monotonic()
        if self._read is None:
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                said = dict(await self._read())
        except Exception as error:  # noqa: BLE001 - whatever it is, a worker runs without the answer
            log.warning("max.message.bytes of the topics cannot be read: %r; %d is assumed", error, self.default)
            return
        self._tell(self.topics - said.keys())
        for topic in [topic for topic in self._refused if said.get(topic) != self._said.get(topic)]:
            del self._refused[topic]
        self._said = said
        self._settle()

    async def read_again(self) -> None:
        """As `read`, where the last time is long ago."""
        if self._read_at is None or time.monotonic() - self._read_at >= READ_AGAIN_S:
            await self.read()

    def refused(self, topic: str, size_bytes: int) -> bool:
        """The broker refused a batch of so many bytes. False where nothing smaller can be tried."""
        if size_bytes <= self.of(topic):
            self._refused[topic] = max(size_bytes // 2, FLOOR_BYTES)
            self._settle()
        log.warning("%s refuses a batch of %d bytes; from now on it gets %d at most", topic, size_bytes, self.of(topic))
        return self.of(topic) < size_bytes

    def _settle(self) -> None:
        self.by_topic = {**self._said, **self._refused}

    def _tell(self, untold: frozenset[str]) -> None:
        """Once for each set of topics."""
        if untold and untold != self._told:
            names = ", ".join(sorted(untold))
            log.warning("max.message.bytes of %s may not be read; %d is assumed", names, self.default)
        self._told = untold
