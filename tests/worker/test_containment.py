"""What our own code fails on, and what Kafka does not take whole: the engine's part is played by a real fold."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from streams.core import deadlines
from streams.core.events import REASONS
from streams.core.fold import fold
from streams.engine import transaction
from streams.engine.limits import Limits
from streams.engine.partition import Batch, Tick, Work
from streams.engine.store import PartitionStore
from streams.wire import loads
from tests.core.build import BORN, entry, job
from tests.worker import test_handler
from tests.worker.build import PARTITION, TABLE, Worker, batch, record, topics_of

KEY = b"s/q/1"
TAKEN = test_handler.TAKEN
DEAD = "t.dead-letters.v1"


NO_ROWS = [
    b"", b"{", b"[]", b"null", b'{"_":5}', b'{"_":{"due":"x"}}', b"\xff\xfe", b'{"state":[],"_":{"due":1e400}}',
    b'{"state":"waiting","_":{"due":5,"state":7,"at":"x","spread":"y"}}',
    b'{"_":{"due":5,"state":"stuck","at":1,"spread":1,"suspect":7}}',
    b'{"_":{"due":5,"state":"failed","at":1,"spread":1,"open":7}}',
    b'{"_":{"due":[],"state":{},"at":1,"spread":1}}',
]  # fmt: skip


@pytest.mark.errors_expected
@pytest.mark.parametrize("raw", NO_ROWS)
@pytest.mark.parametrize("key", [KEY, None, b"", b"x", b"\xff/\xff/\xff"])
def test_what_is_no_row_costs_itself_alone(key, raw, caplog):
    """Anybody with the right to may write to the topic of the table."""
    worker = Worker()
    worker.fold(entry("added", BORN, job(), job_id="2"), entry("waiting", BORN, job(), seq=1, job_id="2"))
    worker.rows[key] = raw
    worker.recover()
    worker.tick(BORN + 1)
    assert (list(worker.rows), worker.metric("worker_record_failures_total")) == ([b"s/q/2"], 1)
    assert worker.metric("jobs", source="s", queue="q", state="waiting") == 1
    assert len([line for line in caplog.messages if "are no rows" in line]) == 1
    worker.fold(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1))
    assert worker.row()["state"] == "waiting"


class Engine:
    """Folds as the engine does, first without and then with care, on a worker's handler and table."""

    def __init__(self, worker: Worker, limits: dict[str, int] | None = None, default: int = 1_048_588) -> None:
        self.worker = worker
        self.limits = Limits((), default)
        self.limits.by_topic = limits or {}
        self.store = object.__new__(PartitionStore)
        self.store.parts = defaultdict(dict, {PARTITION: worker.rows})
        self.kinds: list[bool] = []

    async def fold(self, *values: Any, tick: int | None = None) -> Any:
        """Fold records and a tick, and commit. Returns the outputs."""
        records = [value if not isinstance(value, dict) else record(value, offset=n) for n, value in enumerate(values)]
        work = Work()
        if records:
            work.add(Batch(None, None, records, 0))
        if tick is not None:
            self.worker.at(tick)
            work.add(Tick(tick))
        try:
            folded = await self._fold(work, careful=False)
        except Exception:  # noqa: BLE001 - as the engine does
            folded = await self._fold(work, careful=True)
        for key, raw in folded.rows.items():
            if raw is None:
                self.worker.rows.pop(key)
            else:
                self.worker.rows[key] = raw
        self.worker.handler.on_committed(PARTITION, folded.tx.staged, batch(*records))
        return folded.tx.outputs

    async def _fold(self, work: Work, *, careful: bool) -> Any:
        self.kinds.append(careful)
        options: Any = type(
            "Options", (), {"table_topic": TABLE, "codec": self.worker.tx().codec, "max_batch_bytes": 10**9}
        )
        part: Any = type("Part", (), {"number": PARTITION})
        lock = asyncio.Lock()
        return await transaction.fold(
            self.worker.handler, self.store, options, part, work, self.limits, lock, careful=careful
        )


def dead_letters(outputs: Any) -> list[dict[str, str]]:
    return [{name: text.decode() for name, text in headers} for topic, *_, headers, _ in outputs if topic == DEAD]


def break_fold(monkeypatch, wrong):
    """The fold fails on the job of this id, with an error that quotes its data."""
    good = fold

    def failing(row, event, rules):
        result = good(row, event, rules)
        if event["job_id"] == wrong:
            raise KeyError(event["job"])
        return result

    monkeypatch.setattr("streams.worker.handler.fold", failing)


