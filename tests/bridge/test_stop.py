"""A stop is never lost, whatever it meets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.bridge import publish
from streams.bridge.run import run

from .support import Setup


def refusing(stop: asyncio.Event, turns: int) -> type:
    """A producer whose connection is refused so many turns of the loop after the stop."""

    class Refusing:
        def __init__(self, **options: Any) -> None:
            pass

        async def start(self) -> None:
            stop.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            raise KafkaConnectionError

        async def stop(self) -> None:
            pass

    return Refusing


@pytest.mark.parametrize("turns", range(8))
async def test_a_stop_in_the_moment_a_connection_is_refused(monkeypatch, turns):
    stop = asyncio.Event()
    monkeypatch.setattr(publish, "AIOKafkaProducer", refusing(stop, turns))
    setup = Setup("127.0.0.1:1", "redis://127.0.0.1:1/0", "p", "q")
    assert await asyncio.wait_for(run(setup.settings(), stop=stop), 5) == 0
