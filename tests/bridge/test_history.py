"""Which history a stream is in: the measured scenarios, one by one, and any order of them on a model of Redis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.bridge import history
from streams.bridge.history import Kept, Memory, Now, Past, Server, Verdict, judge
from streams.bridge.ids import START, Id

if TYPE_CHECKING:
    from collections.abc import Sequence

A = Server(run_id="a", replid="ra", offset=1000, role="master")
LONE = Server(run_id="a", replid="ra", offset=0, role="master")
OTHER = Server(run_id="b", replid="rb", offset=2000, replid2="ra", second_offset=1500, role="master")
BEHIND = replace(OTHER, second_offset=900)
OF_0_1 = Kept("a", "", Past((10, 0), None, 10), Past((10, 0), None, 10))
STRANGER = Server(run_id="c", replid="rc", replid2="0" * 40, role="master")


def known(server: Server = A, last: int = 10, *, count: int = 3, offset: int | None = 1000, ordinal: int = 10) -> Kept:
    """Entries `8-0`, `9-0`, `10-0` were read and handed on; the last was the stream's tenth."""
    trail = tuple(
        Past((n, 0), n, ordinal - (last - n), None if offset is None else offset - (last - n))
        for n in range(last - count + 1, last + 1)
    )
    return Kept(server.run_id, server.replid, trail[-1], trail[-1], trail)


def says(
    server: Server, ids: Sequence[int], *, added: int | None, other: tuple[int, ...] = (), last: int | None = None
) -> Now:
    """The stream holds these ids; those in `other` have another content than was read."""
    length = len(ids)
    first = (ids[0], 0) if ids else None
    top = last if last is not None else (ids[-1] if ids else 0)
    signs = {(n, 0): (-1 if n in other else n) for n in ids}
    return Now(server, (top, 0), first, added, length, signs=signs)


def gone(server: Server) -> Now:
    return Now(server, None)


