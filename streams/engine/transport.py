"""The consumer: whole fetches instead of records, and no fetch where an offset is not certain."""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP
from mode.utils.futures import notify

from streams.engine import recovery
from streams.engine.messages import BatchMessage
from streams.engine.offsets import send_checked
from streams.engine.records import lean_record, take_piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streams.engine.api import ConsumerRecord

log = logging.getLogger(__name__)

FETCH_MAX_WAIT_MS: Final = 250
FETCH_MAX_BYTES: Final = 16 << 20
"""Of one answer of one broker, all partitions together; aiokafka holds it until it is taken. Stock: 50 MB."""
FETCH_TIMEOUT_S: Final = 0.2
FULL_FETCH_TIMEOUT_S: Final = 0.02
NOTHING_TO_FETCH_S: Final = 0.01
FLOW_TIMEOUT_S: Final = 5.0
"""While a rebalance lasts nothing is fetched: the loop says now and then that it is alive."""
FETCH: Final = "fetch"


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Owns the aiokafka consumer. What Faust leaves no choice in is set here, before the start."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # end_offsets() is then the last stable offset
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # stock 1500: each seek and resume waits for it
        consumer._fetch_max_bytes = FETCH_MAX_BYTES
        fetcher.PartitionRecords._consumer_record = lean_record  # for all consumers of the process
        fetcher.FetchResult.getall = take_piece  # likewise
        GroupCoordinator._send_req = send_checked  # likewise
        return consumer

    async def rejoin(self) -> None:
        """Leave nothing as it is assigned: the group assigns anew."""
        await self.call_thread(self._request_rejoin)

    async def _request_rejoin(self) -> None:
        self._consumer._coordinator.request_rejoin()


