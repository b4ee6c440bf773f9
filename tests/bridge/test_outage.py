"""One who waits neither hides another nor begins its waiting anew."""

from __future__ import annotations

import asyncio

from streams.bridge.outage import Outage


async def test_an_answer_to_one_ends_no_others_waiting(monkeypatch, caplog):
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    caplog.set_level("INFO", "streams")
    outage = Outage()
    for _ in range(6):
        await outage.wait("redis", "gone", "reader")
        outage.over("redis", who="finder")
        assert outage.missing == ["redis"]
    assert waited == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    assert len(caplog.messages) == 1
    outage.over("redis", who="reader")
    assert outage.missing == []
    assert len(caplog.messages) == 2


async def test_waiting_has_a_longest_step(monkeypatch):
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    outage = Outage()
    for _ in range(2000):
        await outage.wait("redis", "gone", "reader")
    assert max(waited) <= 10
