"""Write to Kafka exactly once: what a turn made and the checkpoints that cover it are one transaction."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced, RecordListTooLargeError
from aiokafka.producer import sender

from streams import admin, topology
from streams.bridge import checkpoint, encode
from streams.bridge.checkpoint import Checkpoint
from streams.bridge.fence import Holder, holder
from streams.bridge.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.bridge.encode import Record
    from streams.bridge.outage import Outage
    from streams.settings import Settings

log = logging.getLogger(__name__)

MAX_BATCH_BYTES: Final = 950_000
_AROUND_BYTES: Final = 320
"""Headers of most records, and the record's own fields."""
MOST_BYTES: Final = 8_000_000
"""Of a transaction: what takes seconds to write holds up every reader of committed records for as long."""
_RECORD_BYTES: Final = 400
"""Headers and what a record takes in memory beside key and value."""
_MERGED_BYTES: Final = MOST_BYTES // 4
_TRANSACTION_TIMEOUT_S: Final = 15.0
_START_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 3.0
_WRITTEN = (topology.EVENTS, topology.CHECKPOINTS, topology.HEALTH, topology.DEAD_LETTERS)
_NEEDED = (topology.EVENTS, topology.PROBES, topology.CHECKPOINTS, topology.HEALTH, topology.DEAD_LETTERS)

# A transaction begun while the markers of the last are being written waits this long, not 20 ms.
sender.BACKOFF_OVERRIDE = 0.002


class FencedError(Exception):
    """Another bridge with this id has taken over."""


class TopicsMissingError(Exception):
    """The topics are not there, have another number of partitions, or may not be used."""


@dataclass(slots=True)
class Chunk:
    """What goes out together. `on_committed` is called once it is on Kafka, `held` once it is held no more."""

    records: list[Record] = field(default_factory=list)
    checkpoints: dict[bytes, Checkpoint] = field(default_factory=dict)
    on_committed: list[Callable[[], None]] = field(default_factory=list)
    held: list[Callable[[], None]] = field(default_factory=list)
    size_bytes: int = 0

    def append(self, records: Iterable[Record]) -> None:
        """Records whose bytes count."""
        before = len(self.records)
        self.records.extend(records)
        own = self.records[before:]
        self.size_bytes += sum([len(record.value) + len(record.key) for record in own]) + _RECORD_BYTES * len(own)

    def add(self, other: Chunk) -> None:
        """Append another chunk, made later."""
        self.records.extend(other.records)
        self.checkpoints.update(other.checkpoints)
        self.on_committed.extend(other.on_committed)
        self.held.extend(other.held)
        self.size_bytes += other.size_bytes

    def forget(self) -> None:
        """It is held no more."""
        for done in self.held:
            done()
        self.held.clear()


