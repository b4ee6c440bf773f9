from __future__ import annotations

from streams.core import lifecycle as lc
from streams.docs.lifecycle import CAUSES, STATES, lifecycle_page


def test_every_state_and_cause_is_explained():
    assert set(STATES) == set(lc.STATES)
    assert set(CAUSES) == {cause for causes in lc.LEGAL.values() for cause in causes}


def test_every_transition_of_the_table_is_on_the_page():
    page = lifecycle_page().partition("## Transitions")[2]
    for (old, new), causes in lc.LEGAL.items():
        (row,) = [
            line for line in page.splitlines() if line.startswith(f"| {f'`{old}`' if old else '(none)'} | `{new}` |")
        ]
        assert {word.strip("`") for word in row.split("|")[3].split()} == causes


def test_the_diagram_has_the_way_of_a_job_that_fails_once():
    page = lifecycle_page()
    assert "    active --> delayed: attempt_failed, moved\n" in page
    assert "    delayed --> waiting: due, promoted\n" in page
    assert "--> removed" not in page
