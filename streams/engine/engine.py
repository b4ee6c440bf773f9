"""The life of the assigned partitions: fence, recover, fold, commit, give up."""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import KafkaError, ProducerFenced
from faust.types.tuples import TP

from streams.clock import wall_ms
from streams.engine import transaction
from streams.engine.api import BatchInfo, EngineOptions, Handler, Stats
from streams.engine.limits import Limits
from streams.engine.partition import Batch, Part, Work
from streams.engine.produce import BatchRefusedError, resize, start_producer
from streams.engine.quiet import RateLimit, kind_of
from streams.engine.renewal import Renewal
from streams.engine.transaction import CommitUnknown
from streams.engine.tx import Unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.engine.store import PartitionStore
    from streams.engine.transaction import Folded

log = logging.getLogger(__name__)
aside = logging.getLogger(f"{__name__}.aside")
aside.addFilter(RateLimit())

ATTEMPTS: Final = 5
FIRST_RETRY_S: Final = 0.2
HALF: Final = 0.5
"""A partition that was full is read on when so much of its read-ahead is left."""
CLOSE_TIMEOUT_S: Final = 5.0
STOP_FINISH_S: Final = 8.0
REBALANCE_GRACE_S: Final = 5.0


class Engine:
    """Folds the partitions of the current assignment, each in a task of its own, so that commits overlap."""

    def __init__(self, app: Any, table: Any, handler: Handler, options: EngineOptions) -> None:
        self.app = app
        self.table = table
        self.handler = handler
        self.options = options
        self.events_topic = options.events_topic
        self.table_topic = options.table_topic
        self.exactly_once = options.exactly_once
        self.parts: dict[int, Part] = {}
        self.stats = Stats()
        written = (options.table_topic, *options.output_topics)
        self.limits = Limits(written, options.max_record_bytes, options.record_limits)
        self.renewal = Renewal(app)
        self._turn = asyncio.Lock()
        self._assigned_at: float | None = None
        self._without_table = False

    @property
    def store(self) -> PartitionStore:
        """The rows."""
        store: PartitionStore = self.table.data
        return store

    @property
    def recovered_all(self) -> bool:
        """An assignment came, and the rows of all its partitions are complete."""
        complete = all(part.ready for part in self.parts.values())
        return self._assigned_at is not None and not self._without_table and complete

    def folded_to(self, number: int) -> int | None:
        """The offset before which this partition is folded; None where it is not ours, or not yet known."""
        part = self.parts.get(number)
        return None if part is None else part.folded_to

    # -- life of an assignment

    async def assign(self, assigned: set[TP], generation: int) -> None:
        """Start a producer for each partition: it fences the last owner and ends what that left open.

        To be called before highwaters, changelog and committed offsets are read: from its return on they
        are final.
        """
        if self.app.should_stop:
            return
        began = time.monotonic()
        mine = self._with_table(assigned, generation)
        await asyncio.gather(*(self._start(tp, generation) for tp in mine))
        self._assigned_at = began
        numbers = [tp.partition for tp in mine]
        took_ms = 1e3 * (time.monotonic() - began)
        log.info("assigned partitions %s in %.0f ms, generation %s", numbers, took_ms, generation)

    def _with_table(self, assigned: set[TP], generation: int) -> list[TP]:
        """The event partitions whose rows are ours too. Without them a partition is not even fetched."""
        rows = self.app.assignor.assigned_actives()
        events = sorted(tp for tp in assigned if tp.topic == self.events_topic)
        mine = [tp for tp in events if TP(self.table_topic, tp.partition) in rows]
        self._without_table = len(mine) < len(events)
        if self._without_table:
            alone = [tp.partition for tp in events if tp not in mine]
            log.error("partitions %s assigned without their table, generation %s", alone, generation)
            self._later(self._check_table, generation)
        return mine

    async def _start(self, tp: TP, generation: int) -> None:
        producer = await start_producer(self.options, tp.partition, self.limits.batch_bytes)
        part = self.parts[tp.partition] = Part(tp, generation, producer)
        part.task = asyncio.get_running_loop().create_task(self._run(part), name=f"fold-{tp.partition}")

    async def revoke(self) -> None:
        """Let each transaction in flight end, forget what is only queued, give every producer up."""
        parts, self.parts = list(self.parts.values()), {}
        self._assigned_at = None
        if not parts:
            return
        began = time.monotonic()
        for part in parts:
            part.close()
        limit = STOP_FINISH_S if self.app.should_stop else self.options.finish_timeout_s
        tasks = [part.task for part in parts if part.task is not None]
        _, late = await asyncio.wait(tasks, timeout=limit)
        for task in late:  # the next owner aborts what it has open
            task.cancel()
        await asyncio.gather(*(self._close(part) for part in parts))
        self.handler.on_revoked({part.number for part in parts})
        took_ms = 1e3 * (time.monotonic() - began)
        log.info("revoked %d partitions in %.0f ms, %d unfinished", len(parts), took_ms, len(late))

    async def _close(self, part: Part) -> None:
        for message in part.leftovers():
            self.app.consumer.forget(message)
        await self._stop_producer(part.producer)

    async def _stop_producer(self, producer: Any) -> None:
        stopping = asyncio.get_running_loop().create_task(producer.stop())
        done, _ = await asyncio.wait([stopping], timeout=CLOSE_TIMEOUT_S)
        if not done:
            stopping.cancel()
        elif (error := stopping.exception()) is not None:
            log.warning("closing a producer: %r", error)

    async def stop(self) -> None:
        """End what is in flight and start nothing any more. The app says should_stop by now."""
        await self.revoke()

    def open(self, generation: int, committed: Mapping[TP, int | None], starts: Mapping[TP, int]) -> set[TP]:
        """The event partitions of this generation, seeked to `committed`: they may be fetched now.

        What lies before `starts`, where their logs begin, has expired unread. It is told in the partition's first
        transaction, which says too that it is done with: it is told once.
        """
        parts = [part for part in self.parts.values() if part.generation == generation]
        for part in parts:
            first, start = max(part.next_offset, committed.get(part.tp) or 0), starts.get(part.tp, 0)
            part.next_offset = max(first, start)
            if start > first:
                part.expired_to = start
                self.handler.on_expired(part.number, first, start)
                part.tick(wall_ms())
        return {part.tp for part in parts}

    async def recovered(self, partitions: set[int]) -> None:
        """The rows of these partitions are complete: ticks from here on.

        The handler's indexes are built in pieces, and the loop turns between. Events are fetched only afterwards. A
        partition that is taken away meanwhile is left as it is.
        """
        for part in [self.parts[number] for number in sorted(partitions & self.parts.keys())]:
            for _ in self.handler.on_recovered(part.number, self.store.parts[part.number]) or ():
                await asyncio.sleep(0)
                if self.parts.get(part.number) is not part:
                    break
            else:
                part.ready = True
        self.stats.recoveries += 1
        if self._assigned_at is not None:
            self.stats.restore_s = time.monotonic() - self._assigned_at
        rows = {number: len(self.store.parts.get(number, ())) for number in sorted(partitions)}
        log.info("recovered rows of partitions %s in %.2f s", rows, self.stats.restore_s or 0)

    # -- the two doors into a partition

    def submit(self, stream: Any, event: Any) -> None:
        """Queue a fetch."""
        message = event.message
        part = self.parts.get(message.partition)
        if part is None or part.closing or part.generation != message.generation_id:
            self.app.consumer.forget(message)  # of an earlier assignment: it is read again
            return
        part.add(Batch.of(stream, event))
        if self._filled(part) >= 1:
            self.app.consumer.on_buffer_full(part.tp)

    def _filled(self, part: Part) -> float:
        """How much of what a partition may read ahead it has read; each has its share of the bytes."""
        options = self.options
        share = options.max_queued_bytes / max(len(self.parts), 1)
        return max(part.queued_events / options.max_queued, part.queued_bytes / share)

    def tick(self, now_ms: int) -> None:
        """Queue a tick for every recovered partition."""
        for part in self.parts.values():
            part.tick(now_ms)

    # -- one transaction after the other

    async def _run(self, part: Part) -> None:
        try:
            while (work := await part.take(self.options)) is not None:
                await self._transact(part, work)
                if self._filled(part) < HALF:
                    self.app.consumer.on_buffer_drop(part.tp)
        except ProducerFenced:  # there is a newer owner; the rebalance that says so is on its way
            part.close()
            log.warning("fenced on partition %s, generation %s", part.number, part.generation)
            self._later(self._check_fenced, part)
        except (KafkaError, CommitUnknown) as error:
            part.close()
            log.warning("partition %s goes on under a new assignment: %r", part.number, error)
            self._renew(part)
        except Exception as error:
            part.close()
            log.exception("partition %s failed", part.number)
            await self.app.crash(error)

    def _renew(self, part: Part) -> None:
        self.renewal.ask(lambda: self.parts.get(part.number) is part)

    async def _transact(self, part: Part, work: Work) -> None:
        """Commit what goes into one transaction, in as many attempts as are worth it. What is left is queued again."""
        careful, attempt = False, 1
        while True:
            folded, careful = await self._fold(part, work, careful)
            if folded.empty and folded.work.last_offset is None:
                part.done(folded.work, folded.left)
                return
            began = time.perf_counter()
            try:
                row_offset = await self._write(part, folded)
            except ProducerFenced:
                raise
            except BatchRefusedError as error:
                careful = True
                if not await self._shrink(part, error):
                    await self._recoil(part, attempt, error)
                    attempt += 1
            except (KafkaError, Unwritable) as error:
                careful = careful or isinstance(error, Unwritable)
                await self._recoil(part, attempt, error)
                attempt += 1
            else:
                info = self._info(folded, attempt, time.perf_counter() - began)
                self._apply(part, folded, row_offset, info)
                await self._acknowledge(part, folded.work)
                part.done(folded.work, folded.left)
                return

    async def _fold(self, part: Part, work: Work, careful: bool) -> tuple[Folded, bool]:
        """The fold, and whether it had to be a careful one."""
        arguments = (self.handler, self.store, self.options, part, work, self.limits, self._turn)
        if not careful:
            try:
                folded = await transaction.fold(*arguments)
            except Exception as error:  # noqa: BLE001 - whatever a record does: it is found, and set aside alone
                careful = True
                what = str(error) if isinstance(error, Unwritable) else kind_of(error)
                aside.warning("a record cannot be folded and is set aside: %s, partition %s", what, part.number)
                if isinstance(error, Unwritable) and error.reason == "too_large":
                    await self.limits.read_again()
        if careful:
            folded = await transaction.fold(*arguments, careful=True)
        self.stats.fold_s += folded.seconds
        return folded, careful

    async def _write(self, part: Part, folded: Folded) -> int | None:
        resize(part.producer, self.limits.batch_bytes)
        if self.exactly_once:
            return await transaction.commit(part, folded, folded.work.last_offset, self.options.app_id)
        return await transaction.write(part, folded)

    async def _recoil(self, part: Part, attempt: int, error: KafkaError | Unwritable) -> None:
        """After an attempt that was not committed: abort and wait, or raise `error` when there is no use."""
        log.warning("partition %s, attempt %d of %d: %r", part.number, attempt, ATTEMPTS, error)
        self.stats.aborted += 1
        if attempt >= ATTEMPTS or (self.exactly_once and transaction.lost(part.producer)):
            raise error
        if self.exactly_once:
            await part.producer.abort_transaction()
        await asyncio.sleep(FIRST_RETRY_S * 2 ** (attempt - 1))

    async def _shrink(self, part: Part, error: BatchRefusedError) -> bool:
        """The broker takes less than was believed: abort, and write less. False where that is no use."""
        if self.exactly_once and transaction.lost(part.producer):
            return False
        await self.limits.read()
        if not self.limits.refused(error.topic, error.size_bytes):
            return False
        self.stats.aborted += 1
        if self.exactly_once:
            await part.producer.abort_transaction()
        return True

    def _info(self, folded: Folded, attempt: int, commit_s: float) -> BatchInfo:
        work = folded.work
        self.stats.commit_s += commit_s
        self.stats.events += work.events
        self.stats.transactions += 1
        return BatchInfo(
            fetches=tuple(batch.records for batch in work.batches),
            events=work.events,
            rows=len(folded.rows),
            outputs=len(folded.tx.outputs),
            attempts=attempt,
            fold_s=folded.seconds,
            commit_s=commit_s,
            committed_at_ms=wall_ms(),
        )

    def _apply(self, part: Part, folded: Folded, row_offset: int | None, info: BatchInfo) -> None:
        """Committed: now, and only now, the table changes."""
        self.renewal.succeeded()
        self.store.apply(part.number, folded.rows.items(), row_offset)
        self.handler.on_committed(part.number, folded.tx.staged, info)

    async def _acknowledge(self, part: Part, work: Work) -> None:
        for batch in work.batches:
            if batch.ends:
                await batch.stream.ack(batch.event)
        if self.exactly_once and work.last_offset is not None:
            # Faust did not commit this itself; its livelock check has to hear of it.
            offset, consumer = work.last_offset + 1, self.app.consumer
            consumer._committed_offset[part.tp] = offset
            consumer._thread.tp_last_committed_at[part.tp] = time.monotonic()
            self.app.monitor.on_tp_commit({part.tp: offset})

    # -- what a rebalance should have cured

    def _later(self, check: Any, argument: Any) -> None:
        delay_s = self.options.session_timeout_s + REBALANCE_GRACE_S
        asyncio.get_running_loop().call_later(delay_s, check, argument)

    def _check_fenced(self, part: Part) -> None:
        if self.parts.get(part.number) is part:
            log.warning("fenced on partition %s, and still assigned", part.number)
            self._renew(part)

    def _check_table(self, generation: int) -> None:
        if self.app.consumer_generation_id == generation and not self.app.should_stop:
            self._crash("events and table are not co-partitioned")

    def _crash(self, reason: str) -> None:
        self._crashing = asyncio.get_running_loop().create_task(self.app.crash(RuntimeError(reason)))
