"""What the worker does with a record and with a tick: decode, fold, write. The engine does the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streams.core import alerts, deadlines
from streams.core.events import REASONS, BadRecordError, Event, is_look
from streams.core.fold import fold
from streams.core.row import Row
from streams.core.rules import AlertRule, Rules
from streams.core.step import Result
from streams.engine import BatchInfo, ConsumerRecord, Tx, Unwritable
from streams.settings import Settings
from streams.worker.clocks import Clocks
from streams.worker.index import PartitionIndex
from streams.worker.meters import BatchMeter, Meters
from streams.worker.outputs import Outputs
from streams.worker.pace import PROBES_PER_TICK, TICK_INTERVAL_S, Pace
from streams.worker.records import event_of

__all__ = ["PROBES_PER_TICK", "TICK_INTERVAL_S", "JobStatusHandler", "rules_of"]


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

    def __init__(self, settings: Settings, meters: Meters, clocks: Clocks) -> None:
        self._rules = rules_of(settings)
        self._outputs = Outputs(settings)
        self._meters = meters
        self._clocks = clocks
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
        if result.row is not row:
            tx.put(key, result.row)
        self._tell(tx, key, result, record.timestamp)
        if is_look(event):
            meter.answered.add(key)
        if result.ask:
            self._doubt(tx, key, event, meter)
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

    def on_tick(self, tx: Tx, now_ms: int) -> None:
        """Look after the rows that are due: ask about them, or let them go."""
        index = self._indexes.get(tx.partition)
        if index is None:
            return
        meter = self._meter_of(tx)
        for key in self._pace.due(index, self._indexes.values()):
            if key not in tx.staged:  # changed in this very transaction: due anew from its commit on
                self._look_after(tx, key, index, now_ms, meter)

    def _look_after(self, tx: Tx, key: bytes, index: PartitionIndex, now_ms: int, meter: BatchMeter) -> None:
        row = tx.get(key)
        visit = deadlines.visit(row, self._pace.source_now(index, key, row), self._rules) if row is not None else None
        if row is None or visit is None:
            return
        if visit.action in {deadlines.EXPIRE, deadlines.LAPSE} and not self._clocks.trusted:
            visit = deadlines.Visit(deadlines.VERIFY, "the clocks disagree")
        self._visit(tx, key, row, visit, now_ms, meter)

    def _visit(self, tx: Tx, key: bytes, row: Row, visit: deadlines.Visit, now_ms: int, meter: BatchMeter) -> None:
        if visit.action == deadlines.EXPIRE:
            for alert in alerts.expire(row, key.decode(), now_ms):
                self._outputs.alert(tx, alert, now_ms)
                meter.alerts.append((alert["rule"], alert["status"]))
            tx.put(key, None)
            return
        if visit.action == deadlines.LAPSE:
            lapsed, ended = deadlines.lapse(row, key.decode(), now_ms, self._rules)
            for alert in ended:
                self._outputs.alert(tx, alert, now_ms)
                meter.alerts.append((alert["rule"], alert["status"]))
            tx.put(key, lapsed)
            return
        address = {"source": row["source"], "queue": row["queue"], "job_id": row["id"]}
        self._outputs.probe(tx, key, address, visit.action, now_ms)
        meter.asked.append(key)
        meter.probes.append(visit.action)

    def on_recovered(self, partition: int, rows: Mapping[bytes, bytes]) -> Iterator[None]:
        """The table of a partition is complete: build its index, in pieces."""
        index = PartitionIndex(self._rules)
        yield from index.restore(rows, self._clocks.steady())
        self._indexes[partition] = index
        self._meters.assigned(partition, index)

    def on_committed(self, partition: int, staged: Mapping[bytes, Row | None], batch: BatchInfo) -> None:
        """A batch is on Kafka: now the index and the metrics may know."""
        index = self._indexes.get(partition)
        _, meter = self._batches.pop(partition, (None, None))
        if index is not None:
            self._move_on(index, staged, meter or BatchMeter())
        if meter is not None:
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
            self._meters.revoked(partition)

    def _tell(self, tx: Tx, key: bytes, result: Result, timestamp_ms: int) -> None:
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
