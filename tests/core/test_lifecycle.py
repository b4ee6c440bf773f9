from __future__ import annotations

import pytest

from streams.core import lifecycle as lc


@pytest.mark.parametrize("state_from", [None, *lc.STATES])
def test_from_every_state_a_job_can_be_removed(state_from):
    assert lc.LEGAL[state_from, lc.REMOVED] == {"removed", "vanished", "replaced"}


@pytest.mark.parametrize("to", lc.STATES)
def test_a_life_can_begin_anywhere_but_stuck(to):
    assert ((None, to) in lc.LEGAL) == (to != lc.STUCK)


def test_every_state_can_be_entered_and_left():
    assert {to for _, to in lc.LEGAL} == {*lc.STATES, lc.REMOVED}
    assert {state for state, _ in lc.LEGAL} == {None, *lc.STATES}
    assert all(causes for causes in lc.LEGAL.values())


def test_only_a_lost_lock_makes_a_job_stuck():
    assert {pair: causes for pair, causes in lc.LEGAL.items() if pair[1] == lc.STUCK} == {
        (lc.ACTIVE, lc.STUCK): {"lock_lost"}
    }


def test_a_finished_job_starts_again_only_by_a_retry_or_unseen():
    for (state, to), causes in lc.LEGAL.items():
        if state in lc.FINISHED and to != lc.REMOVED:
            assert causes <= {"retried", "observed"}


def test_no_state_repeats_itself_but_waiting_and_paused_whose_place_may_change():
    assert {state for state, to in lc.LEGAL if state == to} == {lc.WAITING, lc.PAUSED}


@pytest.mark.parametrize(
    ("state_from", "to", "cause", "legal"),
    [
        ("active", "completed", "completed", True),
        ("active", "completed", "failed", False),
        ("waiting", "stuck", "lock_lost", False),
        (None, "waiting", "added", True),
        ("removed", "waiting", "added", False),
        ("stuck", "completed", "completed", False),
        ("delayed", "waiting", "promoted", True),
    ],
)
def test_what_the_table_does_not_name_is_illegal(state_from, to, cause, legal):
    assert lc.is_legal(state_from, to, cause) is legal


@pytest.mark.parametrize(
    ("source_state", "queue_paused", "state"),
    [
        ("waiting", False, "waiting"),
        ("waiting", True, "paused"),
        ("prioritized", False, "waiting"),
        ("prioritized", True, "paused"),
        ("waiting-children", False, "waiting"),
        ("waiting-children", True, "waiting"),
        *[(state, paused, state) for state in ("active", "delayed", "completed", "failed") for paused in (False, True)],
    ],
)
def test_the_state_of_bullmqs_word(source_state, queue_paused, state):
    assert lc.state_of(source_state, queue_paused=queue_paused) == state


def test_each_place_has_a_word_that_has_a_state():
    for word in lc.SOURCE_STATE_OF_PLACE.values():
        assert lc.state_of(word, queue_paused=False) in lc.STATES
