"""Stand-ins: a broker's log of one producer, an app around the engine, records."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.types.tuples import TP

from streams.engine.engine import Engine
from streams.engine.messages import BatchMessage
from streams.engine.renewal import Renewal
from streams.engine.store import PartitionStore
from streams.wire import dumps, loads
from tests.engine.counting import Counting, Topics, options

PREFIX = "t"
TOPICS = Topics.of(PREFIX)


def record(offset: int, key: bytes = b"k", number: int | None = None, topic: str = TOPICS.events) -> Any:
    value = dumps({"number": offset if number is None else number})
    return SimpleNamespace(
        topic=topic,
        partition=0,
        offset=offset,
        timestamp=1_000 + offset,
        timestamp_type=0,
        key=key,
        value=value,
        headers=(),
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=1,
    )


def events_tp(partition: int = 0) -> TP:
    return TP(TOPICS.events, partition)


def table_tp(partition: int = 0) -> TP:
    return TP(TOPICS.table, partition)


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Recorded:
    """A builder that remembers what went in, so that a test can read a batch."""

    def __init__(self, size_bytes: int) -> None:
        self._builder = BatchBuilder(size_bytes, 0, is_transactional=1)
        self.records: list[tuple[bytes | None, bytes | None]] = []

    def append(self, *, key: Any, value: Any, timestamp: Any, headers: Any) -> Any:
        done = self._builder.append(timestamp=timestamp, key=key, value=value, headers=headers)
        if done is not None:
            self.records.append((key, value))
        return done

    def close(self) -> None:
        self._builder.close()

    def record_count(self) -> int:
        return int(self._builder.record_count())

    def size(self) -> int:
        return int(self._builder.size())


@dataclass
class FakeProducer:
    """Keeps a transaction apart until it is committed. `failures` are raised, one each, at the named step."""

    batch_bytes: int = 900_000
    visible: list[tuple[str, int, bytes | None, bytes | None]] = field(default_factory=list)
    pending: list[tuple[str, int, bytes | None, bytes | None]] = field(default_factory=list)
    offsets: dict[Any, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    failures: defaultdict[str, list[BaseException]] = field(default_factory=lambda: defaultdict(list))
    fatal: bool = False
    limit_bytes: int | None = None
    """Greatest batch that the broker takes; `refused` = sizes of those that it did not."""
    refused: list[int] = field(default_factory=list)
    gate: asyncio.Event | None = None
    ends: defaultdict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    _sequence_numbers: defaultdict[Any, int] = field(default_factory=lambda: defaultdict(int))
    _expected: defaultdict[Any, int] = field(default_factory=lambda: defaultdict(int))
    """The number that the broker wants a partition's next batch to begin with."""

    @property
    def _txn_manager(self) -> Any:
        numbers = self._sequence_numbers
        return SimpleNamespace(
            is_fatal_error=lambda: self.fatal, sequence_number=numbers.__getitem__, _sequence_numbers=numbers
        )

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if self.failures[name]:
            raise self.failures[name].pop(0)

    @property
    def _message_accumulator(self) -> Any:
        return self

    @property
    def _batch_size(self) -> int:
        return self.batch_bytes

    @_batch_size.setter
    def _batch_size(self, size_bytes: int) -> None:
        self.batch_bytes = size_bytes

    def create_batch(self) -> Recorded:
        return Recorded(self.batch_bytes)

    async def send_batch(self, batch: Recorded, topic: str, *, partition: int) -> asyncio.Future[Any]:
        self._step("send")
        future = asyncio.get_running_loop().create_future()
        where, count = (topic, partition), len(batch.records)
        sequence = self._sequence_numbers[where]
        self._sequence_numbers[where] += count
        if sequence != self._expected[where]:
            future.set_exception(OutOfOrderSequenceNumber())
            return future
        if self.limit_bytes is not None and batch.size() > self.limit_bytes:
            self.refused.append(batch.size())
            future.set_exception(MessageSizeTooLargeError())
            return future
        if self.failures["batch"]:
            future.set_exception(self.failures["batch"].pop(0))
            return future
        self._expected[where] += count
        first = self.ends[topic, partition]
        self.ends[topic, partition] += len(batch.records)
        self.pending += [(topic, partition, key, value) for key, value in batch.records]
        future.set_result(SimpleNamespace(offset=first))
        return future

    async def begin_transaction(self) -> None:
        self._step("begin")

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        assert group == PREFIX
        self._step("offsets")
        self._offsets = offsets

    async def commit_transaction(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self._step("commit")
        self.visible += self.pending
        self.pending = []
        self.offsets.update({tuple(tp): offset for tp, offset in getattr(self, "_offsets", {}).items()})

    async def abort_transaction(self) -> None:
        self._step("abort")
        self.pending = []

    async def stop(self) -> None:
        self._step("stop")

    def numbers(self) -> list[int]:
        """The `n` of each visible transition."""
        return [loads(value)["n"] for topic, _, _, value in self.visible if topic == TOPICS.out and value]


class FakeStream:
    def __init__(self) -> None:
        self.acked: list[int] = []

    async def ack(self, event: Any) -> None:
        self.acked.append(event.message.offset)
        event.message.records = ()


class FakeConsumer:
    def __init__(self) -> None:
        self.forgotten: list[Any] = []
        self.full: set[TP] = set()
        self._committed_offset: dict[TP, int] = {}
        self._thread = SimpleNamespace(tp_last_committed_at={})
        self.rejoined = 0
        self.asked = asyncio.Event()

    async def rejoin(self) -> None:
        self.rejoined += 1
        self.asked.set()

    def forget(self, message: Any) -> None:
        self.forgotten.append(message.offset)

    def on_buffer_full(self, tp: TP) -> None:
        self.full.add(tp)

    def on_buffer_drop(self, tp: TP) -> None:
        self.full.discard(tp)


class FakeApp:
    def __init__(self, tables: set[int]) -> None:
        self.should_stop = False
        self.consumer_generation_id = 1
        self.crashes: list[BaseException] = []
        self.crashed = asyncio.Event()
        self.consumer = FakeConsumer()
        self.broker = SimpleNamespace(kafka=True, topics=True)
        self.monitor = SimpleNamespace(on_tp_commit=lambda _: None)
        self.assignor = SimpleNamespace(assigned_actives=lambda: {table_tp(number) for number in tables})

    async def crash(self, error: BaseException) -> None:
        self.crashes.append(error)
        self.crashed.set()


class Bench:
    """An engine on fakes, with one stream and one producer per partition and assignment."""

    def __init__(self, monkeypatch: Any, handler: Any = None, tables: tuple[int, ...] = (0, 1), **changes: Any) -> None:
        self.app = FakeApp(set(tables))
        self.handler = handler or Counting(TOPICS)
        self.stream = FakeStream()
        self.producers: list[FakeProducer] = []
        self.next_failures: dict[str, list[BaseException]] = {}
        self.store = object.__new__(PartitionStore)
        self.store.parts, self.store.offsets = defaultdict(dict), {}
        table = SimpleNamespace(data=self.store)
        settings = options("nowhere:1", PREFIX, **{"linger_s": 0.0, **changes})
        self.engine = Engine(self.app, table, self.handler, settings)
        self.engine.renewal = Renewal(self.app, 0.001)
        monkeypatch.setattr("streams.engine.engine.start_producer", self._start)
        monkeypatch.setattr("streams.engine.engine.FIRST_RETRY_S", 0.001)

    async def _start(self, _settings: Any, _partition: int | None, batch_bytes: int) -> FakeProducer:
        producer = FakeProducer(batch_bytes)
        producer.failures.update(self.next_failures)
        self.next_failures = {}
        self.producers.append(producer)
        return producer

    @property
    def producer(self) -> FakeProducer:
        return self.producers[-1]

    async def assign(self, *partitions: int, generation: int = 1) -> None:
        self.app.consumer_generation_id = generation
        await self.engine.assign({events_tp(number) for number in partitions}, generation)
        await self.engine.recovered(set(partitions))

    def submit(self, *records: Any, generation: int = 1, partition: int = 0) -> None:
        message = BatchMessage.of(events_tp(partition), records, generation)
        self.engine.submit(self.stream, SimpleNamespace(message=message))

    async def settled(self, partition: int = 0) -> None:
        """Until the queue is empty and nothing is in work, or the part ended."""
        part = self.engine.parts[partition]
        task = part.task
        assert task is not None
        await until(lambda: task.done() or not (part.queue or part.work.items))