@pytest.mark.errors_expected
async def test_a_record_on_which_the_fold_fails_is_a_dead_letter(monkeypatch, caplog):
    break_fold(monkeypatch, "2")
    worker = Worker()
    engine = Engine(worker)
    outputs = await engine.fold(TAKEN[0], entry("added", BORN, job(data="secret"), job_id="2"), *TAKEN[1:])
    (told,) = dead_letters(outputs)
    assert (told["dlq_reason"], told["dlq_offset"]) == ("internal", "1")
    assert told["dlq_error"].startswith("KeyError at ")
    assert "secret" not in told["dlq_error"] + caplog.text
    assert worker.row()["state"] == "active"
    assert worker.rows.keys() == {KEY}
    assert worker.metric("worker_record_failures_total") == 1
    assert worker.metric("worker_dead_letters_total", reason="internal") == 1
    assert "internal" in REASONS


@pytest.mark.errors_expected
async def test_a_visit_that_fails_is_put_off_and_the_others_are_made(monkeypatch):
    good = deadlines.visit

    def visit(row, now_ms, rules):
        if row["id"] == "1":
            raise ZeroDivisionError
        return good(row, now_ms, rules)

    monkeypatch.setattr("streams.worker.handler.deadlines.visit", visit)
    worker = Worker(rows=test_handler.rows("active", 1_000, 3))
    engine = Engine(worker)
    asked = [loads(value)["job_id"] for _, _, _, value, _, _ in await engine.fold(tick=5_000)]
    assert asked == ["0", "2"]
    assert worker.metric("worker_record_failures_total") == 1
    assert engine.kinds == [False, True]
    assert await engine.fold(tick=5_250) == []
    assert engine.kinds == [False, True, False]  # put off: nobody stumbles over it at each tick
    await engine.fold(tick=5_000 + 2_250)
    assert worker.metric("worker_record_failures_total") == 2


class TestSizes:
    async def test_a_job_of_300_kb_on_a_topic_of_256_kb_goes_on_without_its_data(self):
        worker = Worker()
        engine = Engine(worker, default=262_144)
        big = {"data": "x" * 300_000}
        outputs = await engine.fold(
            entry("added", BORN, job(**big)),
            entry("waiting", BORN, job(**big), seq=1),
            entry("active", 2_000, job(**big, processed_on=2_000, attempts_started=1)),
            entry("failed", 3_000, job(**big, finished_on=3_000, attempts_made=3), fields={"failedReason": "no"}),
        )
        assert topics_of(outputs) == ["transitions", "transitions", "transitions", "alerts"]
        row = worker.row()
        assert (row["state"], row["data"]) == ("failed", None)
        assert "data" in row["estimated"]
        assert loads(outputs[-1][3])["job"]["data"] is None
        assert worker.metric("worker_events_total", source="s", queue="q") == 4

    async def test_a_topic_that_takes_it_gets_it_whole(self):
        worker = Worker()
        engine = Engine(worker, {TABLE: 1_048_588})
        await engine.fold(entry("added", BORN, job(data="x" * 1_000_000)))
        assert len(worker.row()["data"]) == 1_000_000
        assert engine.kinds == [False]

    async def test_each_topic_has_its_own_limit(self):
        worker = Worker()
        engine = Engine(worker, {"t.alerts.v1": 20_000})
        big = {"data": "x" * 100_000}
        outputs = await engine.fold(
            *[entry(event["event"], int(event["stream_id"].split("-")[0]), job(**{**event["job"], **big}), seq=n)
              for n, event in enumerate(TAKEN)],
            entry("failed", 3_000, job(**big, finished_on=3_000, attempts_made=3), fields={"failedReason": "no"}),
        )  # fmt: skip
        assert topics_of(outputs)[-1] == "alerts"
        assert len(outputs[-1][3]) < 20_000
        assert worker.row()["state"] == "failed"

    async def test_what_cannot_be_made_light_enough_is_a_dead_letter_and_the_row_stays(self, monkeypatch):
        monkeypatch.setattr("streams.worker.handler.lighter", lambda _: None)
        worker = Worker()
        engine = Engine(worker, {TABLE: 5_000})
        await engine.fold(*TAKEN)
        before = worker.row()
        outputs = await engine.fold(
            entry("failed", 3_000, job(data="x" * 9_000, finished_on=3_000), fields={"failedReason": "no"})
        )
        assert [told["dlq_reason"] for told in dead_letters(outputs)] == ["too_large"]
        assert worker.row() == before

    async def test_an_alert_that_ends_with_its_row_is_made_lighter_too(self):
        worker = Worker(WORKER__RETENTION_S="60")
        big = {"data": "x" * 50_000}
        await Engine(worker).fold(
            *TAKEN, entry("failed", 3_000, job(**big, finished_on=3_000), fields={"failedReason": "no"})
        )
        outputs = await Engine(worker, {"t.alerts.v1": 20_000}).fold(tick=90_000_000)
        assert [loads(value)["status"] for topic, *_, value, _, _ in outputs if "alerts" in topic] == ["resolved"]
