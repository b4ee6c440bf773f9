from __future__ import annotations

import pytest

from streams.core.compare import Begin, is_untouched, must_ask

BEGIN = Begin(1, "500-3", 600)


def row(position="500-3", observed_at=None, epoch=1, state="waiting", **notes):
    return {"position": position, "observed_at": observed_at, "epoch": epoch, "state": state, "_": notes}


@pytest.mark.parametrize(
    ("touched", "row"),
    [
        (False, row("500-3")),
        (False, row("500-2", 900)),
        (False, row("500-3", 599)),
        (True, row("500-3", 600)),
        (True, row("500-4")),
        (True, row("1000-0")),
        (False, row("1000-0", epoch=0)),
        (True, row("1-0", epoch=2)),
        (False, {"position": "9-0", "observed_at": None, "state": "waiting", "_": {}}),
    ],
)
def test_touched_is_what_an_entry_or_a_look_has_reached_since(touched, row):
    assert is_untouched(row, BEGIN) is not touched


@pytest.mark.parametrize("state", ["waiting", "active", "delayed", "paused", "stuck"])
def test_every_unfinished_row_that_was_not_touched_is_asked_about(state):
    assert must_ask(row(state=state), BEGIN)
    assert not must_ask(row("501-0", state=state), BEGIN)


@pytest.mark.parametrize("state", ["completed", "failed"])
class TestFinishedRows:
    def test_are_left_alone(self, state):
        assert not must_ask(row(state=state), BEGIN)

    def test_are_asked_about_while_they_have_an_open_alert(self, state):
        assert must_ask(row(state=state, alerts={"failed": {}}), BEGIN)

    @pytest.mark.parametrize(
        ("position", "epoch", "asked"),
        [("400-1", 0, True), ("400-0", 0, False), ("300-0", 0, False), ("450-0", 1, False)],
    )
    def test_are_asked_about_where_another_history_may_have_undone_them(self, state, position, epoch, asked):
        begin = Begin(1, "500-3", 600, "400-0")
        assert begin.undone
        assert must_ask(row(position, state=state, epoch=epoch), begin) is asked
        assert not BEGIN.undone
