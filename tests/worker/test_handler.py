from __future__ import annotations

import pytest

from streams.core.rules import AlertRule, Rules
from streams.engine import Tx, Unwritable
from streams.wire import loads
from streams.worker.handler import PROBES_PER_TICK, TICK_INTERVAL_S, rules_of
from streams.worker.records import ROWS
from tests.core.build import BORN, entry, job, look
from tests.worker.build import PARTITION, Worker, batch, record, settings, topics_of

KEY = b"s/q/1"
QUEUE = {"source": "s", "queue": "q"}
ADDED = [entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1)]
TAKEN = [*ADDED, entry("active", 2_000, job(processed_on=2_000, attempts_started=1))]
FAILED = [*TAKEN, entry("failed", 3_000, job(finished_on=3_000, attempts_made=3), fields={"failedReason": "no"})]
DAY_MS = 86_400_000


def row(state, due, n=1):
    notes = {"due": due, "state": state, "fails": 0, "starts": 0}
    return {"source": "s", "queue": "q", "id": str(n), "state": state, "since": 0, "_": notes}


def rows(state, due, count, start=0):
    return {f"s/q/{n}".encode(): row(state, due, n) for n in range(start, start + count)}


class TestRecords:
    def test_a_row_its_transitions_and_their_order(self):
        worker = Worker()
        outputs = worker.fold(*TAKEN)
        assert topics_of(outputs) == ["transitions", "transitions"]
        assert [loads(value)["to"] for _, _, _, value, _, _ in outputs] == ["waiting", "active"]
        assert {(partition, key, at) for _, partition, key, _, _, at in outputs} == {(PARTITION, KEY, 1_234)}
        assert worker.row()["state"] == "active"

    def test_an_alert(self):
        worker = Worker()
        outputs = worker.fold(*FAILED)
        assert topics_of(outputs)[-2:] == ["transitions", "alerts"]
        assert loads(outputs[-1][3])["status"] == "firing"

    def test_a_tombstone(self):
        worker = Worker()
        worker.fold(*TAKEN)
        tx = worker.tx()
        worker.handler.on_record(tx, record(entry("removed", 5_000)))
        assert tx.encode() == {KEY: None}

    def test_an_unknown_job_is_asked_for(self):
        worker = Worker()
        (output,) = worker.fold(entry("progress", 5_000, fields={"data": "1"}))
        topic, partition, key, value, headers, _ = output
        assert (topic, partition, key, headers) == ("t.probes.v1", PARTITION, KEY, [])
        assert {**loads(value), "asked_at": 0} == {
            "source": "s", "queue": "q", "job_id": "1", "reason": "probe", "asked_at": 0,
        }  # fmt: skip
        assert worker.rows == {}

    def test_a_record_told_before_stages_nothing(self):
        worker = Worker()
        worker.fold(*TAKEN)
        tx = worker.tx()
        worker.handler.on_record(tx, record(TAKEN[2]))
        assert (tx.staged, tx.outputs) == ({}, [])

    def test_a_bad_record_is_set_aside_between_good_ones(self):
        worker = Worker()
        bad = record(b"{", key=b"\xff", offset=7)
        outputs = worker.fold(*TAKEN[:2], bad, TAKEN[2])
        assert topics_of(outputs) == ["transitions", "dead-letters", "transitions"]
        topic, partition, key, value, headers, _ = outputs[1]
        assert (topic, partition, key, value) == ("t.dead-letters.v1", 0, b"\xff", b"{")
        headers = dict(headers)
        assert set(headers) == {"dlq_topic", "dlq_partition", "dlq_offset", "dlq_reason", "dlq_error", "dlq_at"}
        assert (headers["dlq_topic"], headers["dlq_partition"], headers["dlq_offset"], headers["dlq_reason"]) == (
            b"t.events.v1", b"3", b"7", b"not_json",
        )  # fmt: skip
        assert worker.metric("worker_dead_letters_total", reason="not_json") == 1
        assert worker.metric("worker_events_total", **QUEUE) == 3
        assert worker.row()["state"] == "active"


