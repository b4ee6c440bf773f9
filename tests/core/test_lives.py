"""An id may name another job than the row does: after a gap, in another history, by chance."""

from __future__ import annotations

import pytest

from streams.core.events import Event
from tests.core.build import BORN, Life, entry, job, look, running

RAN = {"processed_on": 2_000, "attempts_started": 1}
OTHER = job(timestamp=8_000, name="other", data="other", processed_on=8_100, attempts_started=1)
DONE = {**OTHER, "finished_on": 8_500}


def waiting() -> Life:
    return Life(entry("added", BORN, job()), entry("waiting", BORN, job(), seq=1))


def completed() -> Life:
    life = running()
    life.apply(entry("completed", 3_000, job(**RAN, finished_on=3_000)))
    return life


def failed() -> Life:
    life = running()
    life.apply(entry("failed", 3_000, job(**RAN, finished_on=3_000), fields={"failedReason": "no"}))
    return life


def delayed() -> Life:
    return Life(entry("added", BORN, job()), entry("delayed", BORN, job(), seq=1, fields={"delay": "4000"}))


def parent() -> Life:
    return Life(entry("added", BORN, job()), entry("waiting-children", BORN, job(), seq=1))


BEGINS: list[tuple[Life, Event]] = [
    (completed(), entry("waiting", 9_000, OTHER)),
    (waiting(), entry("waiting", 9_000, OTHER)),
    (completed(), entry("active", 9_000, OTHER)),
    (delayed(), entry("active", 9_000, OTHER)),
    (parent(), entry("active", 9_000, OTHER)),
    (completed(), entry("delayed", 9_000, OTHER, fields={"delay": "9500"})),
    (waiting(), entry("waiting-children", 9_000, OTHER)),
    (waiting(), entry("completed", 9_000, DONE)),
    (completed(), entry("completed", 9_000, DONE)),
    (delayed(), entry("failed", 9_000, DONE, fields={"failedReason": "no"})),
    (completed(), entry("waiting", 9_000, OTHER, fields={"prev": "active"})),
    (completed(), entry("waiting", 9_000, OTHER, fields={"prev": "failed"})),
    (failed(), entry("waiting", 9_000, OTHER, fields={"prev": "completed"})),
    (running(), entry("waiting", 9_000, OTHER, fields={"prev": "delayed"})),
    (waiting(), entry("waiting", 9_000, OTHER, fields={"prev": "waiting-children"})),
]


def in_no_list() -> Life:
    life = running()
    for at in (3_000, 4_000):
        life.apply(look(None, at, job(**RAN), found=True, stream_id="2000-0"))
    return life


ASKS: list[tuple[Life, Event]] = [
    (running(), entry("completed", 9_000, DONE)),
    (running(), entry("failed", 9_000, DONE, fields={"failedReason": "no"})),
    (waiting(), entry("completed", 9_000, OTHER)),  # a hash that has not come so far is newer
    (completed(), entry("active", 9_000, job(timestamp=8_000))),
    (waiting(), entry("active", 9_000, OTHER)),
    (delayed(), entry("delayed", 9_000, OTHER, fields={"delay": "9500"})),
    (parent(), entry("waiting", 9_000, OTHER, fields={"prev": "waiting-children"})),
    (parent(), entry("failed", 9_000, DONE, fields={"failedReason": "no"})),
    (running(), entry("waiting", 9_000, OTHER)),
    (running(), entry("stalled", 9_000, OTHER)),
    (waiting(), entry("waiting", 9_000, OTHER, fields={"prev": "odd"})),
    (Life(entry("added", BORN, job())), entry("waiting", 9_000, OTHER)),
    (in_no_list(), entry("active", 9_000, OTHER)),
]


@pytest.mark.parametrize(("life", "event"), BEGINS)
def test_what_cannot_be_of_the_rows_life_begins_that_of_the_hash(life, event):
    before, result = life.live, Life()
    result.row = before
    result.apply(event)
    row = result.live
    assert (row["life"], row["timestamp"], row["name"], row["data"]) == (8_000, 8_000, "other", "other")
    assert (result.moves[0][1:], result.moves[1][0]) == (("removed", "replaced"), None)
    assert [t["seq"] for t in result.transitions] == [before["seq"] + 1, 1]


@pytest.mark.parametrize(("life", "event"), ASKS)
def test_where_nobody_can_tell_somebody_has_to_look(life, event):
    before = life.live
    one = Life()
    one.row = before
    result = one.apply(event)
    assert result.ask
    assert "another_life" in result.anomalies
    assert (one.live["life"], one.live["timestamp"], one.live["name"]) == (BORN, BORN, "crawl")
    assert one.live["data"] == {"n": 1}


