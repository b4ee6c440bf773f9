"""A partition's part of comparisons, with the engine and the bridge played by hand."""

from __future__ import annotations

from typing import Any

import pytest

from streams.wire import loads
from streams.worker import repair as module
from streams.worker.comparisons import Comparisons
from streams.worker.counts import INTERVAL_MS, JUDGE, Balance
from streams.worker.outputs import Outputs
from streams.worker.repair import FIRST_RETRY_MS
from streams.worker.repairs import Repairs
from tests.core.build import BORN, entry, job, look
from tests.worker.build import PARTITION, Worker, settings

START_MS = 5_000
"""Redis' clock when the comparison began; its stream's last id is of that ms."""
TICK_MS = START_MS + 100
QUEUE = ("s", "q")


class Line:
    """A worker with jobs 1 … n that wait since BORN, and what `health` tells it."""

    def __init__(self, jobs: int = 3) -> None:
        self.comparisons, self.balance = Comparisons(), Balance()
        self.folded_to: int | None = 10
        repairs = Repairs(Outputs(settings()), self.comparisons, self.balance)
        repairs.folded_to = lambda _: self.folded_to
        self.worker = Worker(repairs=repairs)
        for number in range(1, jobs + 1):
            job_id = str(number)
            self.worker.fold(
                entry("added", BORN, job(), job_id=job_id), entry("waiting", BORN, job(), seq=1, job_id=job_id)
            )

    def say(self, status: str, request: str = "r", **more: Any) -> None:
        start = {"epoch": 0, "stream_id": f"{START_MS}-0", "observed_at": START_MS, "reason": "drift"}
        record = {"type": "snapshot", "source": "s", "queue": "q", "at": START_MS, "status": status, "request": request}
        self.comparisons.take({**record, **(start if status == "started" else {}), **more})

    def compare(self, end: int = 5, **more: Any) -> None:
        self.say("started", **more)
        self.say("finished", **more)
        for comparison in self.comparisons.unplaced():
            comparison.ends = {PARTITION: end}

    def tick(self, now_ms: int = TICK_MS) -> tuple[list[str], list[dict[str, Any]]]:
        """(ids asked about, records on health about comparisons) of one tick."""
        return told(self.worker.tick(now_ms))


def told(outputs: list[Any]) -> tuple[list[str], list[dict[str, Any]]]:
    probes = [loads(value) for topic, _, _, value, _, _ in outputs if ".probes." in topic]
    health = [loads(value) for topic, _, _, value, _, _ in outputs if ".health." in topic]
    assert all(probe["reason"] in ("verify", "drift") for probe in probes)
    return [probe["job_id"] for probe in probes], [each for each in health if each["type"] == "snapshot"]


def seen(job_id: str, where: str = "wait", **more: Any) -> dict[str, Any]:
    at = START_MS + 10
    return look(where, at, job(), job_id=job_id, stream_id=f"{START_MS}-0", reason="snapshot", **more)


def gone(job_id: str) -> dict[str, Any]:
    return look(None, START_MS + 50, job_id=job_id, stream_id=f"{START_MS}-0", reason="verify")


def test_what_the_looks_did_not_touch_is_asked_about_and_told_when_it_is_answered():
    line = Line()
    line.worker.fold(seen("1"))
    line.compare()
    asked, health = line.tick()
    assert (sorted(asked), health) == (["2", "3"], [])
    assert line.tick() == ([], [])
    line.worker.fold(gone("2"), {**seen("3"), "reason": "verify"})
    asked, (compared,) = line.tick()
    assert asked == []
    assert {**compared, "at": 0} == {
        "type": "snapshot", "source": "s", "queue": "q", "at": 0, "status": "compared", "request": "r",
        "partition": PARTITION, "corrected": 0, "closed": 1,
    }  # fmt: skip
    assert line.tick() == ([], [])


def test_rows_that_the_looks_put_right_are_counted():
    line = Line()
    line.say("started")
    line.worker.fold(seen("1", "delayed"), seen("2"), seen("3", "active", lock_ttl_ms=500))
    line.say("finished")
    for comparison in line.comparisons.unplaced():
        comparison.ends = {PARTITION: 0}
    _, (compared,) = line.tick()
    assert (compared["corrected"], compared["closed"]) == (2, 0)
    assert line.worker.metric("worker_rows_corrected_total", source="s", queue="q") == 2


def test_nothing_is_asked_before_the_partition_has_folded_what_the_bridge_wrote():
    line = Line()
    line.compare(end=11)
    assert line.tick() == ([], [])
    line.folded_to = None
    assert line.tick() == ([], [])
    line.folded_to = 11
    asked, _ = line.tick()
    assert len(asked) == 3


def test_a_question_is_asked_again_later_and_later_until_it_is_answered():
    line = Line(1)
    line.compare()
    asked_at = [now for now in range(TICK_MS, TICK_MS + 16_000, 250) if line.tick(now)[0]]
    assert asked_at == [TICK_MS, TICK_MS + FIRST_RETRY_MS, TICK_MS + 3 * FIRST_RETRY_MS, TICK_MS + 7 * FIRST_RETRY_MS]