class TestUnwritable:
    @pytest.mark.parametrize(("reason", "told"), [("too_large", "too_large"), ("not_encodable", "wrong_type")])
    def test_the_record_is_set_aside_with_a_reason_of_the_closed_set(self, reason, told):
        worker = Worker()
        tx = worker.tx()
        worker.handler.on_unwritable(tx, record(TAKEN[2]), Unwritable(reason, "t.status.v1", KEY, 5, "why"))
        worker.commit(tx)
        (output,) = tx.outputs
        headers = dict(output[4])
        assert (headers["dlq_reason"], headers["dlq_error"]) == (told.encode(), b"why")
        assert worker.metric("worker_dead_letters_total", reason=told) == 1

    def test_a_tick_has_no_record(self):
        tx = Worker().tx()
        Worker().handler.on_unwritable(tx, None, Unwritable("too_large", "t.alerts.v1", KEY, 5))
        assert (tx.outputs, tx.staged) == ([], {})

    def test_a_dead_letter_for_a_record_of_any_size_fits(self):
        worker = Worker()
        tx = worker.checked()
        one = record(b"x" * 1_000_000, key=b"k" * 500_000)
        worker.handler.on_record(tx, one)
        worker.handler.on_unwritable(tx, one, Unwritable("too_large", "t.status.v1", KEY, 5))
        assert topics_of(tx.outputs) == ["dead-letters"] * 2

    @pytest.mark.parametrize("late", ["row", "alert"])
    def test_what_is_taken_back_of_a_record_is_not_counted(self, monkeypatch, late):
        """As the engine does: fold again record by record, take back, set aside."""
        monkeypatch.setattr("streams.worker.handler.lighter", lambda _: None)
        worker = Worker(limit_bytes=3_000)
        worker.fold(*TAKEN)
        before = worker.row()
        # An alert says the job's name three times, its row once.
        more = {"data": "x" * 5_000} if late == "row" else {"name": "x" * 800}
        event = entry("failed", 3_000, job(**more, finished_on=3_000), fields={"failedReason": "no"})
        tx = worker.checked()
        with pytest.raises(Unwritable) as caught:
            worker.handler.on_record(tx, record(event))
        assert caught.value.topic == f"t.{'status' if late == 'row' else 'alerts'}.v1"
        tx.take_back()
        tx.limit_bytes = 900_000
        worker.handler.on_unwritable(tx, record(event), caught.value)
        worker.commit(tx)
        assert topics_of(tx.outputs) == ["dead-letters"]
        assert worker.row() == before
        assert worker.metric("worker_events_total", **QUEUE) == 3
        assert worker.metric("worker_transitions_total", **QUEUE, **{"from": "active", "to": "failed"}) == 0
        assert worker.metric("worker_dead_letters_total", reason="too_large") == 1


