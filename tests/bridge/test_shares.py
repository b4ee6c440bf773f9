"""Who is served in a turn: everybody in time, by bytes, however large one's entries are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.bridge.bullmq import Keys
from streams.bridge.shares import ENTRIES_PER_TURN, Shares, fitting
from streams.bridge.stream import Stream


def stream(name: str, sizes: list[int]) -> Stream:
    made = Stream("s", name, Keys("bull", name))
    for n, size_bytes in enumerate(sizes):
        made.buffer.append((f"{n + 1}-0", ["event", "active", "jobId", "1"]))
        made.held.append(size_bytes)
    return made


def serve(shares: Shares, budget_bytes: int) -> dict[str, int]:
    """One turn, its entries taken."""
    served = {}
    for each, count in shares.turn(budget_bytes):
        served[each.queue] = sum(each.held.popleft() for _ in range(count))
        for _ in range(count):
            each.buffer.popleft()
    return served


@given(st.lists(st.lists(st.integers(1, 3_000_000), max_size=30), min_size=1, max_size=20))
def test_everything_is_served_in_the_end_and_no_turn_is_much_too_large(queues):
    shares = Shares()
    for n, sizes in enumerate(queues):
        shares.add(stream(str(n), sizes))
    budget, turns = 1_000_000, 0
    while any(each.buffer for each in shares):
        served = serve(shares, budget)
        assert sum(served.values()) <= budget + 3_100_000
        turns += 1
        assert turns < 20 * 30 * 60


def test_a_queue_with_large_entries_does_not_starve_one_with_small_ones():
    shares, large, small = Shares(), stream("large", [1_000_000] * 200), stream("small", [500] * 10_000)
    shares.add(large)
    shares.add(small)
    got = {"large": 0, "small": 0}
    for _ in range(4):
        for queue, size_bytes in serve(shares, 4_000_000).items():
            got[queue] += size_bytes
    assert got["small"] >= 4 * 500 * ENTRIES_PER_TURN // 4
    assert got["large"] <= 9_000_000


def test_five_thousand_busy_queues_come_all_round():
    shares = Shares()
    for n in range(5000):
        shares.add(stream(str(n), [700] * 3))
    seen: set[str] = set()
    for _ in range(50):
        served = serve(shares, 6_000_000)
        assert len(served) <= 100
        seen |= served.keys()
    assert len(seen) == 5000


def test_a_share_is_not_saved_up():
    shares, idle = Shares(), stream("idle", [])
    idle.dirty = True
    shares.add(idle)
    for _ in range(10):
        serve(shares, 1_000_000)
    assert idle.deficit == 0
    shares.remove(idle)
    assert shares.turn(1_000_000) == []


def test_of_large_jobs_no_more_are_taken_than_fit():
    many = stream("q", [100] * 10)
    ids = ["1"]
    sizes = many.sizes
    sizes.learn(ids, set(), [900_000, 0, 0, 0, 0, 0, 0], 1_000_000)
    assert fitting(many, 10, 3_000_000) == 3
    assert fitting(many, 10, 1) == 1
