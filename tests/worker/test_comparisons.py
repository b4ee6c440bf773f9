from __future__ import annotations

import pytest

from streams.core.compare import Start
from streams.worker.comparisons import KEPT_MS, Comparisons

NAME = ("s", "q")


def snapshot(status, request="r", at=1_000, **more):
    started = {"epoch": 1, "stream_id": "5-0", "observed_at": 7, "reason": "drift"} if status == "started" else {}
    base = {"type": "snapshot", "source": "s", "queue": "q", "at": at, "status": status, "request": request}
    return {**base, **started, **more}


def finished(comparisons, **ends):
    comparisons.take(snapshot("started"))
    comparisons.take(snapshot("finished"))
    (comparison,) = comparisons.unplaced()
    comparison.ends = {int(number[1:]): end for number, end in ends.items()}
    return comparison


def test_a_comparison_is_due_once_it_is_finished_and_placed():
    comparisons = Comparisons()
    comparisons.take(snapshot("started"))
    assert comparisons.unplaced() == []
    assert list(comparisons.due(0)) == []
    comparisons.take(snapshot("progress"))
    comparisons.take(snapshot("finished"))
    (comparison,) = comparisons.unplaced()
    assert list(comparisons.due(0)) == []
    comparison.ends = {0: 5}
    assert list(comparisons.due(0)) == [comparison]
    assert (comparison.name, comparison.start) == (NAME, Start(1, "5-0", 7))


def test_what_a_partition_has_compared_is_not_due_there_any_more():
    comparisons = Comparisons()
    comparison = finished(comparisons, p0=1, p1=1)
    comparisons.take(snapshot("compared", partition=0))
    assert list(comparisons.due(0)) == []
    assert list(comparisons.due(1)) == [comparison]


def test_one_begun_again_is_due_again_from_its_new_begin():
    comparisons = Comparisons()
    finished(comparisons, p0=1)
    comparisons.take(snapshot("started", at=2_000, observed_at=9))
    assert list(comparisons.due(0)) == []
    comparisons.take(snapshot("finished"))
    (comparison,) = comparisons.unplaced()
    assert comparison.start.observed_at == 9


def test_after_a_failover_the_common_id_counts_and_after_a_drift_it_does_not():
    comparisons = Comparisons()
    comparisons.take({"type": "gap", "source": "s", "queue": "q", "at": 1, "cause": "failover", "from_id": "3-0"})
    comparisons.take({"type": "gap", "source": "s", "queue": "q", "at": 1, "cause": "trimmed", "from_id": "4-0"})
    comparisons.take(snapshot("started", "a", reason="failover"))
    comparisons.take(snapshot("started", "b"))
    for request, also in (("a", True), ("b", False)):
        comparisons.take(snapshot("finished", request))
        found = next(each for each in comparisons.unplaced() if each.request == request)
        assert (found.common_id, found.concerns_finished) == ("3-0", also)


def test_old_ones_are_forgotten_by_when_they_were_heard_of():
    """A bridge whose clock is an hour ahead takes none of the others away."""
    now = [0.0]
    comparisons = Comparisons(lambda: now[0])
    first = finished(comparisons, p0=1)
    now[0] = KEPT_MS / 1000
    comparisons.take(snapshot("started", "later", at=1_001 + 3_600_000))
    assert list(comparisons.due(0)) == [first]
    now[0] += 0.1
    comparisons.take(snapshot("started", "last"))
    assert list(comparisons.due(0)) == []


def test_rows_corrected_before_are_not_those_of_a_comparison():
    comparisons = Comparisons()
    comparisons.note_corrected(0, {NAME: 3})
    comparison = finished(comparisons, p0=1)
    comparisons.note_corrected(0, {NAME: 2, ("s", "other"): 9})
    assert comparisons.corrected[NAME][0] - comparison.corrected_before[0] == 2


@pytest.mark.parametrize(
    "record",
    [
        {"type": "heartbeat"},
        {"type": "table", "partition": 0, "counts": {}},
        snapshot("finished", "unknown"),
        snapshot("compared", "unknown", partition=1),
    ],
)
def test_all_else_is_passed_over(record):
    comparisons = Comparisons()
    comparisons.take(record)
    assert comparisons.unplaced() == []


@pytest.mark.parametrize("record", [{}, [], "x", snapshot("started", epoch="x"), {"type": "snapshot"}, {"type": "gap"}])
def test_what_is_none_of_ours_raises_what_its_reader_expects(record):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Comparisons().take(record)


def test_more_comparisons_than_there_can_be_are_not_kept(monkeypatch):
    monkeypatch.setattr("streams.worker.comparisons._MOST_KEPT", 3)
    comparisons = Comparisons()
    for number in range(9):
        comparisons.take({"type": "gap", "source": "s", "queue": str(number), "cause": "reset", "from_id": "1-0"})
        comparisons.take(snapshot("started", request=str(number)))
    assert len(comparisons._by_request) == len(comparisons._common) == 3