class TestTicks:
    def probes(self, outputs):
        assert set(topics_of(outputs)) <= {"probes"}
        return [(loads(value)["job_id"], loads(value)["reason"]) for _, _, _, value, _, _ in outputs]

    def test_a_running_job_is_probed_when_it_is_due(self):
        worker = Worker()
        worker.fold(*TAKEN)
        assert worker.tick(3_000) == []
        ((topic, partition, key, value, headers, at),) = worker.tick(3_250)
        assert (topic, partition, key, headers, at) == ("t.probes.v1", PARTITION, KEY, [], 3_250)
        assert loads(value) == {"source": "s", "queue": "q", "job_id": "1", "reason": "probe", "asked_at": 3_250}

    def test_a_probe_without_an_answer_is_repeated_later_each_time(self):
        worker = Worker()
        worker.fold(*TAKEN)
        asked = [now for now in range(3_250, 20_000, 250) if worker.tick(now)]
        assert asked == [3_250, 5_500, 9_750, 18_000]

    def test_an_answer_ends_the_repeats(self):
        worker = Worker()
        worker.fold(*TAKEN)
        worker.tick(3_250)
        worker.fold(look("active", 3_300, job(processed_on=2_000), lock_ttl_ms=30_000, stream_id="2000-0"))
        assert worker.tick(33_250) == []
        assert self.probes(worker.tick(33_500)) == [("1", "probe")]

    def test_probes_are_capped(self):
        worker = Worker(rows=rows("active", 1_000, PROBES_PER_TICK + 30))
        assert len(worker.tick(5_000)) == PROBES_PER_TICK
        assert len(worker.tick(5_001)) == 30
        assert worker.tick(5_002) == []

    def test_verifications_are_capped_by_the_setting(self):
        worker = Worker(rows=rows("waiting", 1_000, 100), WORKER__VERIFY_PER_S="40")
        assert self.probes(worker.tick(5_000))[0] == ("0", "verify")
        assert [len(worker.tick(5_000 + at)) for at in range(1, 11)] == [40 * TICK_INTERVAL_S] * 9 + [0]

    def test_the_setting_is_shared_by_the_partitions(self):
        worker = Worker(rows=rows("waiting", 1_000, 100), WORKER__VERIFY_PER_S="40")
        for _ in worker.handler.on_recovered(7, worker.rows):
            pass
        for _ in worker.handler.on_recovered(8, {}):
            pass
        assert len(worker.tick(5_000)) == 40 * TICK_INTERVAL_S
        other = Tx(7, worker.rows, "t.status.v1", 900_000, ROWS)
        worker.handler.on_tick(other, 5_000)
        assert len(other.outputs) == 40 * TICK_INTERVAL_S / 2
        assert len(worker.tick(5_000)) == 40 * TICK_INTERVAL_S / 2, "the third has nothing to ask"

    def test_at_least_one_is_verified_at_a_tick(self):
        worker = Worker(rows=rows("delayed", 1_000, 3), WORKER__VERIFY_PER_S="0.01")
        assert len(worker.tick(5_000)) == 1

    def test_locks_and_ends_do_not_wait_behind_verifications(self):
        waiting = {
            **rows("waiting", 1_000, 1_000),
            **rows("active", 4_000, 2, 2_000),
            **rows("completed", 4_500, 1, 3_000),
        }
        worker = Worker(rows=waiting, WORKER__VERIFY_PER_S="4")
        assert self.probes(worker.tick(5_000)) == [("2000", "probe"), ("2001", "probe"), ("0", "verify")]
        assert worker.row(b"s/q/3000") is None

    def test_a_row_whose_retention_has_ended_goes(self):
        worker = Worker(WORKER__RETENTION_S="60")
        worker.fold(*TAKEN, entry("completed", 3_000, job(finished_on=3_000)))
        assert worker.tick(63_000) == []
        assert worker.row() is not None
        tx = worker.tx()
        worker.at(63_250)
        worker.handler.on_tick(tx, 63_250)
        assert (tx.encode(), tx.outputs) == ({KEY: None}, [])
        worker.commit(tx)
        assert worker.tick(99_000) == []

    def test_its_open_alert_ends_with_it(self):
        worker = Worker(WORKER__RETENTION_S="60")
        worker.fold(*FAILED)
        ((topic, _, _, value, headers, at),) = worker.tick(63_250)
        alert = loads(value)
        assert (topic, at) == ("t.alerts.v1", 63_250)
        assert (alert["status"], alert["resolved_by"], alert["ends_at"], alert["starts_at"]) == (
            "resolved", "expired", 63_250, 3_000,
        )  # fmt: skip
        assert dict(headers)["ce_id"] == f"{alert['fingerprint']}/3000/resolved".encode()
        assert worker.metric("alerts_total", rule="failed", status="resolved") == 1
        worker.meters.refresh()
        assert worker.metric("alerts_firing", rule="failed") == 0

    def test_a_row_that_this_very_batch_moves_is_left_alone(self):
        worker = Worker()
        worker.fold(*TAKEN)
        tx = worker.tx()
        worker.handler.on_record(tx, record(entry("completed", 3_100, job(finished_on=3_100))))
        worker.at(3_250)
        worker.handler.on_tick(tx, 3_250)
        assert topics_of(tx.outputs) == ["transitions"]

    def test_a_row_that_this_very_batch_removes_is_left_alone(self):
        worker = Worker()
        worker.fold(*TAKEN)
        tx = worker.tx()
        worker.handler.on_record(tx, record(entry("removed", 3_100)))
        worker.at(3_250)
        worker.handler.on_tick(tx, 3_250)
        assert topics_of(tx.outputs) == ["transitions"]

    def test_before_the_recovery_there_is_nothing_to_do(self):
        worker = Worker(rows=rows("active", 0, 1))
        worker.handler.on_revoked({PARTITION})
        assert worker.tick(5_000) == []


