"""What is held is counted, and released to the last byte."""

from __future__ import annotations

import pytest

from streams.bridge.buffer import Buffer
from streams.bridge.bullmq import Keys
from streams.bridge.stream import Known, Stream


async def test_room_is_there_below_the_limit_alone():
    buffer = Buffer(100)
    assert await buffer.room(0.01)
    buffer.add("entries", 60)
    buffer.add("records", 40)
    assert not await buffer.room(0.01)
    assert (buffer.room_bytes, buffer.held["entries"]) == (0, 60)
    buffer.remove("records", 40)
    assert await buffer.room(0.01)
    assert buffer.room_bytes == 40


def test_a_stream_that_is_dropped_leaves_nothing():
    buffer, stream = Buffer(100), Stream("s", "q", Keys("bull", "q"))
    stream.buffer.append(("1-0", ["event", "added"]))
    stream.held.append(50)
    stream.early["1"] = Known((1, 0), {}, (1, 0), 30)
    buffer.add("entries", 50)
    buffer.add("hashes", 30)
    buffer.drop(stream)
    assert (buffer.size_bytes, set(buffer.held.values()), len(stream.buffer), stream.early) == (0, {0}, 0, {})


@pytest.mark.parametrize("what", ["entries", "hashes", "records"])
def test_each_kind_is_told_by_itself(what):
    buffer = Buffer(10)
    buffer.add(what, 3)
    assert {name: size for name, size in buffer.held.items() if size} == {what: 3}
