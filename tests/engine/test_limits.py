"""What is believed of the topics' limits: what the broker says, else its default, and less where it refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.engine.limits import BATCH_BYTES, DEFAULT_BYTES, FLOOR_BYTES, Limits


class Broker:
    """Says what it is told to say; counts the questions."""

    def __init__(self, **said: int) -> None:
        self.said, self.asked = said, 0
        self.error: Exception | None = None

    async def __call__(self) -> Mapping[str, int]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.said


def limits(broker: Broker | None) -> Limits:
    return Limits(("rows", "out"), DEFAULT_BYTES, broker)


async def test_the_topics_say_what_they_take():
    broker = Broker(rows=200_000, out=5_000_000)
    found = limits(broker)
    assert (found.of("rows"), found.batch_bytes) == (DEFAULT_BYTES, BATCH_BYTES)
    await found.read()
    assert (found.of("rows"), found.of("out"), found.of("other")) == (200_000, 5_000_000, DEFAULT_BYTES)
    assert found.batch_bytes == 200_000


async def test_what_may_not_be_read_is_the_default_and_said_once(caplog):
    broker = Broker(rows=200_000)
    found = limits(broker)
    for _ in range(3):
        await found.read()
    assert found.of("out") == DEFAULT_BYTES
    assert [record.getMessage() for record in caplog.records] == [
        f"max.message.bytes of out may not be read; {DEFAULT_BYTES} is assumed"
    ]


@pytest.mark.parametrize("error", [KafkaConnectionError(), OSError("gone"), TimeoutError(), ValueError("no number")])
async def test_where_the_broker_does_not_answer_the_last_known_stays(caplog, error):
    broker = Broker(rows=200_000, out=1)
    found = limits(broker)
    await found.read()
    broker.error = error
    await found.read()
    assert found.of("rows") == 200_000
    assert "cannot be read" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


async def test_without_anybody_to_ask_the_default_holds():
    found = limits(None)
    await found.read()
    await found.read_again()
    assert found.of("rows") == DEFAULT_BYTES


async def test_they_are_read_again_at_most_once_a_minute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("streams.engine.limits.time.monotonic", lambda: now[0])
    broker = Broker(rows=200_000, out=1)
    found = limits(broker)
    await found.read_again()
    now[0] += 59
    await found.read_again()
    assert broker.asked == 1
    now[0] += 1
    broker.said = {"rows": 300_000, "out": 1}
    await found.read_again()
    assert (broker.asked, found.of("rows")) == (2, 300_000)


async def test_a_refusal_is_believed_against_what_the_topic_says_until_it_says_something_else():
    broker = Broker(rows=200_000, out=200_000)
    found = limits(broker)
    await found.read()
    assert found.refused("rows", 150_000)
    assert (found.of("rows"), found.of("out"), found.batch_bytes) == (75_000, 200_000, 75_000)
    await found.read()
    assert found.of("rows") == 75_000
    broker.said = {"rows": 180_000, "out": 200_000}
    await found.read()
    assert found.of("rows") == 180_000


async def test_a_refusal_that_the_topic_explains_lowers_nothing_more():
    broker = Broker(rows=100_000, out=200_000)
    found = limits(broker)
    await found.read()
    assert found.refused("rows", 150_000)
    assert found.of("rows") == 100_000


def test_refusals_end_at_the_floor():
    found, size = limits(None), 900_000
    tried = []
    while found.refused("rows", size):
        size = found.of("rows")
        tried.append(size)
    assert tried == sorted(set(tried), reverse=True)
    assert tried[-1] == FLOOR_BYTES