def test_a_row_that_an_entry_has_reached_meanwhile_is_asked_about_no_more():
    line = Line(1)
    line.compare()
    assert line.tick()[0] == ["1"]
    line.worker.fold(entry("active", START_MS + 5, job(processed_on=START_MS), job_id="1"))
    assert len(line.tick()[1]) == 1


def test_questions_are_bounded(monkeypatch):
    line = Line(20)
    line.compare()
    monkeypatch.setattr(line.worker.handler._pace, "left", lambda *_: 7)
    assert [len(line.tick()[0]) for _ in range(4)] == [7, 7, 6, 0]


def test_rows_are_gone_through_in_pieces(monkeypatch):
    line = Line(20)
    monkeypatch.setattr(module, "ROWS_PER_TICK", 6)
    monkeypatch.setattr(module, "KEYS_PER_TICK", 10)
    line.compare()
    assert [len(line.tick()[0]) for _ in range(6)] == [6, 6, 6, 2, 0, 0]


def test_other_queues_and_finished_rows_are_left_alone():
    line = Line(1)
    other = entry("added", BORN, job(), job_id="9", queue="other")
    line.worker.fold(other, entry("waiting", BORN, job(), seq=1, job_id="9", queue="other"))
    line.worker.fold(entry("completed", BORN + 1, job(finished_on=BORN + 1), job_id="1"))
    line.compare()
    assert line.tick()[0] == []


def test_what_was_not_committed_is_told_again():
    line = Line(0)
    line.compare()
    tx = line.worker.tx()
    line.worker.handler.on_tick(tx, TICK_MS)
    assert len(told(tx.outputs)[1]) == 1
    assert len(line.tick()[1]) == 1
    assert line.tick()[1] == []


def test_a_new_owner_begins_again_what_is_not_told_to_be_done():
    line = Line(1)
    line.compare()
    assert line.tick()[0] == ["1"]
    line.worker.handler.on_revoked({PARTITION})
    line.worker.recover()
    assert line.tick()[0] == ["1"]
    line.worker.handler.on_revoked({PARTITION})
    line.say("compared", partition=PARTITION)
    line.worker.recover()
    assert line.tick() == ([], [])


def test_one_comparison_after_the_other():
    line = Line(1)
    line.compare()
    line.compare(request="s")
    assert line.tick()[0] == ["1"]
    line.worker.fold(gone("1"))
    assert [each["request"] for each in line.tick()[1]] == ["r"]
    assert [each["request"] for each in line.tick()[1]] == ["s"]


def test_the_counts_of_a_partition_are_told_where_they_change():
    line = Line(2)
    outputs = line.worker.tick(TICK_MS)
    (table,) = [loads(value) for topic, _, _, value, _, _ in outputs if ".health." in topic]
    assert table == {
        "type": "table", "source": None, "queue": None, "at": TICK_MS, "partition": PARTITION,
        "counts": {"s/q": {"waiting": 2}}, "whole": True,
    }  # fmt: skip
    assert line.worker.tick(TICK_MS + INTERVAL_MS) == []


def test_records_that_expired_unread_are_told_until_it_is_committed():
    line = Line(1)
    line.worker.handler.on_expired(PARTITION, 5, 12)
    for _ in range(2):  # an abort: the tick is folded again
        tx = line.worker.tx()
        line.worker.handler.on_tick(tx, TICK_MS)
    told = [loads(value) for topic, _, _, value, _, _ in line.worker.tick(TICK_MS) if ".health." in topic]
    gap = {
        "type": "gap", "source": None, "queue": None, "at": TICK_MS, "from_id": None, "to_id": None, "lost": None,
        "undone": None, "cause": "expired", "epoch": 0, "partition": PARTITION, "offsets": 7,
    }  # fmt: skip
    assert [each for each in told if each["type"] == "gap"] == [gap]
    assert line.worker.tick(TICK_MS + 1) == []


@pytest.mark.parametrize(("partition", "asks"), [(JUDGE, True), (PARTITION, False)])
def test_the_owner_of_the_first_partition_asks_where_the_counts_stay_apart(partition, asks):
    line = Line(0)
    line.balance.take({"type": "table", "partition": 0, "counts": {"s/q": {"waiting": 3}}})
    beat = {"type": "heartbeat", "source": "s", "queue": "q", "at": 0, "lag_ms": 0, "entries_read": 0, "counts": {}}
    line.balance.take(beat)
    line.balance.take(beat)
    worker = line.worker
    for _ in worker.handler.on_recovered(partition, {}):
        pass
    tx = worker.tx()
    tx.partition = partition
    worker.handler.on_tick(tx, TICK_MS)
    probes = [loads(value or b"") for topic, _, _, value, _, _ in tx.outputs if ".probes." in topic]
    assert [(probe["queue"], probe["job_id"], probe["reason"]) for probe in probes] == [("q", "", "drift")] * asks