SCENARIOS = {
    "the same server": (known(), says(A, range(1, 13), added=12), "same", 10),
    "clean promotion": (known(), says(OTHER, range(1, 13), added=12), "same", 10),
    "restart from a fresh RDB, had replicas": (known(), says(OTHER, range(1, 11), added=10), "same", 10),
    "promotion, another key lost, offset taken after it": (known(), says(BEHIND, range(1, 12), added=11), "same", 10),
    "two clean failovers A-B-A": (
        known(), says(Server("a", "r3", 900, "rb", 800, "master"), range(1, 12), added=11), "same", 10,
    ),
    "a first replica attaches": (
        known(LONE, offset=0), says(replace(A, replid="r2"), range(1, 11), added=10), "same", 10,
    ),
    "a first replica attaches, trimmed": (
        known(LONE, offset=0), says(replace(A, replid="r2"), range(20, 31), added=30), "failover", 10,
    ),
    "AOF restart": (known(LONE, offset=0), says(STRANGER, range(1, 11), added=10), "same", 10),
    "replica lagged": (known(), says(BEHIND, range(1, 9), added=8), "failover", 8),
    "replica lagged, then went on with larger ids": (
        known(), says(BEHIND, [*range(1, 9), *range(20, 30)], added=18), "failover", 8,
    ),
    "equal counts: undone and new ones, the same ids": (
        known(), says(BEHIND, range(1, 11), added=10, other=(9, 10)), "failover", 8,
    ),
    "A-B-A with loss": (known(), says(Server("a", "r3", 9, "rb", 8, "master"), range(1, 10), added=9), "failover", 9),
    "an old RDB, no replica ever": (known(LONE, offset=0), says(STRANGER, range(1, 9), added=8), "failover", 8),
    "an RDB older than all that is remembered": (
        known(LONE, offset=0), says(STRANGER, range(1, 4), added=3), "failover", 3,
    ),
    "no persistence": (known(LONE, offset=0), gone(STRANGER), "failover", 0),
    "no persistence, three new ones": (known(LONE, offset=0), says(STRANGER, range(20, 23), added=3), "failover", 10),
    "clean promotion, trimmed meanwhile": (known(), says(OTHER, range(20, 31), added=30), "trimmed", 10),
    "lagged, trimmed meanwhile": (known(), says(BEHIND, range(20, 31), added=30), "failover", 10),
    "promoted just without it, trimmed meanwhile": (
        known(), says(replace(OTHER, second_offset=1000), range(20, 31), added=30), "failover", 9,
    ),
    "trimmed on the same server": (known(), says(A, range(20, 31), added=30), "trimmed", 10),
    "trimmed to nothing": (known(), says(A, range(0), added=10, last=10), "trimmed", 10),
    "FLUSHALL, then three": (known(), says(A, range(20, 23), added=3), "reset", 0),
    "FLUSHALL, then thirty, none trimmed": (known(), says(A, range(20, 50), added=30), "reset", 0),
    "DEL, then smaller ids": (known(), says(A, range(1, 4), added=3), "reset", 0),
    "DEL, then the same id": (known(), says(A, range(10, 11), added=1, other=(10,)), "reset", 0),
    "DEL": (known(), gone(A), "reset", 0),
    "promotion, then DEL": (known(), gone(OTHER), "reset", 0),
    "promotion, then DEL and larger ids": (known(), says(OTHER, range(20, 23), added=3), "reset", 0),
    "emptied and set back by hand": (known(), says(A, range(0), added=10, last=4), "rewound", 4),
    "the position's entry deleted by hand": (
        known(), replace(says(A, range(11, 14), added=13), deleted=(10, 0)), "trimmed", 10,
    ),
    "a server that does not count, trimmed": (known(), says(A, range(20, 31), added=None), "trimmed", 10),
    "a server that does not count, another run": (known(), says(STRANGER, range(20, 31), added=None), "failover", 10),
    "a server that may not be asked": (known(), says(Server(), range(1, 12), added=11), "same", 10),
    "a server that may not be asked, trimmed": (known(), says(Server(), range(20, 31), added=30), "failover", 10),
    "nothing read yet": (Kept("a", "ra", Past(START), Past(START)), says(STRANGER, range(1, 4), added=3), "same", 0),
    "release 0.1, entry there, other run": (
        OF_0_1, says(STRANGER, range(1, 12), added=11), "same", 10,
    ),
    "release 0.1, same run, trimmed": (
        OF_0_1, says(A, range(20, 31), added=30), "trimmed", 10,
    ),
    "a replica of the same master has not got it yet": (
        known(), says(Server("b", "ra", 900, role="slave"), range(1, 9), added=8), "behind", 10,
    ),
    "a replica of the same master has it": (
        known(), says(Server("b", "ra", 1000, role="slave"), range(20, 31), added=30), "trimmed", 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name):
    before, now, cause, resume = SCENARIOS[name]
    verdict = judge(before, now)
    assert (verdict.cause, verdict.resume) == (cause, (resume, 0))
    assert verdict.begins_epoch == (cause in ("reset", "failover", "rewound"))


def test_what_was_undone_is_counted_where_it_is_known():
    assert judge(known(), says(BEHIND, range(1, 9), added=8)).undone == 2
    assert judge(known(), says(BEHIND, range(1, 9), added=8)).ordinal == 8
    assert judge(known(), says(STRANGER, range(1, 4), added=3)).undone is None


def test_after_a_reset_what_was_trimmed_of_the_new_one_counts_as_lost_later():
    verdict = judge(known(ordinal=100), says(A, range(20, 30), added=15))
    assert verdict == Verdict("reset", START, START, 5)


def test_read_and_not_handed_on_is_read_again_where_only_that_is_undone():
    before = replace(known(), tail=Past((12, 0), 12, 12, 1200))
    now = says(BEHIND, range(1, 11), added=10)
    assert judge(before, now) == Verdict("same", (10, 0), (10, 0), 10)
    assert judge(before, says(BEHIND, range(1, 13), added=12)).resume == (12, 0)
    assert judge(before, says(BEHIND, range(1, 10), added=9)).resume == (9, 0)


def test_read_after_a_reset_over_the_same_connection_does_not_hide_it():
    before = replace(known(), tail=Past((22, 0), 22, 13, 1200))
    assert judge(before, says(A, range(20, 23), added=3)) == Verdict("reset", START, START, 0)


def test_what_was_read_tells_where_what_was_handed_on_is_trimmed():
    before = replace(known(LONE, offset=0), tail=Past((30, 0), 30, 30))
    assert judge(before, says(STRANGER, range(25, 40), added=39)) == Verdict("trimmed", (30, 0), (30, 0), 10)
    assert judge(before, says(STRANGER, range(35, 40), added=39)).cause == "failover"


def test_a_counter_set_back_by_hand_is_learnt_anew():
    assert judge(known(), says(A, range(1, 11), added=4)) == Verdict("same", (10, 0), (10, 0), None)


def test_before_anything_was_handed_on_another_history_is_read_from_its_start():
    before = Kept("a", "ra", Past(START), Past((4, 0), 4, 4))
    assert judge(before, says(STRANGER, range(7, 9), added=5)) == Verdict("same", START, START, 3)


# -- the same on a model -----------------------------------------------------------------------------------


@dataclass
class Model:
    """A stream and its server as they are: every entry ever added has a number of its own, read or not."""

    entries: list[tuple[Id, int]] = field(default_factory=list)
    trimmed: int = 0
    server: Server = LONE
    numbers: int = 0
    clock: int = 0
    undone_since: bool = False
    deleted_since: bool = False

    def write(self, count: int) -> None:
        for _ in range(count):
            self.numbers += 1
            self.clock += 1
            top = self.entries[-1][0] if self.entries else START
            at = (self.clock, 0) if (self.clock, 0) > top else (top[0], top[1] + 1)
            self.entries.append((at, self.numbers))
            if self.server.offset:
                self.server = replace(self.server, offset=self.server.offset + 10)

    def trim(self, keep: int) -> None:
        self.trimmed = max(self.trimmed, len(self.entries) - keep)

    def delete(self) -> None:
        self.entries, self.trimmed, self.deleted_since = [], 0, True

    def attach(self) -> None:
        if not self.server.offset:
            self.server = replace(self.server, replid=f"r{self.numbers}+{self.clock}", replid2="0" * 40, offset=1)

    def promote(self, lag: int) -> None:
        """A copy that lacks the last `lag` entries becomes the master."""
        self._without(lag)
        cut = self.server.offset - 10 * lag
        self.clock += 1
        name = f"{self.server.run_id}'{self.clock}"
        self.server = Server(name, f"r{name}", max(cut, 1), self.server.replid, cut + 1, "master")

    def restart(self, lag: int) -> None:
        """From a dump that lacks the last `lag` entries; there never was a replica."""
        self._without(lag)
        self.clock += 1
        name = f"{self.server.run_id}*{self.clock}"
        self.server = Server(name, f"r{name}", 0, "0" * 40, -1, "master")

    def turn_back_clock(self, ms: int) -> None:
        self.clock = max(self.clock - ms, 0)

    def _without(self, lag: int) -> None:
        lag = min(lag, len(self.entries))
        if lag:
            self.entries = self.entries[:-lag]
            self.undone_since = True
        self.trimmed = min(self.trimmed, len(self.entries))

    def kept(self) -> Kept:
        """Everything has been read and handed on up to now."""
        self.undone_since = self.deleted_since = False
        memory = Memory(self.server)
        last = self.entries[-1][0] if self.entries else START
        memory.hand_on(last, len(self.entries), self.entries, None)
        memory.sample(last, self.server.offset)
        return memory.kept(Past(last))

    def now(self) -> Now:
        there = self.entries[self.trimmed :]
        if not self.entries:
            return Now(self.server, None)
        first = there[0][0] if there else None
        return Now(self.server, self.entries[-1][0], first, len(self.entries), len(there), signs=dict(there))


OPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 100)),
    st.tuples(st.just("trim"), st.integers(0, 50)),
    st.tuples(st.just("delete")),
    st.tuples(st.just("attach")),
    st.tuples(st.just("promote"), st.one_of(st.just(0), st.integers(0, 90))),
    st.tuples(st.just("restart"), st.one_of(st.just(0), st.integers(0, 90))),
    st.tuples(st.just("turn_back_clock"), st.integers(1, 50)),
)


