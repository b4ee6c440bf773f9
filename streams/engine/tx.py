"""What a fold sees of one partition: its rows, its changes to them, its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from streams.wire import NO_HEADERS, Headers, Unpackable, loads, pack

Row = dict[str, Any]


class Codec(NamedTuple):
    """How a row is read and written. `write` raises one of wire.Unpackable for what it cannot say."""

    read: Callable[[bytes], Row] = loads
    write: Callable[[Row], bytes] = pack


PLAIN: Final = Codec()
Output = tuple[str, int, bytes | None, bytes | None, Headers, int | None]
"""topic, partition, key, value, headers, timestamp in ms (None = the time of sending)"""

RECORD_OVERHEAD_BYTES: Final = 80
"""Upper bound of what the format adds to key, value and headers of a record alone in its batch: 61 bytes of the batch's
header, and lengths and deltas of the record."""
HEADER_OVERHEAD_BYTES: Final = 10
"""Upper bound of what the format adds to the name and the value of a header."""
HEADERS_ALLOWANCE_BYTES: Final = 4_096
"""Headers are taken to be smaller than twice this where key and value are far from the limit."""
NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})


def size_of(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Bytes of a record alone in its batch, at most: what a topic's `max.message.bytes` is compared with."""
    size = RECORD_OVERHEAD_BYTES + len(value or b"") + len(key or b"")
    return size + sum(HEADER_OVERHEAD_BYTES + len(name.encode()) + len(text) for name, text in headers)


class Unwritable(Exception):  # noqa: N818 - a fact about the record, not a failure of the engine
    """A row or an output that Kafka cannot take: `reason` is `too_large` or `not_encodable`."""

    def __init__(self, reason: str, topic: str, key: bytes | None, size_bytes: int, text: str = "") -> None:
        super().__init__(text or f"{topic}: a record of {size_bytes} bytes is {reason}")
        self.reason = reason
        self.topic = topic
        self.key = key
        self.size_bytes = size_bytes


class Tx:
    """One transaction's view of a partition. Nothing here is applied before the commit.

    `rows` are the committed rows as published bytes, so every read is a private copy. `limit_bytes` is the greatest
    record of a topic that `limits` does not name.
    """

    __slots__ = (
        "_plain_bytes", "codec", "limit_bytes", "limits", "outputs", "partition", "rows", "spent_bytes", "staged",
        "table_topic",
    )  # fmt: skip

    def __init__(
        self,
        partition: int,
        rows: dict[bytes, bytes],
        table_topic: str,
        limit_bytes: int,
        codec: Codec = PLAIN,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> None:
        self.partition = partition
        self.rows = rows
        self.table_topic = table_topic
        self.limit_bytes = limit_bytes
        self.limits = limits
        self.codec = codec
        self._plain_bytes = min((limit_bytes, *limits.values())) // 2 - HEADERS_ALLOWANCE_BYTES
        self.staged: dict[bytes, Row | None] = {}
        self.outputs: list[Output] = []
        self.spent_bytes = 0
        """What the transaction will take about: rows as they were read, outputs as they will be written."""

    def limit_of(self, topic: str) -> int:
        """Bytes of the greatest record that a topic takes, overhead included."""
        return self.limits.get(topic, self.limit_bytes)

    def get(self, key: bytes) -> Row | None:
        """The row as this batch has it so far; None when there is none."""
        if key in self.staged:
            return self.staged[key]
        raw = self.rows.get(key)
        if raw is None:
            return None
        self.spent_bytes += len(raw)
        return self.codec.read(raw)

    def put(self, key: bytes, row: Row | None) -> None:
        """Stage a row; None is a tombstone."""
        self.staged[key] = row

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = NO_HEADERS,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        """Stage an output. `partition` None = the partition of the event (co-partitioned topics).

        Raises Unwritable when the record is larger than the limit; nothing was staged then.
        """
        plain = self._plain_bytes
        size = len(value) if value is not None else 0
        if size > plain or (key is not None and len(key) > plain):
            self.check(topic, key, value, headers)
        self.spent_bytes += size
        to = self.partition if partition is None else partition
        self.outputs.append((topic, to, key, value, headers, timestamp_ms))

    def check(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise Unwritable for an output larger than the limit of its topic."""
        size = size_of(key, value, headers)
        if size > self.limit_of(topic):
            raise Unwritable("too_large", topic, key, size)

    def encode(self) -> dict[bytes, bytes | None]:
        """The staged rows as they are published. Raises Unwritable."""
        encode_row = self.encode_row
        return {key: None if row is None else encode_row(key, row) for key, row in self.staged.items()}

    def encode_row(self, key: bytes, row: Row) -> bytes:
        """One row as it is published. Raises Unwritable."""
        try:
            raw = self.codec.write(row)
        except Unpackable as error:
            raise Unwritable("not_encodable", self.table_topic, key, 0, str(error)) from error
        if len(key) + len(raw) > self._plain_bytes:
            self.check(self.table_topic, key, raw, NO_HEADERS)
        return raw

    def mark(self) -> None:
        """Where `CheckedTx.take_back` goes back to. Here nothing can be taken back, and it costs nothing."""


_ABSENT: Final = object()


class CheckedTx(Tx):
    """As Tx, but every row and output is measured when it is staged, and what was done since a mark can be taken back.

    Slow; a batch is folded on it only after a fold on the plain one met something unwritable, or failed.
    """

    __slots__ = ("_before", "_encoded", "_outputs_before", "_spent_before")

    def __init__(
        self,
        partition: int,
        rows: dict[bytes, bytes],
        table_topic: str,
        limit_bytes: int,
        codec: Codec = PLAIN,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> None:
        super().__init__(partition, rows, table_topic, limit_bytes, codec, limits)
        self._encoded: dict[bytes, bytes | None] = {}
        self._before: dict[bytes, Any] = {}
        """Encoded rows as they were at the mark, of the keys that were staged since."""
        self.mark()

    def get(self, key: bytes) -> Row | None:
        """As in Tx; a copy also of a staged row, so that taking back is complete."""
        if key not in self._encoded:
            return super().get(key)
        raw = self._encoded[key]
        return None if raw is None else self.codec.read(raw)

    def put(self, key: bytes, row: Row | None) -> None:
        """As in Tx. Raises Unwritable at once; nothing was staged then."""
        raw = None if row is None else self.encode_row(key, row)
        staged = None if raw is None else self.codec.read(raw)
        self._before.setdefault(key, self._encoded.get(key, _ABSENT))
        self._encoded[key] = raw
        self.staged[key] = staged

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = NO_HEADERS,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        """As in Tx."""
        self.check(topic, key, value, headers)
        super().emit(topic, key, value, headers, timestamp_ms, partition)

    def encode(self) -> dict[bytes, bytes | None]:
        """As in Tx; each row was encoded when it was staged, so nothing is raised any more."""
        return dict(self._encoded)

    def mark(self) -> None:
        """Take back no further than to here."""
        self._before.clear()
        self._outputs_before = len(self.outputs)
        self._spent_before = self.spent_bytes

    def take_back(self) -> None:
        """Forget everything since the mark."""
        for key, raw in self._before.items():
            if raw is _ABSENT:
                del self._encoded[key], self.staged[key]
            else:
                self._encoded[key] = raw
                self.staged[key] = None if raw is None else self.codec.read(raw)
        self._before.clear()
        del self.outputs[self._outputs_before :]
        self.spent_bytes = self._spent_before
