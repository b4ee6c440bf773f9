from __future__ import annotations

import contextlib

import pytest

from streams.worker.drift import Heartbeats, by_state, drift
from streams.worker.index import PartitionIndex
from streams.worker.meters import Meters
from tests.core.build import running
from tests.worker.build import Worker

COUNTS = {
    "wait": 1, "paused": 2, "prioritized": 4, "waiting-children": 8, "active": 16, "delayed": 32, "completed": 64,
    "failed": 128,
}  # fmt: skip


def heartbeat(**more):
    return {"type": "heartbeat", "source": "s", "queue": "q", "at": 5, "paused": False, "counts": COUNTS, **more}


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (heartbeat(), {"waiting": 1 + 4 + 8, "paused": 2, "active": 16, "delayed": 32}),
        (heartbeat(paused=True), {"waiting": 8, "paused": 1 + 2 + 4, "active": 16, "delayed": 32}),
        (heartbeat(counts={"elsewhere": 5}), {"waiting": 0, "paused": 0, "active": 0, "delayed": 0}),
        (heartbeat(counts=None), {"waiting": 0, "paused": 0, "active": 0, "delayed": 0}),
    ],
)
def test_places_are_counted_by_our_states(value, counts):
    assert by_state(value) == counts


def test_the_drift_is_the_tables_count_less_redis():
    jobs: dict[tuple[str, ...], float] = {
        ("s", "q", "active"): 3.0,
        ("s", "q", "stuck"): 2.0,
        ("s", "q", "waiting"): 1.0,
        ("s", "r", "active"): 9.0,
    }
    found = drift(jobs, {("s", "q"): {"active": 5, "waiting": 3, "delayed": 1}}, {("s", "q"): 1})
    assert found == {("s", "q", "active"): -1.0, ("s", "q", "waiting"): -2.0, ("s", "q", "delayed"): -1.0}


def test_the_newest_heartbeat_of_a_queue_counts():
    heartbeats = Heartbeats()
    heartbeats.take(heartbeat())
    heartbeats.take(heartbeat(counts={"active": 1}))
    heartbeats.take(heartbeat(queue="r"))
    assert heartbeats.counts["s", "q"]["active"] == 1
    assert heartbeats.counts["s", "r"]["active"] == 16


def test_a_queue_that_nobody_tells_of_any_more_is_forgotten():
    now = 0.0
    heartbeats = Heartbeats(lambda: now)
    heartbeats.take(heartbeat())
    heartbeats.take(heartbeat(queue="r"))
    now = 600.0
    heartbeats.take(heartbeat())
    assert set(heartbeats.counts) == {("s", "q"), ("s", "r")}
    now = 601.0
    heartbeats.take(heartbeat())
    assert set(heartbeats.counts) == {("s", "q")}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"type": "gap", "source": "s", "queue": "q"},
        heartbeat(queue=None),
        {"type": "heartbeat", "queue": "q"},
        heartbeat(counts=[1]),
        heartbeat(counts={"active": "many"}),
        heartbeat(queue=["q"]),
    ],
)
def test_what_is_no_heartbeat_is_passed_over(value):
    heartbeats = Heartbeats()
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        heartbeats.take(value)
    assert heartbeats.counts == {}


def test_the_gauge_is_there_while_all_partitions_are_ours():
    worker = Worker()
    meters = Meters(worker.metrics, 2, {("s", "q"): {"active": 5}})
    labels = {"source": "s", "queue": "q", "state": "active"}
    index = PartitionIndex()
    index.put(b"1", running().live)
    meters.assigned(0, index)
    meters.refresh()
    assert b"jobs_drift{" not in worker.metrics.render()
    meters.assigned(1, PartitionIndex())
    meters.refresh()
    assert worker.metric("jobs_drift", **labels) == -4
    meters.revoked(1)
    meters.refresh()
    assert b"jobs_drift{" not in worker.metrics.render()


def test_of_several_workers_the_one_with_the_first_partition_tells_what_all_are_apart():
    worker = Worker()
    meters = Meters(worker.metrics, 2, {("s", "q"): {"active": 5}}, lambda: {("s", "q", "active"): 2.0})
    labels = {"source": "s", "queue": "q", "state": "active"}
    meters.assigned(1, PartitionIndex())
    assert b"jobs_drift{" not in worker.metrics.render()
    meters.revoked(1)
    meters.assigned(0, PartitionIndex())
    assert worker.metric("jobs_drift", **labels) == 2