OVER_ONE_CONNECTION = OPS.filter(lambda op: op[0] in ("write", "trim", "delete", "attach", "turn_back_clock"))


@given(st.lists(OPS, max_size=6), st.lists(OVER_ONE_CONNECTION, max_size=4), st.lists(OPS, max_size=6))
@settings(max_examples=2000, deadline=None)
def test_no_undone_entry_counts_as_common_and_nothing_unread_is_passed_over(before, meanwhile, after):
    """Handed on is what there was after `before`, and what can be read after `meanwhile` was read."""
    model = Model()
    play(model, before)
    kept = model.kept()
    position = kept.position.at
    read = dict(model.entries)
    play(model, meanwhile)
    further = [(at, number) for at, number in model.entries[model.trimmed :] if at > position]
    if further:
        at, number = further[-1]
        tail = Past(at, number, (kept.position.ordinal or 0) + len(further), model.server.offset)
        kept = replace(kept, tail=tail)
    play(model, after)
    verdict = judge(kept, model.now())
    if _grown_past(model, kept):
        return
    own = dict(model.entries)
    if verdict.common != START:
        assert own.get(verdict.common) == (read | dict(further))[verdict.common], verdict
    if verdict.resume not in (START, position):
        known = read | (dict(further) if verdict.resume == kept.tail.at else {})
    else:
        known = read
    if not verdict.begins_epoch:
        assert position == START or own.get(position) == read[position]
    elif not model.undone_since and not model.deleted_since:
        assert (model.server.run_id, model.server.replid) != (kept.run_id, kept.replid)
    new = [at for at, number in model.entries[model.trimmed :] if known.get(at) != number]
    passed_over = [at for at in new if at <= verdict.resume]
    # with nothing common known, ids up to the old position count as told: their jobs are looked at instead
    assert not passed_over or (verdict.begins_epoch and verdict.common == START and max(passed_over) <= position)
    common = [at for at, number in model.entries if read.get(at) == number]
    if verdict.cause in ("failover", "rewound") and common and not model.trimmed:
        assert verdict.common == (common[-1] if common[-1] in {past.at for past in kept.trail} else START)