class Publisher:
    """One producer; one chunk at a time on its way."""

    def __init__(self, settings: Settings, outage: Outage) -> None:
        """`outage` is told when Kafka is away and back."""
        self._settings = settings
        self._outage = outage
        outage.expect("kafka")
        self._producer: Any = None
        self._committed: dict[bytes, Checkpoint] = {}
        self._begun_at = 0.0
        self._held: Holder | None = None
        self._queue: asyncio.Queue[Chunk] = asyncio.Queue(maxsize=1)
        self._transactional = settings.delivery == "exactly_once"
        self._transactional_id = settings.bridge_transactional_id
        self.limits = Limits()
        """How large records may be, as the topics say."""

    async def start(self) -> dict[bytes, Checkpoint]:
        """Fence any older bridge of this id, then read where it stopped. Retries until Kafka is there.

        Raises FencedError where a newer one has fenced this one since it was last started.
        """
        while True:
            try:
                self._committed = await self._open()
            except (KafkaError, OSError, TimeoutError, TopicsMissingError) as error:
                await self._close()
                await self._outage.wait("topics" if isinstance(error, TopicsMissingError) else "kafka", error)
            else:
                self._outage.over("kafka", "topics")
                return self._committed

    async def put(self, chunk: Chunk) -> None:
        """Hand over; waits while another chunk is waiting."""
        await self._queue.put(chunk)

    @property
    def idle(self) -> bool:
        """Whether a chunk put now would be begun at once."""
        return self._queue.empty()

    async def run(self) -> None:
        """Publish until cancelled. Raises FencedError."""
        while True:
            chunk = await self._queue.get()
            parts = 1
            while not self._queue.empty() and chunk.size_bytes < _MERGED_BYTES:
                chunk.add(self._queue.get_nowait())
                parts += 1
            await self._publish(chunk)
            for _ in range(parts):
                self._queue.task_done()

    async def drain(self) -> None:
        """Return once all that was put is on Kafka."""
        await self._queue.join()

    async def _publish(self, chunk: Chunk) -> None:
        while True:
            watch = asyncio.get_running_loop().call_later(5.0, self._outage.say, "kafka", "no answer for 5 s")
            try:
                await self._send(chunk)
            except (KafkaError, OSError, TimeoutError) as error:
                if await self._recovered(chunk, error):
                    break
            else:
                break
            finally:
                watch.cancel()
        self._outage.over("kafka")
        self._committed.update(chunk.checkpoints)
        chunk.forget()
        for done in chunk.on_committed:
            done()

    async def _send(self, chunk: Chunk) -> None:
        own = [checkpoint.record(self._settings.bridge.id, each) for each in chunk.checkpoints.values()]
        self._begun_at = time.monotonic()
        if not self._transactional:
            await self._deliver(chunk.records)
            await self._deliver(own)
            return
        await self._producer.begin_transaction()
        await self._deliver([*chunk.records, *own])
        await self._producer.commit_transaction()

    async def _deliver(self, records: Iterable[Record]) -> None:
        """Every future is looked at: aiokafka commits a transaction without a batch that failed."""
        by_partition: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            by_partition.setdefault((record.topic, record.partition), []).append(record)
        futures: list[asyncio.Future[Any]] = []
        for (topic, partition), group in by_partition.items():
            name = self._settings.topic(topic)
            sent = [await self._producer.send_batch(b, name, partition=partition) for b in self._batches(group)]
            futures.extend(sent)
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _batches(self, records: list[Record]) -> list[Any]:
        batch = self._producer.create_batch()
        batches = [batch]
        # What the broker bounds is a batch: no topic gets a larger one than it takes, however it is compressed.
        most_bytes = min(MAX_BATCH_BYTES, self.limits.of(records[0].topic) * 9 // 10)
        room = most_bytes
        for _topic, _partition, key, value, timestamp_ms, headers in records:
            room -= len(value) + len(key) + _AROUND_BYTES
            full = room < 0 and batch.record_count()
            if full or batch.append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
                batch = self._producer.create_batch()
                batches.append(batch)
                batch.append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
                room = most_bytes - len(value) - len(key) - _AROUND_BYTES
        return batches

    async def _recovered(self, chunk: Chunk, error: Exception) -> bool:
        """Open a new producer, which ends the transaction in doubt; True where it had been committed after all."""
        if isinstance(error, ProducerFenced) and not self._expired:
            raise FencedError from error
        await self._close()
        refused = isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError))
        if refused:
            log.warning("a topic takes smaller records than before: its limit is read again")
        await self._outage.wait("kafka", error)
        before = self._committed
        now = await self.start()
        done = [_covers(now.get(key), wanted) for key, wanted in chunk.checkpoints.items()]
        if done and all(done):
            return True
        if refused:
            self._make_fit(chunk)
        if any(now.get(key) != before.get(key) for key in chunk.checkpoints) and self._transactional:
            raise FencedError from error
        return False

    @property
    def _expired(self) -> bool:
        """Whether the broker may have ended the transaction itself, which looks like a takeover."""
        return time.monotonic() - self._begun_at >= _TRANSACTION_TIMEOUT_S

    async def _open(self) -> dict[bytes, Checkpoint]:
        options = self._settings.kafka.client()
        if self._transactional:
            await self._check_holder()
            self._held = None  # a start that fails half way may have made a new holder
            options["transactional_id"] = self._transactional_id
            options["transaction_timeout_ms"] = int(_TRANSACTION_TIMEOUT_S * 1000)
        self._producer = AIOKafkaProducer(
            **options,
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            compression_type="lz4",
            request_timeout_ms=20_000,
        )
        async with asyncio.timeout(_START_TIMEOUT_S):
            await self._producer.start()
            if self._transactional:
                self._held = await holder(self._producer.client, self._transactional_id)
        await self._check_topics(self._producer)
        await self._learn_limits()
        return await checkpoint.read_all(self._settings)

    async def _check_holder(self) -> None:
        """Raises FencedError where another has opened the transactional id after this bridge did."""
        if self._held is None:
            return
        client = AIOKafkaClient(**self._settings.kafka.client())
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await client.bootstrap()
                now = await holder(client, self._transactional_id)
        finally:
            await client.close()
        if now is not None and now.took_over_from(self._held):
            raise FencedError

    async def _check_topics(self, producer: AIOKafkaProducer) -> None:
        cluster = await producer.client.fetch_all_metadata()
        wrong = []
        for topic in _NEEDED:
            declared = next(each for each in topology.TOPICS if each.name == topic)
            name, count = self._settings.topic(topic), declared.partitions or self._settings.kafka.partitions
            if len(cluster.partitions_for_topic(name) or ()) != count:
                wrong.append(f"{name} ({count} partitions)")
        if wrong:
            raise TopicsMissingError(
                f"{', '.join(wrong)}: not there, with another number of partitions, or not to be used by this Kafka "
                "user (bullmq-streams doctor says which)"
            )

    def _make_fit(self, chunk: Chunk) -> None:
        """The same chunk again would be refused again: what does not fit any more is made lighter, or a dead letter."""
        chunk.records[:] = [fitted for record in chunk.records for fitted in encode.fit(record, self.limits)]

    async def _learn_limits(self) -> None:
        """What the topics take; where that may not be asked, what was known."""
        found = await admin.record_limits(self._settings, _WRITTEN)
        for topic in set(_WRITTEN) - found.keys():
            log.info("%s may not be described: its records are held to %d bytes", topic, self.limits.of(topic))
        self.limits.learn(found)

    async def close(self) -> None:
        """Close the producer, bounded; an open transaction is left for the next start to end."""
        await self._close()

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            stopping = asyncio.ensure_future(producer.stop())
            done, _ = await asyncio.wait([stopping], timeout=_CLOSE_TIMEOUT_S)
            if not done:
                stopping.cancel()


def _covers(now: Checkpoint | None, wanted: Checkpoint) -> bool:
    return now == wanted
