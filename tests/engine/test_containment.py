"""What goes wrong with one record or one tick costs that one: the others of its batch go on, and so does the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streams.engine.quiet import kind_of
from streams.engine.tx import Unwritable
from streams.wire import loads
from tests.engine.counting import Counting
from tests.engine.fakes import TOPICS, Bench, record, until


def out(bench: Bench) -> list[bytes | None]:
    return [value for topic, *_, value in bench.producer.visible if topic == TOPICS.out]


def too_large(_: str) -> Unwritable:
    return Unwritable("too_large", TOPICS.out, b"k", 5)


class Failing(Counting):
    """Fails on the numbers of `wrong`, after it has staged all that it would have."""

    wrong: tuple[int, ...] = (2,)
    error: Callable[[str], Exception] = ZeroDivisionError

    def on_record(self, tx: Any, record: Any) -> None:
        super().on_record(tx, record)
        tx.put(b"other", {"by": record.offset})
        if record.offset in self.wrong:
            raise self.error("customer's secret")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, RecursionError, MemoryError, AssertionError, too_large])
async def test_a_record_on_which_the_fold_fails_is_set_aside_alone(monkeypatch, caplog, error):
    handler = Failing(TOPICS)
    handler.error = error
    bench = Bench(monkeypatch, handler)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(5)])
    await bench.settled()
    assert loads(bench.store.parts[0][b"k"]) == {"count": 4, "sum": 8, "last": 4}
    assert loads(bench.store.parts[0][b"other"]) == {"by": 4}
    said = out(bench)
    assert [loads(value or b"")["event"] for value in (*said[:2], *said[3:])] == [0, 1, 3, 4]
    assert said[2] == error.__name__.encode()
    assert bench.stream.acked == [4]
    assert bench.app.crashes == []
    assert "secret" not in caplog.text


async def test_the_first_and_the_last_record_are_no_exceptions(monkeypatch):
    handler = Failing(TOPICS)
    handler.wrong = (0, 1, 4)
    bench = Bench(monkeypatch, handler)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(5)])
    await bench.settled()
    assert loads(bench.store.parts[0][b"k"]) == {"count": 2, "sum": 5, "last": 3}
    assert bench.stream.acked == [4]


async def test_the_next_batch_is_folded_without_care_again(monkeypatch):
    kinds: list[str] = []

    class Noted(Failing):
        def on_record(self, tx: Any, record: Any) -> None:
            kinds.append(type(tx).__name__)
            super().on_record(tx, record)

    bench = Bench(monkeypatch, Noted(TOPICS))
    await bench.assign(0)
    bench.submit(record(2))
    await bench.settled()
    bench.submit(record(3))
    await bench.settled()
    assert kinds == ["Tx", "CheckedTx", "Tx"]


@pytest.mark.errors_expected
@pytest.mark.parametrize("wrong", ["on_failed", "on_unwritable"])
async def test_what_cannot_even_be_set_aside_is_left_out(monkeypatch, caplog, wrong):
    def refuse(tx: Any, _record: Any, _error: Exception) -> None:
        tx.emit(TOPICS.out, b"half", b"half")
        raise RuntimeError("customer's secret")

    monkeypatch.setattr("streams.engine.transaction.log.filters", [])  # its rate limit
    handler = Failing(TOPICS)
    if wrong == "on_unwritable":
        handler.error = too_large
    monkeypatch.setattr(handler, wrong, refuse)
    bench = Bench(monkeypatch, handler)
    await bench.assign(0)
    bench.submit(*[record(number) for number in range(5)])
    await bench.settled()
    assert bench.producer.numbers() == [1, 2, 3, 4]
    assert b"half" not in out(bench)
    assert bench.stream.acked == [4]
    assert bench.app.crashes == []
    assert f"{TOPICS.events}-0 offset 2 failed" in caplog.text
    assert "secret" not in caplog.text


async def test_a_tick_that_fails_costs_the_tick(monkeypatch):
    class Ticker(Counting):
        def on_tick(self, tx: Any, _now_ms: int) -> None:
            tx.put(b"half", {})
            raise ValueError("no")

    bench = Bench(monkeypatch, Ticker(TOPICS))
    await bench.assign(0)
    bench.submit(record(0))
    bench.engine.tick(1)
    await bench.settled()
    assert bench.store.parts[0].keys() == {b"k"}
    assert [value for value in out(bench) if value == b"ValueError"] == [b"ValueError"]
    assert bench.app.crashes == []


async def test_a_row_that_no_longer_can_be_read_costs_the_records_of_its_key(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.store.parts[0][b"k"] = b"{no json"
    bench.submit(record(0), record(1, b"other"), record(2))
    await bench.settled()
    assert bench.store.parts[0].keys() == {b"k", b"other"}
    assert bench.store.parts[0][b"k"] == b"{no json"
    assert out(bench).count(b"JSONDecodeError") == 2
    assert bench.stream.acked == [2]


async def test_a_refused_batch_is_never_sent_again_as_it_was(monkeypatch):
    """The broker's limit was lowered while we ran, and we may not read it: smaller pieces until they are taken."""
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.limit_bytes = 20_000
    bench.submit(*[record(number, b"%d" % number + b"k" * 500) for number in range(100)])
    await bench.settled()
    assert bench.producer.numbers() == [1] * 100
    assert bench.app.crashes == []
    refused = bench.producer.refused
    assert 2 <= len(refused) <= 6
    assert len(set(refused)) == len(refused)
    assert bench.engine.limits.of(TOPICS.out) > 10_000
    assert bench.engine.limits.of(TOPICS.table) > 10_000


async def test_a_broker_that_takes_nothing_at_all_is_no_endless_loop(monkeypatch):
    bench = Bench(monkeypatch)
    await bench.assign(0)
    bench.producer.limit_bytes = 10
    bench.submit(record(0))
    await bench.settled()
    await until(lambda: bench.app.consumer.rejoined == 1)
    assert len(bench.producer.refused) < 20
    assert bench.stream.acked == []


def test_the_kind_of_an_error_is_its_type_and_place_in_our_code():
    with pytest.raises(Exception, match="unexpected") as caught:
        loads(b"{")
    assert kind_of(caught.value).startswith("JSONDecodeError at tests.engine.test_containment:")
    with pytest.raises(ZeroDivisionError) as divided:
        kind_of(1 / 0)  # type: ignore[arg-type]  # raises before the call
    assert kind_of(divided.value).startswith("ZeroDivisionError at tests.engine.test_containment:")
    assert kind_of(KeyError("secret")) == "KeyError at nowhere:0"