class TestCommits:
    def test_a_batch_that_is_folded_again_counts_once(self):
        worker = Worker()
        for _ in range(3):
            tx = worker.tx()
            for event in [*FAILED, {**entry("active", 1), "fields": 5}]:
                worker.handler.on_record(tx, record(event))
        worker.commit(tx)
        worker.handler.on_committed(PARTITION, {}, batch())
        assert worker.metric("worker_events_total", **QUEUE) == 4
        assert worker.metric("worker_transitions_total", **QUEUE, **{"from": "active", "to": "failed"}) == 1
        assert worker.metric("alerts_total", rule="failed", status="firing") == 1
        assert worker.metric("worker_dead_letters_total", reason="wrong_type") == 1

    def test_a_batch_that_is_given_up_leaves_no_trace(self):
        worker = Worker()
        worker.fold(*TAKEN)
        tx = worker.tx()
        worker.handler.on_record(tx, record(entry("removed", 2_500)))
        worker.at(3_250)
        worker.handler.on_tick(tx, 3_250)
        assert topics_of(worker.tick(3_250)) == ["probes"]
        assert worker.metric("worker_events_total", **QUEUE) == 3

    def test_a_tick_that_is_given_up_asks_again(self):
        worker = Worker()
        worker.fold(*TAKEN)
        worker.handler.on_tick(worker.tx(), 3_250)
        assert len(worker.tick(3_251)) == 1
        assert worker.tick(3_252) == []

    def test_partitions_do_not_share_their_counts(self):
        worker = Worker()
        other = worker.tx()
        other.partition = PARTITION + 1
        worker.handler.on_record(other, record(TAKEN[0]))
        worker.fold(*TAKEN)
        assert worker.metric("worker_events_total", **QUEUE) == 3
        worker.handler.on_committed(PARTITION + 1, other.staged, batch())
        assert worker.metric("worker_events_total", **QUEUE) == 4

    def test_a_recovered_table_is_indexed_and_counted(self):
        worker = Worker()
        worker.fold(*FAILED)
        again = Worker(rows={KEY: worker.row()}, WORKER__RETENTION_S="60")
        again.meters.refresh()
        assert again.metric("table_rows") == 1
        assert again.metric("alerts_firing", rule="failed") == 1
        assert len(again.tick(10 * DAY_MS)) == 1

    def test_a_revoked_partition_is_forgotten(self):
        worker = Worker()
        worker.fold(*FAILED)
        tx = worker.tx()
        worker.handler.on_record(tx, record(entry("removed", 9_000)))
        worker.handler.on_revoked({PARTITION, PARTITION + 1})
        worker.handler.on_committed(PARTITION, {}, batch())
        worker.meters.refresh()
        assert worker.metric("table_rows") == 0
        assert worker.metric("worker_events_total", **QUEUE) == 4


def test_the_rules_are_those_of_the_settings():
    found = rules_of(
        settings(
            WORKER__RETENTION_S="60",
            WORKER__VERIFY_AFTER_S="1.5",
            ALERTS__FAILED__ENABLED="false",
            ALERTS__STUCK__SEVERITY="page",
            ALERTS__STUCK__CHECK_INTERVAL_S="2",
        )
    )
    assert found == Rules(
        failed=AlertRule(enabled=False, severity="error"),
        stuck=AlertRule(enabled=True, severity="page"),
        check_interval_ms=2_000,
        verify_after_ms=1_500,
        retention_ms=60_000,
    )
    assert rules_of(settings()) == Rules()