def play(model: Model, ops: list[tuple]) -> None:
    for name, *args in ops:
        getattr(model, name)(*args)


def _grown_past(model: Model, kept: Kept) -> bool:
    """Deleted, and so much written since that the new stream looks like the old one trimmed: not to be told."""
    return model.deleted_since and bool(model.trimmed) and (kept.position.ordinal or 0) <= model.trimmed


# -- what is remembered ------------------------------------------------------------------------------------

IDS = st.lists(st.tuples(st.integers(1, 2**45), st.integers(0, 2**20)), unique=True, max_size=200).map(sorted)


@given(IDS, st.integers(1, 100))
def test_the_trail_is_the_last_entries_in_whatever_portions_they_came(ids, portion):
    entries = [(at, history.sign_of("waiting", str(at[1]))) for at in ids]
    trail = ""
    for at in range(0, len(entries), portion):
        trail = history.extended(trail, entries[at : at + portion])
    assert history.trail_of(trail) == entries[-history.KEPT_ENTRIES :]
    assert len(trail) < 64 * 40
    assert history.extended(trail, []) == trail


@given(IDS, st.integers(0, 200))
def test_behind_a_hole_the_trail_begins_anew(ids, at):
    entries = [(each, 7) for each in ids]
    upto = ids[min(at, len(ids) - 1)] if ids else START
    trail = history.cut(history.extended("", entries), upto)
    assert history.trail_of(trail) == ([e for e in entries if e[0] > upto][-64:] or entries[-1:])


def test_what_is_remembered():
    memory = Memory(A)
    memory.hand_on((3, 0), 30, [((n, 0), n) for n in (1, 2, 3)], None)
    memory.sample((2, 0), 20)
    memory.sample((2, 0), 25)
    memory.sample((4, 0), 0)
    memory.sample((4, 0), 40)
    kept = memory.kept(Past((4, 0), 4, 31))
    assert kept.trail == (Past((1, 0), 1, 28, 20), Past((2, 0), 2, 29, 20), Past((3, 0), 3, 30, 40))
    assert (kept.run_id, kept.position, kept.tail) == ("a", kept.trail[-1], Past((4, 0), 4, 31, 40))
    memory.hand_on((5, 0), None, [], None)
    assert memory.kept(Past((5, 0))) == Kept("a", "ra", Past((5, 0)), Past((5, 0)), ())
    memory.hand_on((6, 0), None, [((6, 0), 6)], None)
    assert [past.ordinal for past in memory.kept(Past((6, 0))).trail] == [None] * 4
    memory.hand_on((9, 0), 9, [((n, 0), n) for n in (8, 9)], (8, 0))
    assert [past.at for past in memory.kept(Past((9, 0))).trail] == [(9, 0)]


