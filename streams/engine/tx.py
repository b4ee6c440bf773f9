"""What a fold sees of one partition: its rows, its changes to them, its outputs."""

from __future__ import annotations

from collections.abc import Callable
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

RECORD_OVERHEAD_BYTES: Final = 100
"""Upper bound of what the record format adds to key, value and headers, batch header included."""
HEADER_OVERHEAD_BYTES: Final = 10
HEADERS_ALLOWANCE_BYTES: Final = 4_096
"""Headers are taken to be smaller than twice this where key and value are far from the limit."""


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

    `rows` are the committed rows as published bytes, so every read is a private copy.
    """

    __slots__ = ("_plain_bytes", "codec", "limit_bytes", "outputs", "partition", "rows", "staged", "table_topic")

    def __init__(
        self, partition: int, rows: dict[bytes, bytes], table_topic: str, limit_bytes: int, codec: Codec = PLAIN
    ) -> None:
        self.partition = partition
        self.rows = rows
        self.table_topic = table_topic
        self.limit_bytes = limit_bytes
        self.codec = codec
        self._plain_bytes = limit_bytes // 2 - HEADERS_ALLOWANCE_BYTES
        self.staged: dict[bytes, Row | None] = {}
        self.outputs: list[Output] = []

    def get(self, key: bytes) -> Row | None:
        """The row as this batch has it so far; None when there is none."""
        if key in self.staged:
            return self.staged[key]
        raw = self.rows.get(key)
        return None if raw is None else self.codec.read(raw)

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
        if (value is not None and len(value) > plain) or (key is not None and len(key) > plain):
            self.check(topic, key, value, headers)
        to = self.partition if partition is None else partition
        self.outputs.append((topic, to, key, value, headers, timestamp_ms))

    def check(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise Unwritable for an output larger than the limit."""
        size = RECORD_OVERHEAD_BYTES + len(value or b"") + len(key or b"")
        size += sum(HEADER_OVERHEAD_BYTES + len(name) + len(text) for name, text in headers)
        if size > self.limit_bytes:
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


class CheckedTx(Tx):
    """As Tx, but every row and output is measured when it is staged, and what a record did can be taken back.

    Slow; a batch is folded on it only after a fold on the plain one met something unwritable.
    """

    __slots__ = ("_outputs_before", "_staged_before")

    def __init__(
        self, partition: int, rows: dict[bytes, bytes], table_topic: str, limit_bytes: int, codec: Codec = PLAIN
    ) -> None:
        super().__init__(partition, rows, table_topic, limit_bytes, codec)
        self.mark()

    def get(self, key: bytes) -> Row | None:
        """As in Tx; a copy also of a staged row, so that taking back is complete."""
        row = super().get(key)
        return row if row is None or key not in self.staged else self.codec.read(self.codec.write(row))

    def put(self, key: bytes, row: Row | None) -> None:
        """As in Tx. Raises Unwritable at once; nothing was staged then."""
        self.staged[key] = None if row is None else self.codec.read(self.encode_row(key, row))

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

    def mark(self) -> None:
        """Remember the state before a record."""
        self._staged_before = dict(self.staged)
        self._outputs_before = len(self.outputs)

    def take_back(self) -> None:
        """Forget everything since the mark."""
        self.staged = dict(self._staged_before)
        del self.outputs[self._outputs_before :]