def test_a_hash_without_its_time_is_of_no_other_life_than_one_without():
    untimed = job(timestamp=None)
    life = Life(entry("waiting", 2_000, untimed))
    assert (life.live["life"], life.live["timestamp"], life.live["estimated"]) == (2_000, 2_000, ["timestamp"])
    assert not life.apply(entry("active", 3_000, {**untimed, "processed_on": 3_000})).ask
    assert life.live["life"] == 2_000
    life.apply(look("wait", 9_000, job(timestamp=8_000), stream_id="3000-0"))
    assert (life.live["life"], life.live["estimated"]) == (8_000, [])
    assert life.moves[-2][2] == "replaced"


def test_two_times_beyond_64_bits_are_one():
    beyond = job(timestamp=2**63 - 1)
    life = Life(entry("waiting", 2_000, beyond), entry("active", 3_000, {**beyond, "processed_on": 3_000}))
    assert (life.live["life"], life.live["seq"]) == (2**63 - 1, 2)
    assert life.apply(entry("completed", 4_000, DONE)).ask
    assert life.live["life"] == 2**63 - 1


def test_the_last_life_that_64_bits_can_number_is_followed_by_another():
    last = "18446744073709551615"
    life = Life(entry("added", int(last), job()), entry("added", int(last), job(), seq=1))
    assert [life.transitions[-1]["life"], life.live["life"]] == [2**63 - 1, 2**63 - 2]


def test_a_hash_that_knows_less_than_the_row_is_not_taken():
    """It was read from a server that had gone back since the entry."""
    twice = {"processed_on": 4_000, "attempts_started": 2, "attempts_made": 2}
    life = running()
    life.apply(entry("waiting", 3_000, job(**RAN, attempts_made=1), fields={"prev": "active"}))
    life.apply(entry("active", 4_000, job(**{**twice, "attempts_made": 1})))
    older = job(**RAN, attempts_made=1, finished_on=2_500, failed_reason="of then")
    result = life.apply(entry("failed", 5_000, older, fields={"failedReason": "of now"}))
    assert (result.ask, result.anomalies) == (True, ("older_hash",))
    assert (life.live["attempts_made"], life.live["failed_reason"]) == (2, "of now")
    assert {"attempts_made", "finished_on"} <= {*life.live["estimated"]}


def test_starts_that_were_set_back_are_no_older_hash():
    life = running()
    life.apply(entry("failed", 3_000, job(**RAN, attempts_made=1, finished_on=3_000), fields={"failedReason": "no"}))
    life.apply(entry("waiting", 4_000, job(), fields={"prev": "failed"}))
    anew = {"processed_on": 5_000, "attempts_started": 0}
    result = life.apply(entry("active", 5_000, job(**anew)))
    assert (result.ask, result.anomalies, life.live["processed_on"]) == (False, (), 5_000)


def test_a_row_of_a_history_that_has_ended_may_know_more():
    life = running()
    result = life.apply(entry("completed", 1_500, job(processed_on=1_400, finished_on=1_500), epoch=1))
    assert (result.ask, result.anomalies, life.live["finished_on"]) == (False, (), 1_500)


@pytest.mark.parametrize(
    ("back", "began"),
    [
        (entry("added", 9_000, job(), epoch=1), 9_000),
        (entry("waiting", 9_000, job(), epoch=1, fields={"prev": "active"}), 9_000),
        (look("wait", 9_000, job(), stream_id="5-0", epoch=1), 9_000),
        (look("wait", 9_000, job(timestamp=BORN - 1), stream_id="5-0", epoch=2), 9_000),
    ],
)
def test_a_job_that_is_back_after_it_was_closed_begins_another_life(back, began):
    """Redis has gone back to before its end: what was told of that life stands."""
    life = waiting()
    life.apply(entry("removed", 3_000))
    assert (life.row, [(each["life"], each["seq"]) for each in life.transitions]) == (None, [(BORN, 1), (BORN, 2)])
    life.apply(back)
    life.apply(entry("active", 10_000, job(**RAN), epoch=2))
    told = [(each["life"], each["seq"]) for each in life.transitions[2:]]
    assert told[0] == (began, 1)
    assert {life for life, _ in told} == {began}


@pytest.mark.parametrize("epoch", [0, 1])
def test_in_a_stream_that_is_ahead_of_the_clock_an_id_that_comes_again_is_another_life(epoch):
    """The ms of its entries stands still, for an hour or for years; only their number counts up."""
    ahead = BORN + 3_600_000
    life = Life()
    for seq, at in ((0, epoch), (40, epoch), (40, epoch + 1)):
        life.apply(entry("added", ahead, job(), seq=seq, epoch=at))
        life.apply(entry("waiting", ahead, job(), seq=seq + 1, epoch=at))
        life.apply(entry("removed", ahead, seq=seq + 2, epoch=at))
        assert life.row is None
    lives = [each["life"] for each in life.transitions if each["seq"] == 1]
    assert len(set(lives)) == 3
    assert min(lives) >= ahead