def test_what_was_undone_is_forgotten():
    memory = Memory(A)
    memory.hand_on((3, 0), 30, [((n, 0), n) for n in (1, 2, 3)], None)
    memory.sample((3, 0), 20)
    memory.begin(Verdict("failover", (2, 0), (2, 0), 29, 1), OTHER)
    assert memory.kept(Past((2, 0))).trail == (Past((1, 0), 1, 28), Past((2, 0), 2, 29))
    memory.begin(Verdict("failover", (2, 0), START, None), OTHER)
    assert memory == Memory(OTHER, (2, 0))


def test_a_sign_tells_event_and_job_apart():
    signs = {history.sign_of(event, job) for event in ("added", "active", None) for job in ("", "1", "\udcff")}
    assert len(signs) == 9


DOUBTS = {
    "nothing read": (Past(START), gone(A), False),
    "gone": (Past((10, 0), ordinal=10), gone(A), True),
    "ids went back": (Past((10, 0), ordinal=10), says(A, range(1, 9), added=8), True),
    "fewer than were read": (Past((10, 0), ordinal=10), says(A, range(10, 12), added=2), True),
    "its place is empty": (Past((10, 0), ordinal=5), says(A, range(11, 41), added=30), True),
    "trimmed": (Past((10, 0), ordinal=10), says(A, range(20, 31), added=30), False),
    "as it was": (Past((10, 0), ordinal=10), says(A, range(1, 13), added=12), False),
    "trimmed to nothing": (Past((10, 0), ordinal=10), says(A, [], added=14, last=14), False),
    "its place was emptied by hand": (
        Past((10, 0), ordinal=10), replace(says(A, range(11, 14), added=13), deleted=(10, 0)), False,
    ),
    "no count": (Past((10, 0)), says(A, range(20, 31), added=None), False),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_doubts(name):
    past, now, doubtful = DOUBTS[name]
    assert history.is_doubtful(past, now) == doubtful


def test_what_a_server_says():
    said = history.server_of(
        "# Server\r\nrun_id:abc\r\n",
        "# Replication\r\nrole:master\r\nmaster_replid:r1\r\nmaster_replid2:r0\r\n"
        "master_repl_offset:1234\r\nsecond_repl_offset:-1\r\n",
    )
    assert said == Server("abc", "r1", 1234, "r0", -1, "master")
    assert not said.is_replica
    assert replace(said, role="slave").is_replica
    assert history.server_of(ValueError("NOPERM"), "master_repl_offset:x") == Server()


def test_over_one_connection_a_first_replica_changes_nothing_and_a_promotion_does():
    assert LONE.goes_on_from(replace(LONE, offset=7))
    assert replace(LONE, replid="r2", replid2="0" * 40).goes_on_from(LONE)
    assert not replace(LONE, replid="r2", replid2="ra").goes_on_from(LONE)


def uncounted() -> Kept:
    """Nobody knows how many entries the stream had ever got at the last that was read."""
    position = Past((10, 0), 10, None, 1000)
    return Kept(A.run_id, A.replid, position, position)


@pytest.mark.parametrize(
    ("now", "hole", "ordinal"),
    [
        (says(A, [], added=40, last=30), (30, 0), 40),
        (says(A, [20, 30], added=40), (20, 0), 38),
        (says(A, [20, 30], added=None), (20, 0), None),
        (says(A, [], added=40, last=10), None, None),
    ],
)
def test_where_entries_cannot_be_counted_some_may_be_missing(now, hole, ordinal):
    verdict = judge(uncounted(), now)
    assert (verdict.cause, verdict.resume, verdict.hole) == ("trimmed", (10, 0), hole)
    if hole is not None:
        assert verdict.ordinal == ordinal


@pytest.mark.parametrize(
    ("now", "resume", "ordinal"),
    [
        (says(STRANGER, [20, 30], added=40), (10, 0), 38),
        (says(STRANGER, [], added=40, last=30), (10, 0), 40),
        (says(STRANGER, [2, 7], added=40), (7, 0), 40),
        (says(STRANGER, [2, 30], added=40), (10, 0), None),
        (says(STRANGER, [20, 30], added=None), (10, 0), None),
    ],
)
def test_in_another_history_entries_are_counted_as_soon_as_they_can_be(now, resume, ordinal):
    kept = replace(uncounted(), trail=())
    verdict = judge(kept, now)
    assert (verdict.cause, verdict.resume, verdict.ordinal) == ("failover", resume, ordinal)
