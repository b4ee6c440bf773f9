"""The order of a stream's records, on a model of Redis: nothing lost, nothing doubled, looks in their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import wire
from streams.bridge import checkpoint, sequencer
from streams.bridge.bullmq import Keys
from streams.bridge.history import Memory, Past, Server, Verdict, sign_of
from streams.bridge.ids import START, Id, format_id, parse_id
from streams.bridge.looks import Head, stand
from streams.bridge.reader import complete
from streams.bridge.stream import Entry, Item, Look, Mark, Raw, Stream
from streams.bridge.walk import pause_walk

COUNT = 4


@dataclass
class Redis:
    """A stream as the server has it: what was ever added, how much of it is trimmed, and what may be read."""

    entries: list[Raw] = field(default_factory=list)
    trimmed: int = 0
    clock: int = 1000
    paused: bool = False

    def write(self, kind: str) -> None:
        self.clock += 1
        if kind == "stall":
            self._add(0, event="waiting", jobId="1", prev="active")
            self._add(1, event="stalled", jobId="1")
        elif kind == "pause":
            self.paused = not self.paused
            self._add(0, event="paused" if self.paused else "resumed")
        else:
            self._add(0, event=kind, jobId="1", prev="active")

    def _add(self, seq: int, **fields: str) -> None:
        self.entries.append((f"{self.clock}-{seq}", [text for pair in fields.items() for text in pair]))

    def trim(self, keep: int) -> None:
        self.trimmed = max(self.trimmed, len(self.entries) - keep)

    def read(self, after: Id) -> list[Raw]:
        kept = self.entries[self.trimmed :]
        return complete([entry for entry in kept if parse_id(entry[0]) > after][:COUNT], COUNT)

    def head(self) -> Head:
        self.clock += 1
        last = parse_id(self.entries[-1][0]) if self.entries else START
        after = last if self.trimmed < len(self.entries) else START
        added = len(self.entries) or None
        return Head(last, after, added, len(self.entries) - self.trimmed, self.paused, False, self.clock)


@dataclass
class Model:
    """The bridge around the sequencer: a reader, and turns in which one look is made."""

    redis: Redis = field(default_factory=Redis)
    stream: Stream = field(default_factory=lambda: Stream("s", "q", Keys("bull", "q"), ordinal=0))
    out: list[Item] = field(default_factory=list)
    lost: int = 0

    def read(self) -> None:
        entries = self.redis.read(self.stream.read_to)
        self.stream.buffer.extend(entries)
        if entries:
            self.stream.read_to = parse_id(entries[-1][0])

    def turn(self, limit: int, before: list[str], between: list[str], reads: int) -> None:
        """Entries written `before` the look is made at the server, and `between` that and its reply."""
        taken = sequencer.take(self.stream, limit)
        newest = self.stream.newest
        free = not self.stream.looks
        for kind in before:
            self.redis.write(kind)
        head = self.redis.head()
        for kind in between:
            self.redis.write(kind)
        for _ in range(reads):
            self.read()
        if head.added is not None:
            sequencer.mark(self.stream, head.at, head.added, paused=head.paused)
        if free:
            at, after = stand(head, newest)
            assert at == max(head.at, newest)
            look = Look(at, after, "1", "probe", head.observed_at, found=True, where=None, queue_paused=head.paused)
            sequencer.add_looks(self.stream, [look])
        sequencer.place(self.stream, taken)
        sequencer.hand_on(self.stream, taken)
        self.out.extend(taken.items)
        self.lost += sum(gap.lost or 0 for gap in taken.gaps)

    def finish(self) -> None:
        for _ in range(len(self.redis.entries) + 3):
            self.read()
            self.turn(1000, [], [], 0)


KINDS = st.sampled_from(["active", "waiting", "stall", "pause"])
OPS = st.one_of(
    st.tuples(st.just("write"), KINDS),
    st.tuples(st.just("read")),
    st.tuples(
        st.just("turn"), st.integers(1, 3), st.lists(KINDS, max_size=2), st.lists(KINDS, max_size=3), st.integers(0, 2)
    ),
)


def play(model: Model, ops: list[tuple]) -> None:
    for op in ops:
        if op[0] == "write":
            model.redis.write(op[1])
        elif op[0] == "read":
            model.read()
        elif op[0] == "trim":
            model.redis.trim(op[1])
        else:
            model.turn(*op[1:])
    model.finish()


def order(item: Item) -> tuple[Id, int, int]:
    return (item.at, 1, item.observed_at) if isinstance(item, Look) else (item.at, 0, 0)


@given(st.lists(OPS, max_size=60))
@settings(max_examples=400, deadline=None)
def test_order_holds_and_no_entry_is_lost_or_doubled(ops):
    model = Model()
    play(model, ops)
    assert [order(item) for item in model.out] == sorted(order(item) for item in model.out)
    entries = [item for item in model.out if isinstance(item, Entry)]
    assert [entry.stream_id for entry in entries] == [stream_id for stream_id, _ in model.redis.entries]
    assert model.lost == model.stream.entries_lost == 0
    assert not model.stream.looks
    assert sum(isinstance(item, Look) for item in model.out) > 0
    assert model.stream.ordinal == len(entries)


@given(st.lists(OPS, max_size=60))
@settings(max_examples=200, deadline=None)
def test_pause_is_folded_and_stalls_are_told_from_retries(ops):
    model = Model()
    play(model, ops)
    paused = False
    entries = [item for item in model.out if isinstance(item, Entry)]
    for entry, follower in zip(entries, [*entries[1:], None], strict=False):
        if entry.event in ("paused", "resumed"):
            paused = entry.event == "paused"
        assert entry.queue_paused == paused
        assert entry.stalled == (entry.event == "waiting" and follower is not None and follower.event == "stalled")
    assert model.stream.paused == model.redis.paused


@given(st.lists(st.one_of(OPS, st.tuples(st.just("trim"), st.integers(0, 5))), max_size=60))
@settings(max_examples=400, deadline=None)
def test_what_was_trimmed_unread_is_counted_exactly(ops):
    model = Model()
    play(model, ops)
    model.redis.write("active")
    model.finish()
    entries = [item for item in model.out if isinstance(item, Entry)]
    assert model.lost == model.stream.entries_lost == len(model.redis.entries) - len(entries)
    assert [order(item) for item in model.out] == sorted(order(item) for item in model.out)
    assert model.stream.paused == model.redis.paused


def stream(**known: object) -> Stream:
    return Stream("s", "q", Keys("bull", "q"), **known)  # type: ignore[arg-type]


def test_a_mark_below_the_position_says_nothing():
    own = stream(position=(9, 0), read_to=(9, 0), ordinal=100)
    sequencer.mark(own, (5, 0), 3, paused=False)
    sequencer.mark(own, (9, 1), 100, paused=False)
    sequencer.settle(own, taken := sequencer.Taken(), before=(10, 0))
    assert (own.ordinal, taken.gaps) == (100, [])


def test_a_counter_set_back_by_hand_is_no_loss():
    own = stream(position=(9, 0), read_to=(9, 0), ordinal=100)
    sequencer.mark(own, (9, 0), 3, paused=False)
    sequencer.settle(own, taken := sequencer.Taken(), before=None)
    assert (own.ordinal, taken.gaps) == (3, [])


def test_what_can_no_longer_be_read_is_counted_without_another_entry():
    own = stream(position=(5, 0), read_to=(7, 0), ordinal=5, settled=(5, 0))
    own.buffer.append(("7-0", ["event", "active", "jobId", "1"]))
    sequencer.mark(own, (9, 0), 9, paused=True)
    sequencer.mark(own, (9, 0), 9, paused=True, final=True)
    sequencer.settle(own, taken := sequencer.Taken(), before=None)
    assert (own.position, taken.gaps) == ((5, 0), [])
    taken = sequencer.take(own, 10)
    assert (own.position, own.read_to, own.ordinal, own.paused) == ((9, 0), (9, 0), 9, True)
    assert taken.gaps == [sequencer.Gap((5, 0), (9, 0), 3, "trimmed")]
    assert [item.at for item in taken.items] == [(7, 0)]
    sequencer.hand_on(own, taken)
    assert (own.entries_read, own.entries_lost, own.memory.position, own.memory.ordinal) == (1, 3, (9, 0), 9)


def test_looks_after_the_servers_clock_went_back_are_newer_all_the_same():
    own = stream(position=(5, 0))
    for observed_at in (100, 100, 90, 120):
        looks = [
            Look((5, 0), (5, 0), job, "probe", observed_at, found=False, where=None, queue_paused=False)
            for job in ("1", "2")
        ]
        sequencer.add_looks(own, looks)
    assert [look.observed_at for look in own.looks] == [100, 100, 101, 101, 102, 102, 120, 120]


def test_a_look_below_what_was_handed_on_is_refused():
    own = stream(position=(9, 0))
    look = Look((8, 0), (8, 0), "1", "probe", 1, found=False, where=None, queue_paused=False)
    with pytest.raises(ValueError, match="handed on"):
        sequencer.add_looks(own, [look])


def test_an_entry_without_event_is_set_aside_and_counted():
    own = stream(ordinal=0)
    own.buffer.append(("1-0", ["jobId", "1"]))
    taken = sequencer.take(own, 10)
    assert (len(taken.malformed), taken.items, own.position, own.ordinal) == (1, [], (1, 0), 1)


@pytest.mark.parametrize(
    ("events", "now", "before"),
    [([], True, True), (["added"], False, False), (["added", "paused"], True, False), (["resumed"], False, True)],
)
def test_initial_pause(events, now, before):
    entries = [(f"{n}-0", ["event", event]) for n, event in enumerate(events)]
    assert sequencer.initial_pause(entries, now_paused=now) == before


def test_a_gone_stream_puts_the_look_at_the_last_entry_read():
    gone = Head(START, START, None, 0, False, False, 1)
    assert stand(gone, (7, 1)) == ((7, 1), (7, 1))


def test_ids():
    assert parse_id(format_id((12, 3))) == (12, 3)
    assert parse_id("12") == (12, 0)


# -- histories ---------------------------------------------------------------------------------------------

OLD, NEW = Server("a", "ra", role="master"), Server("b", "rb", role="master")


def handed_on(count: int, waiting: int = 0) -> tuple[Stream, sequencer.Taken]:
    """A stream of which `count` entries were handed on; `waiting` more are read, two of them are in a turn."""
    own = stream(ordinal=0, memory=Memory(OLD))
    own.buffer.extend((f"{n}-0", ["event", "added", "jobId", str(n)]) for n in range(1, count + waiting + 1))
    own.read_to = (count + waiting, 0)
    sequencer.hand_on(own, sequencer.take(own, count))
    return own, sequencer.take(own, 2)


def drop(own: Stream) -> None:
    own.buffer.clear()


def look(at: int, job_id: str = "7") -> Look:
    return Look((at, 0), (at, 0), job_id, "probe", 5, found=False, where=None, queue_paused=False)


def test_the_same_history_goes_on_with_all_that_was_read():
    own, taken = handed_on(5, 4)
    own.unsure = True
    tail = sequencer.tail_of(own, taken)
    assert (tail.at, tail.ordinal, tail.sign) == ((9, 0), 9, sign_of("added", "9"))
    verdict = Verdict("same", (9, 0), (9, 0), 5)
    assert sequencer.follow(own, verdict, NEW, taken, drop) is taken
    assert (own.unsure, own.epoch, own.memory.server, len(own.buffer), len(taken.items)) == (False, 0, NEW, 2, 2)
    sequencer.hand_on(own, taken)
    assert (own.memory.position, own.memory.ordinal, own.entries_read) == ((7, 0), 7, 7)


def test_what_was_read_and_not_handed_on_is_read_again_where_only_that_was_undone():
    own, taken = handed_on(5, 4)
    own.looks.append(look(9))
    left = sequencer.follow(own, Verdict("same", (5, 0), (5, 0), 5), NEW, taken, drop)
    assert (left.items, left.gaps, own.epoch) == ([], [], 0)
    assert (own.position, own.read_to, own.ordinal, len(own.buffer), len(own.looks)) == ((5, 0), (5, 0), 5, 0, 0)
    assert own.wanted == {"7": "probe"}
    assert own.memory.kept(sequencer.tail_of(own, left)).trail[-1].ordinal == 5


def test_another_history_begins_behind_what_both_have_and_the_old_one_ends_with_a_gap():
    own, taken = handed_on(5, 4)
    taken.items.append(look(7, "8"))
    own.looks.append(look(9))
    own.marks.append(Mark((9, 0), 9, paused=False))
    own.walks.append(pause_walk(paused=True))
    own.comparisons.ask("request", "mine")
    own.walks.append(own.comparisons.begin())
    own.observed_at = 99
    left = sequencer.follow(own, Verdict("failover", (3, 0), (3, 0), 3, 2), NEW, taken, drop)
    assert left == sequencer.Taken(gaps=[sequencer.Gap((3, 0), (5, 0), None, "failover", 0, 2)])
    assert (own.epoch, own.position, own.read_to, own.settled, own.ordinal) == (1, (3, 0), (3, 0), (3, 0), 3)
    assert (own.walks, list(own.looks), list(own.marks), list(own.buffer)) == ([], [], [], [])
    assert own.wanted == {"7": "probe", "8": "probe"}
    assert own.comparisons.waiting == {"mine": "request"}
    assert (own.observed_at, own.dirty, own.memory.server) == (0, True, NEW)
    sequencer.hand_on(own, left)
    assert [past.at for past in own.memory.kept(sequencer.tail_of(own, left)).trail] == [(1, 0), (2, 0), (3, 0)]
    assert (own.entries_read, own.entries_lost) == (5, 0)


def test_what_was_lost_before_the_history_ended_is_told_too():
    own, taken = handed_on(5, 4)
    taken.gaps.append(sequencer.Gap((5, 0), (6, 0), 3, "trimmed"))
    left = sequencer.follow(own, Verdict("reset", (0, 0), (0, 0), 0), OLD, taken, drop)
    left = sequencer.follow(own, Verdict("failover", (0, 0), (0, 0), 0), NEW, left, drop)
    assert [(gap.cause, gap.lost, gap.epoch) for gap in left.gaps] == [
        ("trimmed", 3, 0),
        ("reset", None, 0),
        ("failover", None, 1),
    ]
    assert own.epoch == 2


def test_a_counter_set_back_by_hand_is_learnt_anew():
    own, taken = handed_on(5)
    assert sequencer.follow(own, Verdict("same", (5, 0), (5, 0), None), OLD, taken, drop) is taken
    assert (own.ordinal, own.memory.ordinal) == (None, None)


def head(last: int, after: int, added: int | None) -> Head:
    return Head((last, 0), (after, 0), added, 0, True, False, 1)


def test_what_cannot_be_read_any_more_is_so_only_when_it_was_seen_twice():
    own, _ = handed_on(5)
    read = sequencer.read_so_far(own)
    assert not sequencer.is_exhausted(own, read, head(9, 0, 9))
    assert not sequencer.is_exhausted(own, read, head(12, 12, 12))
    assert own.unread is None
    assert not sequencer.is_exhausted(own, read, head(9, 0, 9))
    assert sequencer.is_exhausted(own, read, head(12, 0, 12))
    taken = sequencer.take(own, 10)
    assert [(gap.lost, gap.upto) for gap in taken.gaps] == [(4, (9, 0))]
    assert (own.position, own.paused) == ((9, 0), True)
    for blank in (head(9, 0, 9), head(9, 0, None)):
        assert not sequencer.is_exhausted(own, sequencer.read_so_far(own), blank)
    own.buffer.append(("10-0", ["event", "active", "jobId", "1"]))
    assert not sequencer.is_exhausted(own, sequencer.read_so_far(own), head(12, 0, 12))


def uncounted(own: Stream) -> None:
    """Nobody knows how many entries it had."""
    own.ordinal = None


def test_what_cannot_be_read_and_was_never_counted_is_told_all_the_same():
    """After a history of which nobody knows how many entries it had, on a stream that keeps nothing."""
    own, _ = handed_on(5)
    uncounted(own)
    read = sequencer.read_so_far(own)
    assert not sequencer.is_exhausted(own, read, head(5, 0, 9))
    assert own.unread is None
    assert not sequencer.is_exhausted(own, read, head(9, 0, 9))
    assert sequencer.is_exhausted(own, read, head(12, 0, 12))
    taken = sequencer.take(own, 10)
    assert [(gap.after, gap.lost, gap.upto) for gap in taken.gaps] == [((5, 0), None, (9, 0))]
    assert (own.position, own.ordinal) == ((9, 0), 9)


def test_a_mark_whose_entry_was_never_read_is_a_loss_that_nobody_can_count():
    own, _ = handed_on(5)
    uncounted(own)
    sequencer.mark(own, (5, 0), 5, paused=False)
    sequencer.mark(own, (9, 0), 9, paused=False)
    own.buffer.append(("12-0", ["event", "active", "jobId", "1"]))
    own.held.append(1)
    taken = sequencer.take(own, 10)
    assert [(gap.after, gap.lost, gap.upto) for gap in taken.gaps] == [((5, 0), 4, (9, 0))]
    uncounted(own)
    sequencer.mark(own, (14, 0), 14, paused=False)
    own.buffer.append(("20-0", ["event", "active", "jobId", "1"]))
    taken = sequencer.take(own, 10)
    assert [(gap.after, gap.lost, gap.upto) for gap in taken.gaps] == [((12, 0), None, (14, 0))]
    sequencer.hand_on(own, taken)
    assert own.entries_lost == 0


def test_a_hole_that_a_verdict_has_found_is_a_gap():
    own, _ = handed_on(5)
    uncounted(own)
    own.buffer.append(("7-0", ["event", "active", "jobId", "1"]))
    verdict = Verdict("trimmed", (7, 0), (7, 0), 30, hole=(20, 0))
    taken = sequencer.follow(own, verdict, Server("a", "ra"), sequencer.Taken(), lambda _: None)
    assert [(gap.after, gap.lost, gap.upto) for gap in taken.gaps] == [((7, 0), None, (20, 0))]
    assert (own.ordinal, own.dirty, own.unsure) == (29, True, False)


def test_a_look_of_a_stream_in_doubt_is_made_again():
    own = stream(position=(9, 0), unsure=True)
    sequencer.add_looks(own, [look(8), look(9, "8")])
    assert (own.wanted, [each.job_id for each in own.looks]) == ({"7": "probe"}, ["8"])


def test_a_checkpoint_brings_all_of_it_back():
    own, taken = handed_on(5, 4)
    own.memory.sample((9, 0), 1234)
    own.epoch, own.observed_at = 3, 77
    own.comparisons.ask("request", "mine")
    own.walks.append(own.comparisons.begin())
    own.comparisons.ask("gap", "g")
    sequencer.hand_on(own, taken)
    written = checkpoint.record("bridge", checkpoint.of_stream(own, 1)).value
    again = stream()
    known = checkpoint.decode(written)
    assert known is not None
    checkpoint.resume(again, known)
    assert (again.position, again.read_to, again.ordinal, again.epoch, again.observed_at) == ((7, 0), (7, 0), 7, 3, 77)
    assert again.unsure
    assert again.comparisons.waiting == {"mine": "request", "g": "gap"}
    kept = again.memory.kept(sequencer.tail_of(again, sequencer.Taken()))
    assert kept.position == Past((7, 0), sign_of("added", "7"), 7, 1234)
    assert kept.tail == kept.position
    assert (kept.run_id, kept.replid) == ("a", "ra")
    assert checkpoint.decode(checkpoint.record("bridge", checkpoint.of_stream(again, 1)).value) == checkpoint.of_stream(
        again, 1
    )


def test_a_checkpoint_of_release_0_1():
    written = (
        b'{"source":"s","queue":"q","position":"7-0","entries_added":7,"run_id":"a","paused":true,'
        b'"snapshot":"pending","at":1,"pausing":"pause"}'
    )
    again = stream()
    known = checkpoint.decode(written)
    assert known is not None
    checkpoint.resume(again, known)
    assert list(again.comparisons.waiting.values()) == ["first_sight"]
    assert (again.paused, again.pausing, again.epoch) == (True, "pause", 0)
    assert again.memory.kept(sequencer.tail_of(again, sequencer.Taken())).position == Past((7, 0), None, 7)


def of_0_1(more: str = "", **changed: Any) -> bytes:
    """A checkpoint as release 0.1 wrote it, with changes, and with JSON behind its last field."""
    known = {"source": "s", "queue": "q", "position": "7-0", "entries_added": 7, "run_id": "a", "paused": True}
    return wire.dumps({**known, "snapshot": "done", "at": 1, **changed})[:-1] + more.encode() + b"}"


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"{", b"[]", b"null", b"7", b'{"source":"s"}', b"\xff", b"[" * 3_000),
        *(of_0_1(epoch=epoch) for epoch in ("1", -1, None, 1.5)),
        *(of_0_1(trail=trail) for trail in ("7-0 z", "x 1.1.1", "7-0 1.-1.1", 7)),
        *(of_0_1(comparisons=asked) for asked in ([["a"]], [[1, 2]], "gap")),
        *(of_0_1(position=at) for at in ("7-x", "-7-0", 7, f"{2**64}-0", "")),
        *(of_0_1(offset="1"), of_0_1(observed_at=None), of_0_1(paused=1), of_0_1(',"epoch":1e400')),
    ],
)
def test_what_is_no_checkpoint_is_none(value):
    """Anybody with the right to may write to the topic: it may neither end the bridge nor refuse a queue."""
    assert checkpoint.decode(of_0_1()) is not None
    assert checkpoint.decode(value) is None
