"""What the worker does with a record and with a tick: decode, fold, write. The engine does the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final

from streams.core import alerts, deadlines
from streams.core.events import REASONS, BadRecordError, Event, is_look
from streams.core.fold import fold
from streams.core.row import Row
from streams.core.rules import AlertRule, Rules
from streams.core.shed import lighter
from streams.core.step import Result
from streams.engine import BatchInfo, CheckedTx, ConsumerRecord, RateLimit, Tx, Unwritable, kind_of
from streams.escape import printable
from streams.settings import Settings
from streams.worker.clocks import Clocks
from streams.worker.index import PartitionIndex
from streams.worker.meters import INTERNAL, BatchMeter, Meters
from streams.worker.outputs import Outputs
from streams.worker.pace import PROBES_PER_TICK, TICK_INTERVAL_S, Pace
from streams.worker.records import event_of
from streams.worker.repairs import Repairs

__all__ = ["PROBES_PER_TICK", "TICK_INTERVAL_S", "JobStatusHandler", "rules_of"]

log = logging.getLogger(__name__)
_SHOWN: Final = 200
failures = logging.getLogger(f"{__name__}.failures")
failures.addFilter(RateLimit())


def rules_of(settings: Settings) -> Rules:
    """The fold's rules, out of the settings."""
    failed, stuck = settings.alerts.failed, settings.alerts.stuck
    return Rules(
        failed=AlertRule(failed.enabled, failed.severity),
        stuck=AlertRule(stuck.enabled, stuck.severity),
        check_interval_ms=int(stuck.check_interval_s * 1000),
        verify_after_ms=int(settings.worker.verify_after_s * 1000),
        retention_ms=int(settings.worker.retention_s * 1000),
        resolve_after_ms=int(failed.resolve_after_s * 1000),
        max_text_bytes=settings.bridge.max_text_bytes,
    )


