from __future__ import annotations

import pytest

from streams.core.lifecycle import STATES
from streams.worker.index import PartitionIndex
from streams.worker.meters import SAMPLES_PER_BATCH, SECONDS_BETWEEN_LOOKS, SILENT_LOOKS, BatchMeter, Meters
from tests.core.build import Life, entry, job, look, running
from tests.worker.build import Worker, batch, record

QUEUE = {"source": "s", "queue": "q"}


@pytest.fixture
def worker():
    return Worker()


def told(worker, *events, batched=()):
    """One batch of these events, committed."""
    meter, life = BatchMeter(), Life()
    for event in events:
        meter.folded(event, life.apply(event))
    worker.meters.committed(meter, batch(*batched))


def test_events_by_queue(worker):
    told(worker, entry("active", 2_000), entry("progress", 2_001, fields={"data": "1"}), entry("paused", 3, job_id=""))
    told(worker, entry("active", 2_000, queue="r"))
    assert worker.metric("worker_events_total", **QUEUE) == 3
    assert worker.metric("worker_events_total", source="s", queue="r") == 1


def test_dead_letters_by_reason(worker):
    meter = BatchMeter()
    meter.dead_letters += ["bad_key", "not_json", "bad_key"]
    worker.meters.committed(meter, batch())
    assert worker.metric("worker_dead_letters_total", reason="bad_key") == 2
    assert worker.metric("worker_dead_letters_total", reason="not_json") == 1
    assert worker.metric("worker_dead_letters_total", reason="wrong_type") == 0


def test_anomalies_by_kind(worker):
    told(worker, entry("waiting", 2_000), entry("completed", 3_000))
    assert worker.metric("worker_anomalies_total", kind="waiting_to_completed") == 1


def test_alerts_by_rule_and_status(worker):
    told(worker, entry("active", 2_000), entry("failed", 3_000, fields={"failedReason": "x"}), entry("removed", 4_000))
    assert worker.metric("alerts_total", rule="failed", status="firing") == 1
    assert worker.metric("alerts_total", rule="failed", status="resolved") == 1
    assert worker.metric("alerts_total", rule="stuck", status="firing") == 0


def test_transitions_from_nothing_have_an_empty_from(worker):
    told(worker, entry("waiting", 2_000), entry("active", 3_000))
    moves = {**QUEUE, "from": "", "to": "waiting"}
    assert worker.metric("worker_transitions_total", **moves) == 1
    assert worker.metric("worker_transitions_total", **{**moves, "from": "waiting", "to": "active"}) == 1


def histogram(worker, name, labels):
    return worker.metric(f"{name}_count", **labels), worker.metric(f"{name}_sum", **labels)


@pytest.mark.parametrize(
    ("events", "wait", "run"),
    [
        ([entry("waiting", 2_000), entry("active", 3_500)], (1, 1.5), (0, 0)),
        ([entry("waiting", 2_000, queue_paused=True), entry("active", 3_500)], (1, 1.5), (0, 0)),
        ([entry("active", 2_000), entry("completed", 2_250)], (0, 0), (1, 0.25)),
        ([entry("active", 2_000), entry("failed", 2_250)], (0, 0), (1, 0.25)),
        ([entry("active", 2_000), entry("waiting", 2_250, fields={"prev": "active"})], (0, 0), (1, 0.25)),
        ([entry("delayed", 2_000, fields={"delay": "5000"}), entry("waiting", 5_000)], (0, 0), (0, 0)),
        ([entry("delayed", 2_000, fields={"delay": "5000"}), entry("active", 5_000)], (0, 0), (0, 0)),
        ([entry("waiting", 2_000), entry("removed", 5_000)], (0, 0), (0, 0)),
        ([entry("waiting", 2_000), look("active", 5_000, stream_id="2000-0", lock_ttl_ms=5)], (0, 0), (0, 0)),
        ([entry("active", 2_000), look("wait", 5_000, stream_id="2000-0")], (0, 0), (0, 0)),
    ],
)
def test_times_in_a_state_are_measured_where_both_ends_were_told(worker, events, wait, run):
    told(worker, *events)
    assert histogram(worker, "job_wait_seconds", QUEUE) == wait
    assert histogram(worker, "job_run_seconds", QUEUE) == run


