"""Hashes are measured before they are read: always at first, again once one was large, and payloads of new jobs."""

from __future__ import annotations

from streams.bridge.bullmq import SIZED, Keys
from streams.bridge.sizes import MULTI_BYTES, Sizes, held_bytes

KEYS = Keys("bull", "q")
SMALL = {"timestamp": "1", "opts": "{}", "data": "{}"}


def calm() -> Sizes:
    sizes = Sizes()
    for n in range(200):
        sizes.read(str(n), SMALL)
    assert sizes.calm
    return sizes


def lengths(**fields: int) -> list[int]:
    return [fields.get(name, 0) for name in SIZED]


def test_at_first_each_hash_is_measured():
    sizes = Sizes()
    assert len(sizes.commands(KEYS, ["1", "2"], set())) == 2 * len(SIZED)
    assert sizes.command(KEYS, "1").startswith(b"*25\r\n$5\r\nHMGET")


def test_in_a_calm_queue_payloads_of_new_jobs_are():
    sizes = calm()
    assert sizes.commands(KEYS, ["1", "2"], {"2"}) == [KEYS.data_size(b"2")]
    assert sizes.command(KEYS, "1") == KEYS.hash(b"1")


def test_a_large_one_ends_the_calm():
    sizes = calm()
    sizes.learn(["1", "2"], {"2"}, [50_000], 1_000_000)
    assert not sizes.calm
    assert sizes.of("2").size_bytes == 50_000
    sizes = calm()
    sizes.read("1", {**SMALL, "stacktrace": "x" * 50_000})
    assert not sizes.calm


def test_what_fits_into_no_record_is_not_read_but_texts_are_since_they_are_cut():
    sizes = Sizes()
    sizes.learn(["1"], set(), lengths(data=5_000_000, stacktrace=2_000_000), 1_000_000)
    assert sizes.of("1").left_out == {"data": 5_000_000}
    assert b"\r\ndata\r\n" not in sizes.command(KEYS, "1")
    hash_, left_out = sizes.read("1", [None] * 22)
    assert (hash_, left_out) == (None, {})


def test_no_hash_is_expected_to_be_larger_than_a_reply_may_be():
    sizes = Sizes()
    sizes.learn(["1"], set(), lengths(stacktrace=9_000_000, failedReason=900_000, data=900_000), 1_000_000)
    assert sizes.of("1").left_out == {"stacktrace": 9_000_000}
    assert sizes.of("1").size_bytes <= MULTI_BYTES


def test_where_lengths_may_not_be_asked_the_mean_is_expected():
    sizes = Sizes()
    sizes.learn(["1"], set(), [ValueError("NOPERM")] * len(SIZED), 1_000_000)
    large = {**SMALL, "data": "x" * 100_000}
    for n in range(100):
        sizes.read(str(n), large)
    sizes.forget()
    assert sizes.of("7").size_bytes > 90_000
    assert held_bytes(large) > 100_000


def test_ids_that_no_record_can_bear_are_not_asked_about():
    assert Sizes().is_readable("x" * 1000)
    assert not Sizes().is_readable("x" * 100_000)