class JobStatusHandler:
    """The engine's handler. Indexes and meters change only after a commit, so a batch may be folded again."""

    def __init__(self, settings: Settings, meters: Meters, clocks: Clocks, repairs: Repairs | None = None) -> None:
        self._rules = rules_of(settings)
        self._outputs = Outputs(settings)
        self._meters = meters
        self._clocks = clocks
        self._repairs = repairs
        self._pace = Pace(settings.worker.verify_per_s, self._rules, clocks)
        self._indexes: dict[int, PartitionIndex] = {}
        self._batches: dict[int, tuple[Tx, BatchMeter]] = {}

    def on_record(self, tx: Tx, record: ConsumerRecord) -> None:
        """Fold one record of `events`; what cannot be folded is set aside."""
        meter = self._meter_of(tx)
        try:
            event = event_of(record.value, record.key)
        except BadRecordError as error:
            self._outputs.dead_letter(tx, record, error)
            meter.dead_letters.append(error.reason)
            return
        key: bytes = record.key
        row = tx.get(key)
        result = fold(row, event, self._rules)
        result = self._write(tx, key, row, result, record.timestamp)
        if result.ask:
            self._doubt(tx, key, event, meter)
        if is_look(event):
            meter.answered.add(key)
        meter.folded(event, result)

    def _doubt(self, tx: Tx, key: bytes, event: Event, meter: BatchMeter) -> None:
        """Ask about the job of an entry, unless an answer is due anyway."""
        index = self._indexes.get(tx.partition)
        if key in meter.doubted or (index is not None and not index.may_ask(key, self._clocks.steady())):
            return
        self._outputs.probe(tx, key, event, deadlines.PROBE, self._clocks.wall())
        meter.doubted.append(key)
        meter.probes.append(deadlines.PROBE)

    def on_unwritable(self, tx: Tx, record: ConsumerRecord | None, error: Unwritable) -> None:
        """A record whose row or output Kafka does not take: set aside; the row stays as it was."""
        if record is None:
            return
        reason = error.reason if error.reason in REASONS else "wrong_type"
        self._outputs.dead_letter(tx, record, BadRecordError(reason, str(error)))
        self._meter_of(tx).dead_letters.append(reason)

    def on_failed(self, tx: Tx, record: ConsumerRecord | None, error: Exception) -> None:
        """A record on which our own code failed: set aside. What failed is said without what it failed on."""
        kind = kind_of(error)
        failures.error("a %s could not be folded: %s", "tick" if record is None else "record", kind)
        if record is None:
            self._meters.failed()
            return
        self._outputs.dead_letter(tx, record, BadRecordError(INTERNAL, kind))
        self._meter_of(tx).dead_letters.append(INTERNAL)

    def on_tick(self, tx: Tx, now_ms: int) -> None:
        """Look after the rows that are due: ask about them, or let them go."""
        index = self._indexes.get(tx.partition)
        if index is None:
            return
        meter = self._meter_of(tx)
        for key in self._pace.due(index, self._indexes.values()):
            if key not in tx.staged:  # changed in this very transaction: due anew from its commit on
                tx.mark()
                self._contained(tx, key, index, now_ms, meter)
        if self._repairs is not None:
            tx.mark()
            budget = self._pace.left(len(self._indexes), len(meter.asked))
            meter.repaired = self._repairs.on_tick(tx, now_ms, budget)

    def _contained(self, tx: Tx, key: bytes, index: PartitionIndex, now_ms: int, meter: BatchMeter) -> None:
        try:
            self._look_after(tx, key, index, now_ms, meter)
        except Exception as error:
            if not isinstance(tx, CheckedTx):
                raise  # the engine ticks again with care
            tx.take_back()
            self._put_off(index, key, error)

    def _look_after(self, tx: Tx, key: bytes, index: PartitionIndex, now_ms: int, meter: BatchMeter) -> None:
        row = tx.get(key)
        visit = deadlines.visit(row, self._pace.source_now(index, key, row), self._rules) if row is not None else None
        if row is None or visit is None:
            return
        if visit.action in {deadlines.EXPIRE, deadlines.LAPSE} and not self._clocks.trusted:
            visit = deadlines.Visit(deadlines.VERIFY, "the clocks disagree")
        self._visit(tx, key, row, visit, now_ms, meter)

    def _put_off(self, index: PartitionIndex, key: bytes, error: Exception) -> None:
        """A key on whose visit our own code failed, or which led to what Kafka cannot take: not again for a while.

        At once, not after the commit: there may be nothing to commit, and to fold again does no harm.
        """
        what = error.reason if isinstance(error, Unwritable) else kind_of(error)
        failures.error("a row's deadline could not be met and is put off: %s", what)
        self._meters.failed()
        index.asked([key], self._clocks.steady())

    def _visit(self, tx: Tx, key: bytes, row: Row, visit: deadlines.Visit, now_ms: int, meter: BatchMeter) -> None:
        result = self._end(key, row, visit.action, now_ms)
        if result is not None:
            self._write(tx, key, row, result, now_ms)
            meter.alerts.extend((alert["rule"], alert["status"]) for alert in result.alerts)
            return
        address = {"source": row["source"], "queue": row["queue"], "job_id": row["id"]}
        self._outputs.probe(tx, key, address, visit.action, now_ms)
        meter.asked.append(key)
        meter.probes.append(visit.action)

    def _end(self, key: bytes, row: Row, action: str, now_ms: int) -> Result | None:
        """What time itself ends: a row, or its alert. None where it is to be asked about."""
        if action == deadlines.EXPIRE:
            return Result(None, (), tuple(alerts.expire(row, key.decode(), now_ms)))
        if action == deadlines.LAPSE:
            lapsed, ended = deadlines.lapse(row, key.decode(), now_ms, self._rules)
            return Result(lapsed, (), tuple(ended))
        return None

    def on_recovered(self, partition: int, rows: dict[bytes, bytes]) -> Iterator[None]:
        """The table of a partition is complete: build its index, in pieces. What is no row is left out."""
        index = PartitionIndex(self._rules)
        yield from index.restore(rows, self._clocks.steady())
        for key in index.unreadable:
            rows.pop(key, None)
        if index.unreadable:
            self._meters.failed(len(index.unreadable))
            count, first = len(index.unreadable), printable(repr(index.unreadable[0]), _SHOWN)
            log.error(
                "%d records of partition %d of status are no rows, the first under the key %s: somebody else wrote "
                "them. They are left out; their jobs have rows again once they are heard of (bullmq-streams snapshot)",
                count, partition, first,
            )  # fmt: skip
        self._indexes[partition] = index
        if self._repairs is not None:
            self._repairs.assigned(partition, index)
        self._meters.assigned(partition, index)

    def on_expired(self, partition: int, first: int, upto: int) -> None:
        """Records that were never read are gone: it is told with the next tick."""
        log.warning(
            "away longer than events keeps its records: offsets %d to %d of partition %d were never read; all queues "
            "are compared",
            first,
            upto - 1,
            partition,
        )
        self._meters.expired()
        if self._repairs is not None:
            self._repairs.expired(partition, upto - first)

    def on_committed(self, partition: int, staged: Mapping[bytes, Row | None], batch: BatchInfo) -> None:
        """A batch is on Kafka: now the index and the metrics may know."""
        index = self._indexes.get(partition)
        _, meter = self._batches.pop(partition, (None, None))
        if index is not None:
            self._move_on(index, staged, meter or BatchMeter())
        if meter is not None:
            if self._repairs is not None:
                self._repairs.committed(partition, staged, meter.repaired, meter.corrected)
            self._meters.committed(meter, batch)

    def _move_on(self, index: PartitionIndex, staged: Mapping[bytes, Row | None], meter: BatchMeter) -> None:
        now, answered = self._clocks.steady(), meter.answered
        if answered:
            index.answered(answered - staged.keys())
        for key, row in staged.items():
            if row is None:
                index.drop(key)
            else:
                index.put(key, row, now, answered=key in answered)
        if meter.asked:
            index.asked(meter.asked, now)
        if meter.doubted:
            index.doubted(meter.doubted, now)

    def on_revoked(self, partitions: set[int]) -> None:
        """These partitions are somebody else's now."""
        for partition in partitions:
            self._indexes.pop(partition, None)
            self._batches.pop(partition, None)
            if self._repairs is not None:
                self._repairs.revoked(partition)
            self._meters.revoked(partition)

    def _write(self, tx: Tx, key: bytes, row: Row | None, result: Result, timestamp_ms: int) -> Result:
        """Stage what a step came to. What Kafka would not take whole is made lighter, as far as that goes.

        Raises Unwritable: on a plain transaction at once, for the engine comes again with one that can take back.
        """
        while True:
            try:
                self._stage(tx, key, row, result, timestamp_ms)
            except Unwritable as error:
                if not isinstance(tx, CheckedTx) or error.reason != "too_large":
                    raise
                shed = lighter(result)
                if shed is None:
                    raise
                tx.take_back()
                result = shed
            else:
                return result

    def _stage(self, tx: Tx, key: bytes, row: Row | None, result: Result, timestamp_ms: int) -> None:
        if result.row is not row:
            tx.put(key, result.row)
        for transition in result.transitions:
            self._outputs.transition(tx, key, transition, timestamp_ms)
        for alert in result.alerts:
            self._outputs.alert(tx, alert, timestamp_ms)

    def _meter_of(self, tx: Tx) -> BatchMeter:
        """The meter of this very transaction: a batch that is folded again starts to count anew."""
        known = self._batches.get(tx.partition)
        if known is None or known[0] is not tx:
            known = self._batches[tx.partition] = (tx, BatchMeter())
        return known[1]
