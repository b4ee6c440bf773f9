"""The check of entries against hand-made histories, records and gaps that are right, or wrong in one thing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import checks
from tests.faults.history import History, digest
from tests.faults.topics import Published


def raw(number: int, job_id: str = "1") -> tuple[bytes, list[bytes]]:
    return b"%d-0" % number, [b"event", b"active", b"jobId", job_id.encode()]


def add(history: History, number: int, job_id: str = "1") -> None:
    stream_id, pairs = raw(number, job_id)
    history.apply([b"XADD", b"bull:q:events", stream_id, *pairs])


def told(number: int, epoch: int = 0, job_id: str = "1", **more: Any) -> Published:
    content = digest("active", job_id, {})
    return Published(
        **{"queue": "q", "id": (number, 0), "epoch": epoch, "digest": content, "exact": True, "place": "here", **more}
    )


def gap(cause: str, begin: int, end: int, lost: int | None = None, **more: Any) -> dict[str, Any]:
    return {"queue": "q", "cause": cause, "from_id": f"{begin}-0", "to_id": f"{end}-0", "lost": lost, **more}


class TestEntries:
    @pytest.fixture
    def history(self) -> History:
        history = History()
        for number in range(1, 6):
            add(history, number)
        return history

    def trimmed(self, history: History) -> History:
        history.apply([b"XTRIM", b"bull:q:events", b"MAXLEN", b"2"])
        return history

    def test_all_of_them_once(self, history):
        assert checks.entries(history, [told(number) for number in range(1, 6)], []) == []

    def test_one_is_missing(self, history):
        (line, *_) = checks.entries(history, [told(number) for number in (1, 2, 4, 5)], [])
        assert "q 3-0 (active 1, era 0, present): stands in the stream, and is not on events" in line

    def test_one_is_there_twice(self, history):
        (line,) = checks.entries(history, [told(number) for number in (1, 2, 3, 3, 4, 5)], [])
        assert "published again" in line

    def test_one_never_was(self, history):
        (line,) = checks.entries(history, [told(number) for number in range(1, 7)], [])
        assert "q 6-0 epoch 0 (here): published, and never stood in the stream" in line

    def test_of_a_queue_that_never_was(self, history):
        lines = checks.entries(history, [*[told(number) for number in range(1, 6)], told(1, queue="other")], [])
        assert ["other 1-0" in line for line in lines] == [True]

    def test_of_a_queue_that_is_refused_nothing_is_expected(self, history):
        assert checks.entries(history, [], [], ["q"]) == []

    def test_another_content(self, history):
        lines = checks.entries(history, [*[told(number) for number in range(1, 5)], told(5, job_id="2")], [])
        assert "another content" in lines[0]
        assert checks.entries(history, [*[told(n) for n in range(1, 5)], told(5, job_id="2", exact=False)], []) == []

    def test_trimmed_ones_are_counted(self, history):
        self.trimmed(history)
        assert checks.entries(history, [told(4), told(5)], [gap("trimmed", 0, 4, 3)]) == []

    @pytest.mark.parametrize("lost", [2, 4, None])
    def test_the_count_is_wrong(self, history, lost):
        (line,) = checks.entries(self.trimmed(history), [told(4), told(5)], [gap("trimmed", 0, 4, lost)])
        assert f"gaps say {lost or 0} entries were lost, expected 3" in line

    def test_a_loss_where_nothing_was_lost(self, history):
        (line,) = checks.entries(history, [told(number) for number in range(1, 6)], [gap("trimmed", 0, 4, 3)])
        assert "gaps say 3 entries were lost, expected 0" in line

    def test_a_gap_does_not_excuse_what_stands_there(self, history):
        lines = checks.entries(history, [told(1), told(2)], [gap("trimmed", 2, 5, 3)])
        assert sum("no gap says so" in line for line in lines) == 3

    def test_a_gap_elsewhere_does_not_either(self, history):
        lines = checks.entries(self.trimmed(history), [told(4), told(5)], [gap("trimmed", 1, 4, 2)])
        assert ["q 1-0" in line for line in lines] == [True]

    def deleted(self, history: History) -> History:
        history.apply([b"DEL", b"bull:q:events"])
        add(history, 3, "9")
        return history

    def test_another_history_has_another_epoch(self, history):
        self.deleted(history)
        before = [told(number) for number in range(1, 6)]
        assert checks.entries(history, [*before, told(3, 1, "9")], [gap("reset", 5, 3)]) == []
        (line,) = checks.entries(history, [*before, told(3, 0, "9")], [gap("reset", 5, 3)])
        assert "entries of history 1 (deleted) have epoch 0, expected a greater one" in line

    def test_unread_ones_of_a_history_that_ended(self, history):
        self.deleted(history)
        before = [told(number) for number in range(1, 4)]
        assert checks.entries(history, [*before, told(3, 1, "9")], [gap("reset", 3, 3)]) == []
        lines = checks.entries(history, [*before, told(3, 1, "9")], [])
        assert sum("no gap says so" in line for line in lines) == 2

    def test_a_gap_of_another_time_excuses_nothing(self, history):
        self.deleted(history)
        add(history, 6)
        add(history, 7)
        self.trimmed(history)  # 3-0 of the second history
        before = [told(number) for number in range(1, 6)]
        ended = gap("reset", 5, 3, epoch=0)
        assert (
            checks.entries(history, [*before, told(6, 1), told(7, 1)], [ended, gap("trimmed", 2, 6, 1, epoch=1)]) == []
        )
        add(history, 8)
        add(history, 9)
        self.trimmed(history)
        lines = checks.entries(history, [*before, told(3, 1, "9"), told(6, 1), told(8, 1), told(9, 1)], [ended])
        assert ["q 7-0" in line and "no gap says so" in line for line in lines] == [True]

    def test_a_stream_that_nobody_knew_of(self, history):
        history.apply([b"DEL", b"bull:q:events"])
        assert checks.entries(history, [], []) == []
        add(history, 6)
        assert len(checks.entries(history, [], [])) == 1

    def test_histories_that_nobody_saw(self, history):
        history.apply([b"DEL", b"bull:q:events"])
        add(history, 1, "8")  # its clock went back, and it was over before anybody read it
        self.deleted(history)
        published = [*[told(number) for number in range(1, 6)], told(3, 1, "9")]
        assert checks.entries(history, published, [gap("reset", 5, 3, epoch=0)]) == []
        assert "q 1-0" in checks.entries(history, published, [])[0]

    def test_a_history_that_never_began(self, history):
        published, begun = [told(number) for number in range(1, 6)], [gap("failover", 5, 5)]
        lines = checks.entries(history, published, begun)
        assert "1 new histories told (['failover']), expected at most 0" in lines[0]

    def test_after_a_trim_a_restart_cannot_be_told_from_a_loss(self, history):
        published, begun = [told(number) for number in range(1, 6)], [gap("failover", 5, 5)]
        self.trimmed(history).become({b"bull:q:events": [raw(4), raw(5)]})
        assert checks.entries(history, published, begun) == []

    def undone(self, history: History) -> History:
        history.become({b"bull:q:events": [raw(1), raw(2)]})
        add(history, 3, "9")
        return history

    def test_what_was_undone_is_counted(self, history):
        self.undone(history)
        published = [*[told(number) for number in range(1, 5)], told(3, 1, "9")]
        assert checks.entries(history, published, [gap("failover", 2, 4, undone=2)]) == []
        (line,) = checks.entries(history, published, [gap("failover", 2, 4, undone=4)])
        assert "gaps say [4] entries were undone, expected 2 to 3 in all" in line

    def test_what_was_undone_unread_is_no_loss(self, history):
        self.undone(history)
        assert checks.entries(history, [told(1), told(2), told(3, 1, "9")], []) == []

    def test_without_anything_known_what_is_not_above_the_position_is_not_told(self, history):
        history.become({b"bull:q:events": [raw(2, "7"), raw(4, "7")]})
        add(history, 8, "9")
        published = [*[told(number) for number in range(1, 6)], told(8, 1, "9")]
        assert checks.entries(history, published, [gap("failover", 0, 5, epoch=0)]) == []
        add(history, 9, "9")
        lines = checks.entries(history, published, [gap("failover", 0, 5, epoch=0)])
        assert ["q 9-0" in line and "stands in the stream" in line for line in lines] == [True]

    def test_shared_entries_may_come_in_the_new_epoch(self, history):
        self.undone(history)
        published = [told(1), told(2, 1), told(3, 1, "9")]
        assert checks.entries(history, published, [gap("failover", 1, 5)]) == []