def test_the_batch_and_the_delay_of_its_records(worker):
    told(worker, batched=[record({**entry("active", 1)}, timestamp=at) for at in (1_500, 2_000, 9_000)])
    assert histogram(worker, "worker_batch_seconds", {}) == (1, 0.003)
    assert histogram(worker, "end_to_end_seconds", {}) == (3, 0.5)


def test_a_batch_of_ticks_alone_has_no_delay(worker):
    told(worker)
    assert histogram(worker, "worker_batch_seconds", {}) == (1, 0.003)
    assert histogram(worker, "end_to_end_seconds", {})[0] == 0


def test_of_a_great_batch_a_sample_is_measured(worker):
    told(worker, batched=[record(b"", key=b"")] * 6_400)
    assert histogram(worker, "end_to_end_seconds", {})[0] == SAMPLES_PER_BATCH


def test_gauges_are_read_from_the_indexes_that_are_ours(worker):
    indexes = [PartitionIndex(), PartitionIndex()]
    life = running()
    indexes[0].put(b"1", life.live)
    life.apply(entry("failed", 3_000, job(finished_on=3_000), fields={"failedReason": "x"}))
    indexes[1].put(b"2", life.live)
    indexes[1].put(b"3", {**life.live, "queue": "r"})
    for partition, index in enumerate(indexes):
        worker.meters.assigned(partition, index)
    worker.meters.refresh()
    assert worker.metric("table_rows") == 3
    assert worker.metric("jobs", **QUEUE, state="active") == 1
    assert worker.metric("jobs", **QUEUE, state="failed") == 1
    assert worker.metric("jobs", source="s", queue="r", state="failed") == 1
    assert worker.metric("alerts_firing", rule="failed") == 2
    worker.meters.revoked(1)
    worker.meters.revoked(7)
    worker.meters.refresh()
    assert worker.metric("table_rows") == 1
    assert worker.metric("alerts_firing", rule="failed") == 0
    assert b'queue="r"' not in worker.metrics.render()


def test_every_state_of_a_known_queue_has_a_series(worker):
    index = PartitionIndex()
    index.put(b"1", running().live)
    worker.meters.assigned(0, index)
    worker.meters.refresh()
    text = worker.metrics.render().decode()
    for state in STATES:
        assert f'bullmq_streams_jobs{{queue="q",source="s",state="{state}"}} {float(state == "active")}' in text
    assert 'bullmq_streams_alerts_firing{rule="stuck"} 0.0' in text


def test_a_queue_that_is_gone_is_forgotten(worker):
    index = PartitionIndex()
    heard: dict[tuple[str, str], dict[str, int]] = {}
    meters = Meters(worker.metrics, 1, heard)
    meters.assigned(0, index)
    index.put(b"1", running().live)
    heard["s", "r"] = {"active": 0}
    meter, life = BatchMeter(), Life()
    for event in (entry("waiting", 2_000), entry("active", 3_000), entry("completed", 4_000)):
        meter.folded(event, life.apply(event))
    meters.committed(meter, batch())
    gone = BatchMeter()
    gone.folded(entry("waiting", 2_000, queue="gone"), Life().apply(entry("waiting", 2_000, queue="gone")))
    meters.committed(gone, batch())

    def looks(count):
        for _ in range(count * SECONDS_BETWEEN_LOOKS):
            meters.refresh()
        return {queue for queue in ("q", "r", "gone") if f'queue="{queue}"' in worker.metrics.render().decode()}

    assert looks(SILENT_LOOKS) == {"q", "r", "gone"}
    assert looks(3) == {"q", "r"}
    index.drop(b"1")
    del heard["s", "r"]
    assert looks(SILENT_LOOKS + 3) == set()
    meters.committed(meter, batch())
    assert looks(1) == {"q"}


def test_questions_by_reason(worker):
    meter = BatchMeter()
    meter.probes += ["probe", "verify", "probe"]
    worker.meters.committed(meter, batch())
    assert worker.metric("worker_probes_total", reason="probe") == 2
    assert worker.metric("worker_probes_total", reason="verify") == 1


def test_the_last_recovery(worker):
    worker.meters.restored(1.5)
    assert worker.metric("table_restore_seconds") == 1.5
