"""What the engine asks of its user: the handler's methods, the options; and what it tells it of a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams.engine.limits import DEFAULT_BYTES
from streams.engine.tx import PLAIN, Codec, Row, Tx, Unwritable

ConsumerRecord = Any
"""aiokafka.ConsumerRecord[bytes, bytes]: topic, partition, offset, timestamp (ms), key, value, headers."""


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """One committed batch. Offsets and records are those of `events`; `records` come in the order folded."""

    fetches: Sequence[Sequence[ConsumerRecord]]
    events: int
    rows: int
    outputs: int
    attempts: int
    fold_s: float
    commit_s: float
    committed_at_ms: int

    @property
    def seconds(self) -> float:
        """Fold and commit of the attempt that was committed."""
        return self.fold_s + self.commit_s

    @property
    def oldest_ms(self) -> int | None:
        """Least record timestamp of the batch; None for a batch of ticks alone."""
        return min((record.timestamp for fetch in self.fetches for record in fetch), default=None)

    @property
    def newest_ms(self) -> int | None:
        """Greatest record timestamp of the batch; None for a batch of ticks alone."""
        return max((record.timestamp for fetch in self.fetches for record in fetch), default=None)


class Handler(Protocol):
    """The user of the engine. The first three are pure in what they do: after an abort a batch is folded again.

    An exception out of `on_record` or `on_tick` costs the record or the tick: the batch is folded again with care, and
    what failed is set aside by `on_unwritable` or `on_failed`. Out of the others it ends the process.
    """

    def on_record(self, tx: Tx, record: ConsumerRecord) -> None:
        """Fold one record of the events topic."""

    def on_tick(self, tx: Tx, now_ms: int) -> None:
        """Do what is due, between two batches and in the same transaction. `now_ms` is the only clock."""

    def on_unwritable(self, tx: Tx, record: ConsumerRecord | None, error: Unwritable) -> None:
        """In place of a record (None: a tick) that made a row or an output Kafka cannot take.

        All it had staged is taken back. What is staged here must fit: what fails here too is left out.
        """

    def on_failed(self, tx: Tx, record: ConsumerRecord | None, error: Exception) -> None:
        """In place of a record (None: a tick) on which `on_record` (`on_tick`) raised anything else; as above."""

    def on_recovered(self, partition: int, rows: dict[bytes, bytes]) -> Iterator[None] | None:
        """The rows of a partition are complete: build indexes. `rows` is the live table: what is no row may go.

        Where that takes long it is an iterator, with a step at each of which the loop may turn. It may never be brought
        to its end: the partition may be taken away, and `rows` change, in between.
        """

    def on_expired(self, partition: int, first: int, upto: int) -> None:
        """The events that come next, from offset `first` to before `upto`, are gone: nobody has read them in time.

        Called when the rows are complete. A tick follows before the next event, in whose transaction to tell of it.
        """

    def on_committed(self, partition: int, staged: dict[bytes, Row | None], batch: BatchInfo) -> None:
        """A batch is committed and applied: the place to change indexes and to count."""

    def on_revoked(self, partitions: set[int]) -> None:
        """These partitions are no longer ours, or are about to be assigned and recovered anew."""


@dataclass(frozen=True)
class EngineOptions:
    """All the engine has to know. `client`: keyword arguments that every aiokafka client takes
    (`bootstrap_servers`, `security_protocol`, `ssl_context`, `sasl_*`).
    """

    app_id: str
    client: Mapping[str, Any] = field(repr=False)
    events_topic: str
    table_topic: str
    output_topics: tuple[str, ...] = ()
    """Topics that must exist before the start, beside the two."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """How many partitions a topic is taken to have, by its full name; another number ends the process."""
    codec: Codec = PLAIN
    """How the handler's rows are read and written."""
    exactly_once: bool = True
    linger_s: float = 0.05
    max_records: int = 2_000
    max_queued: int = 20_000
    """Records that one partition reads ahead."""
    max_queued_bytes: int = 64 << 20
    """Bytes that all partitions together read ahead, beside one fetch for each."""
    max_batch_bytes: int = 6 << 20
    """Bytes of rows and outputs after which a transaction takes no further record."""
    max_record_bytes: int = DEFAULT_BYTES
    """Greatest row or output, overhead included, where the topic's own limit is not known."""
    record_limits: Callable[[], Awaitable[Mapping[str, int]]] | None = field(default=None, repr=False)
    """Asks the broker for `max.message.bytes` by topic; leaves out what may not be known."""
    fetch_bytes: int = 1 << 20
    """Of one fetch of one partition. A record that is larger is fetched alone."""
    session_timeout_s: float = 10.0
    transaction_timeout_s: float = 15.0
    finish_timeout_s: float = 20.0
    standbys: int = 0
    instance_id: str | None = None
    compression: str | None = None

    @property
    def bootstrap_servers(self) -> tuple[str, ...]:
        """`host:port` of each server named."""
        servers = self.client["bootstrap_servers"]
        return tuple(servers.split(",") if isinstance(servers, str) else servers)


@dataclass(slots=True)
class Stats:
    """Sums since the start."""

    events: int = 0
    transactions: int = 0
    aborted: int = 0
    recoveries: int = 0
    fold_s: float = 0.0
    commit_s: float = 0.0
    restore_s: float | None = None
    """Duration of the last recovery, from the assignment on."""