class BatchConsumer(driver.Consumer):
    """Fetches events and changelog in batches.

    Faust resumes event partitions before it seeks them, and a recovery that is being replaced may resume the
    flow in the middle of a rebalance. What is delivered then comes again later. So a partition is fetched
    only once it is in `sought`: seeked in this assignment. And a fetch that began in the last assignment
    takes records of this one, after its seek, to be dropped: a hole. So no seek while a fetch is open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sought: set[TP] = set()
        self._fetch_idle = asyncio.Event()
        self._fetch_idle.set()
        self._delivered: defaultdict[TP, deque[BatchMessage]] = defaultdict(deque)
        """at_least_once: batches handed on, in order, until Faust's commit loop has passed them"""

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribe, always to events and changelog together, and never while stopping.

        The assignor keeps together what has equal sets of subscribers. One member that subscribes to the
        events alone (stock does, when stopped while it starts) makes everybody fold on foreign tables.
        """
        if not self.app.should_stop:
            engine = self.app.engine
            await super().subscribe({*topics, engine.events_topic, engine.table_topic})

    async def rejoin(self) -> None:
        """Ask the group for a new assignment. It comes when all members have joined again, the same or another."""
        await self._thread.rejoin()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """End what is in flight, then commit what is acknowledged: stock forgets it first."""
        self.sought.clear()
        engine = self.app.engine
        await engine.revoke()
        if not engine.exactly_once:
            await self.commit()
        await super().on_partitions_revoked(revoked)
        self._delivered.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fence the last owners; only then may highwaters, changelog and committed offsets be read."""
        self.sought.clear()  # a recovery of the last assignment may have seeked meanwhile
        try:
            await self.app.engine.assign(assigned, generation_id)
        except Exception as error:  # aiokafka would log it and go on: assigned, and deaf
            await self.app.crash(error)
            raise
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seek the events to their committed offsets, and let them be fetched from here on."""
        await self._fetch_idle.wait()
        generation = self.app.consumer_generation_id
        await super().perform_seek()
        await self._seek_uncommitted(generation)
        starts = await self._starts(generation)
        if generation == self.app.consumer_generation_id:
            self.sought |= self.app.engine.open(generation, self._committed_offset, starts)

    async def _starts(self, generation: int) -> Mapping[TP, int]:
        """Where the logs of the event partitions begin now: what lies before has expired."""
        parts = [part.tp for part in self.app.engine.parts.values() if part.generation == generation]
        try:
            found = await self._thread.earliest_offsets(*map(driver.ensure_aiokafka_TP, parts))
        except KafkaError as error:
            log.warning("whether records have expired unread cannot be told: %r", error)
            return {}
        return {TP(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def _seek_uncommitted(self, generation: int) -> None:
        """Seek event partitions without a committed offset to their beginning.

        aiokafka leaves these where they are, and where they are need not be the beginning: a fetch that was
        open at the assignment may have moved them, and what it took was dropped.
        """
        parts = [part for part in self.app.engine.parts.values() if part.generation == generation]
        fresh = [part.tp for part in parts if not self._committed_offset.get(part.tp)]
        if fresh and generation == self.app.consumer_generation_id:
            await self._thread.seek_to_beginning(*map(driver.ensure_aiokafka_TP, fresh))

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek changelogs to where their recovery starts, and let them be fetched from here on."""
        await self._fetch_idle.wait()
        generation = self.app.consumer_generation_id
        await super().seek_wait(partitions)
        if generation == self.app.consumer_generation_id:
            self.sought |= {TP(tp.topic, tp.partition) for tp in partitions}
            # Faust leaves it set for up to 5 s after a recovery: the next one would end before it began.
            self.app.tables.recovery.signal_recovery_end.clear()

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and hand on until stopped. Replaces the stock loop, which goes record by record."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                self.app.beat(FETCH)
                if not self.flow_active:
                    await self.wait_first(self.can_resume_flow, timeout=FLOW_TIMEOUT_S)
                    continue
                active = self._fetchable()
                if active:
                    await self._fetch_once(active)
                else:  # all full: stock sleeps for a second here
                    await asyncio.sleep(NOTHING_TO_FETCH_S)
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    def _fetchable(self) -> frozenset[TP]:
        ours = (self.app.engine.events_topic, self.app.engine.table_topic)
        return frozenset(tp for tp in self._get_active_partitions() if tp in self.sought or tp.topic not in ours)

    async def _fetch_once(self, active: frozenset[TP]) -> None:
        generation = self.app.consumer_generation_id
        # Data already there does not wake a fetch that waits for other partitions, so keep it short.
        timeout = FULL_FETCH_TIMEOUT_S if self._buffered_partitions else FETCH_TIMEOUT_S
        self._fetch_idle.clear()
        try:
            fetched = await self._getmany(active, timeout)
        finally:
            self._fetch_idle.set()
        if not self._current(generation):
            return  # dropped: the recovery to come seeks back
        for found, records in fetched.items():
            if not await self._hand_on(TP(found.topic, found.partition), records, generation):
                break
        else:
            self._note_positions()
        recovery.track(self, self.app.engine.store)

    def _note_positions(self) -> None:
        """All that was fetched has been handed on: what lies before the positions is in the partitions' queues."""
        for part in self.app.engine.parts.values():
            if part.tp in self.sought:
                part.read_to = recovery.position(self, part.tp)

    def _current(self, generation: int) -> bool:
        stopping: bool = self.should_stop or not self.flow_active
        return not stopping and generation == self.app.consumer_generation_id

    async def _hand_on(self, tp: TP, records: Sequence[ConsumerRecord], generation: int) -> bool:
        """One partition's part of a fetch. False when the assignment is over."""
        engine = self.app.engine
        if tp.topic == engine.table_topic:  # active or standby
            engine.store.load(tp.partition, records)
            await asyncio.sleep(0)
            return True
        if tp.topic == engine.events_topic:
            return await self._deliver(tp, records, generation)
        for record in records:  # another agent's topic: as Faust does it
            await self.wait_first(self.callback(self._to_message(tp, record)), self.suspend_flow.wait())
            self._read_offset[tp] = record.offset
        return True

    async def _deliver(self, tp: TP, records: Sequence[ConsumerRecord], generation: int) -> bool:
        part = self.app.engine.parts.get(tp.partition)
        if part is None or part.generation != generation:
            return False
        records = part.unseen(records)
        if not records:
            return True
        message = BatchMessage.of(tp, records, generation)
        if not self.app.engine.exactly_once:
            self._delivered[tp].append(message)
            _ = self._acked[tp]  # made by the look: the commit loop goes over its keys
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        if not self._current(generation):
            return False
        self._read_offset[tp] = message.offset + 1
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        return True

    def ack(self, message: Any) -> bool:
        """Take a batch as done."""
        if not isinstance(message, BatchMessage):
            done: bool = super().ack(message)
            return done
        message.acked = True
        message.records = ()
        self.forget(message)
        return True

    def forget(self, message: BatchMessage) -> None:
        """Wait for a batch no longer. One that was not done is not acknowledged: that might be committed."""
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)

    def _new_offset(self, tp: TP) -> int | None:
        """What Faust's commit loop commits. Only at_least_once has anything here."""
        delivered = self._delivered.get(tp)
        if delivered is None:
            stock: int | None = super()._new_offset(tp)
            return stock
        offset = None
        while delivered and delivered[0].acked:
            offset = delivered.popleft().offset + 1
        return offset


class BatchTransport(driver.Transport):
    """Faust's transport with the consumer above."""

    Consumer = BatchConsumer