class TestClocks:
    """Deadlines run on the time that has passed here, whatever the source's clock says."""

    HOUR_MS = 3_600_000

    def asked(self, worker, start, seconds):
        """When questions were sent, in ms from `start` on."""
        return [now - start for now in range(start, start + seconds * 1_000, 250) if worker.tick(now)]

    @pytest.mark.parametrize("ahead_ms", [-24 * HOUR_MS, -HOUR_MS, 0, HOUR_MS, 24 * HOUR_MS])
    def test_a_worker_whose_clock_is_off_asks_as_often_as_any_other(self, ahead_ms):
        worker = Worker()
        worker.silent = True
        start = BORN + ahead_ms + 100 * self.HOUR_MS  # of the worker's clock
        worker.now_ms = start
        events = [*ADDED, entry("active", BORN + 10, job(processed_on=BORN + 10))]
        tx = worker.tx()
        for event in events:
            worker.handler.on_record(tx, record(event))
        worker.commit(tx)
        assert self.asked(worker, start, 12) == [1_250, 3_500, 7_750]

    def test_an_id_from_the_future_delays_nothing(self):
        worker = Worker()
        worker.silent = True
        worker.now_ms = BORN
        tx = worker.tx()
        for event in [*ADDED, entry("active", BORN + 1_000 * self.HOUR_MS)]:
            worker.handler.on_record(tx, record(event))
        worker.commit(tx)
        assert self.asked(worker, BORN, 3)[:1] == [1_250]
        worker.at(BORN + 3_000)
        worker.recover()
        assert self.asked(worker, BORN + 3_000, 3)[:1] == [1_250]

    def test_a_row_read_back_is_as_old_as_it_says(self):
        worker = Worker(WORKER__RETENTION_S="60")
        worker.fold(*TAKEN, entry("completed", 3_000, job(finished_on=3_000)))
        worker.at(62_000)
        worker.recover()
        worker.tick(62_900)
        assert worker.row() is not None
        worker.tick(63_250)
        assert worker.row() is None

    def test_a_changed_setting_holds_for_rows_that_are_there(self):
        worker = Worker(WORKER__RETENTION_S="60")
        worker.fold(*TAKEN, entry("completed", 3_000, job(finished_on=3_000)))
        other = Worker(rows={KEY: worker.row()}, WORKER__RETENTION_S="10")
        other.tick(13_250)
        assert other.row() is None

    @pytest.mark.errors_expected
    def test_nothing_expires_without_a_heartbeat_or_while_the_clocks_disagree(self):
        worker = Worker(WORKER__RETENTION_S="60")
        worker.silent = True
        worker.fold(*FAILED, entry("waiting", 2_000, job(), job_id="2"), entry("completed", 3_000, job_id="2"))
        for now in (63_250, 200_000, 10 * DAY_MS):
            worker.tick(now)
            assert len(worker.rows) == 2
        worker.clocks.take({"type": "heartbeat", "at": worker.now_ms - 300_001})
        worker.tick(worker.now_ms)
        assert len(worker.rows) == 2
        worker.clocks.take({"type": "heartbeat", "at": worker.now_ms - 300_000})
        worker.tick(worker.now_ms)
        assert b"s/q/2" not in worker.rows


class TestQuestions:
    def test_entries_of_the_job_do_not_end_the_waits_between_questions(self):
        worker = Worker()
        worker.fold(*TAKEN)
        asked = []
        for now in range(3_250, 23_250, 250):
            worker.fold(entry("progress", now, seq=5, fields={"data": "1"}))
            asked += [now] if worker.tick(now) else []
        assert asked == [3_250, 5_500, 9_750, 18_000]

    def test_nor_do_changes_of_its_state(self):
        worker, asked = Worker(), []
        worker.fold(*ADDED)
        for turn, now in enumerate(range(10_000, 70_000, 250)):
            worker.fold(entry(("active", "waiting")[turn // 8 % 2], now, seq=turn + 1))
            asked += [now] if "probes" in topics_of(worker.tick(now)) else []
        assert len(asked) <= 5

    def test_an_unknown_job_is_not_asked_about_at_each_of_its_entries(self):
        worker, asked = Worker(), []
        for now in range(10_000, 30_000, 250):
            worker.at(now)
            asked += [now] if worker.fold(entry("progress", now, fields={"data": "1"})) else []
        assert asked == [10_000, 12_000, 16_000, 24_000]
        assert worker.metric("worker_probes_total", reason="probe") == 4
        worker.fold(look(None, 30_100, found=False, stream_id="30000-0"))
        assert len(worker.fold(*[entry("progress", 30_200, seq=n, fields={"data": "1"}) for n in range(9)])) == 1

    def test_a_look_that_changes_nothing_is_an_answer(self):
        worker = Worker()
        worker.fold(*TAKEN)
        worker.tick(3_250)
        worker.tick(5_500)
        worker.fold(look("active", 1_500, job(), lock_ttl_ms=5, stream_id="1000-0"))
        asked = [now for now in range(5_750, 20_000, 250) if worker.tick(now)]
        assert asked[:2] == [9_750, 12_000]
