from __future__ import annotations

import pytest

from streams.core import lifecycle as lc


@pytest.mark.parametrize("state_from", [None, *lc.STATES])
def test_from_every_state_a_job_can_be_removed(state_from):
    assert lc.LEGAL[state_from, lc.REMOVED] == {"removed", "vanished", "replaced"}


@pytest.mark.parametrize("to", lc.STATES)
def test_a_life_can_begin_anywhere(to):
    assert (None, to) in lc.LEGAL


def test_every_state_can_be_entered_and_left():
    assert {to for _, to in lc.LEGAL} == {*lc.STATES, lc.REMOVED}
    assert {state for state, _ in lc.LEGAL} == {None, *lc.STATES}
    assert all(causes for causes in lc.LEGAL.values())


def test_only_looks_make_a_job_stuck_and_only_out_of_active_for_its_lock():
    for (state, to), causes in lc.LEGAL.items():
        if to == lc.STUCK:
            assert causes == ({"lock_lost", "observed"} if state == lc.ACTIVE else {"observed"})


def test_a_finished_job_starts_again_only_by_a_retry_or_unseen():
    for (state, to), causes in lc.LEGAL.items():
        if state in lc.FINISHED and to != lc.REMOVED:
            assert causes <= {"retried", "observed"}


def test_no_state_repeats_itself_but_those_whose_place_may_change():
    assert {state for state, to in lc.LEGAL if state == to} == {lc.WAITING, lc.PAUSED, lc.STUCK}


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
