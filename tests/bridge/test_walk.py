"""Walks over a queue's jobs, and who waits for which comparison."""

from __future__ import annotations

from streams.bridge.bullmq import PLACES, Keys
from streams.bridge.walk import SNAPSHOT_PAGE, Comparisons, Walk, comparing_walk, pause_walk

KEYS = Keys("bull", "q")


def ids(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def test_a_walk_goes_through_all_places_page_by_page():
    walk = comparing_walk({"r": "gap"})
    seen = []
    while not walk.over:
        place = walk.places[0]
        seen.append((place, walk.command(KEYS)))
        walk.turn(ids(SNAPSHOT_PAGE if len(seen) == 1 else 3))
    assert [place for place, _ in seen] == ["paused", *PLACES]
    assert b"\r\n0\r\n" in seen[0][1]
    assert b"\r\n980\r\n" in seen[1][1]


def test_a_list_that_grows_at_its_head_is_walked_from_its_tail():
    assert b"-1000" in pause_walk(paused=True).command(KEYS)
    assert b"-1000" not in pause_walk(paused=False).command(KEYS)


def finished(walk: Walk) -> Walk:
    walk.places.clear()
    return walk


def test_a_comparison_is_over_once_its_last_look_has_been_handed_on():
    walk = comparing_walk({"r": "gap"})
    assert not walk.is_settled((9, 0), None)
    finished(walk)
    assert not walk.is_settled((9, 0), (10, 0))
    assert not walk.is_settled((9, 1), (30, 0))
    assert walk.is_settled((9, 1), None)
    assert walk.is_settled((10, 0), (30, 0))
    assert finished(comparing_walk({})).is_settled((9, 0), None)


def test_one_at_a_time_and_all_that_was_asked_meanwhile_is_the_next():
    own = Comparisons()
    assert not own.is_due(0.0)
    assert own.ask("first_sight")
    assert own.ask("first_sight")
    assert own.is_due(0.0)
    first = own.begin()
    assert list(first.requests.values()) == ["first_sight"]
    assert own.ask("gap")
    assert own.ask("gap")
    assert own.ask("request", "mine")
    assert own.ask("request", "mine")
    assert own.ask("request", "other")
    assert not own.is_due(0.0)
    assert [reason for reason, _ in own.pending] == ["first_sight", "gap", "request", "request"]
    own.end(1.0)
    second = own.begin()
    assert list(second.requests.values()) == ["gap", "request", "request"]
    assert second.request == next(iter(second.requests))
    assert own.running is second


def test_asked_again_its_start_is_told_again_and_once_it_is_over_nothing_is_done():
    own = Comparisons()
    own.ask("request", "mine")
    walk = own.begin()
    walk.told.add("mine")
    assert own.ask("request", "mine")
    assert (walk.told, own.waiting) == (set(), {})
    own.end(1.0)
    assert own.ask("request", "mine")
    assert not own.waiting
    own.end(2.0)


def test_a_queue_that_goes_on_losing_entries_is_compared_with_pauses_and_whoever_asks_is_not_kept_waiting():
    own = Comparisons()
    own.ask("gap")
    own.begin().begun_s -= 5
    own.end(100.0)
    own.ask("gap")
    assert not own.is_due(105.0)
    assert own.is_due(106.1)
    own.ask("request", "mine")
    assert own.is_due(100.1)
    own.begin().begun_s -= 500
    own.end(200.0)
    own.ask("gap")
    assert own.is_due(230.0)


def test_in_another_history_it_begins_again_before_the_others():
    own = Comparisons()
    own.ask("request", "mine")
    own.begin()
    own.ask("failover", "theirs")
    own.begin_again()
    own.begin_again()
    assert own.begin().requests == {"mine": "request", "theirs": "failover"}


def test_no_more_wait_than_can_be_told():
    own = Comparisons()
    assert all(own.ask("request", str(n)) for n in range(64))
    assert not own.ask("request", "one more")
    assert own.ask("request", "7")
