"""The event loop is never held for long, however many rows there are."""

from __future__ import annotations

import asyncio
import time

import pytest

from streams import telemetry
from streams.wire import dumps
from streams.worker.index import PIECE, PartitionIndex
from streams.worker.pace import EXPIRIES_PER_TICK
from tests.core.build import entry, job, running
from tests.worker.build import PARTITION, Worker

NOW_MS = 10_000_000_000
HELD_S = 0.1


def table(count):
    """Rows of finished and of waiting jobs, 7 kinds of queues, all long due."""
    life = running()
    finished = life.apply(entry("completed", 3_000, job(finished_on=3_000), fields={"returnvalue": "1"})).row
    assert finished is not None
    raws = [
        [dumps({**one, "queue": f"q{queue}"}) for queue in range(7)]
        for one in (finished, {**finished, "state": "waiting", "_": {**finished["_"], "state": "waiting"}})
    ]
    return {f"s/q{n % 7}/{n}".encode(): raws[n % 2][n % 7] for n in range(count)}


class Holding:
    """The CPU time that each turn of the loop takes: how long a turn takes by the clock says more of the machine."""

    def __init__(self):
        self.longest = self.turns = 0.0

    def turned(self, since):
        self.longest = max(self.longest, time.thread_time() - since)
        self.turns += 1


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_rows_are_taken_back_and_looked_after_in_short_turns(count):
    worker = Worker()
    worker.at(NOW_MS)
    worker.rows = table(count)
    holding = Holding()
    since = time.thread_time()
    for _ in worker.handler.on_recovered(PARTITION, worker.rows):
        holding.turned(since)
        since = time.thread_time()
    assert holding.turns == count / PIECE
    left, ticks = count / 2, 0
    while ticks < 5:
        worker.at(worker.now_ms + 250)
        tx = worker.tx()
        since = time.thread_time()
        worker.handler.on_tick(tx, worker.now_ms)
        worker.commit(tx)
        holding.turned(since)
        expired = sum(row is None for row in tx.staged.values())
        assert expired <= EXPIRIES_PER_TICK
        left -= expired
        ticks += expired > 0
    assert holding.longest < HELD_S
    index = PartitionIndex()
    for _ in index.restore(worker.rows, NOW_MS):
        pass
    assert sum(n for group, n in index.counts.items() if group.state == "completed") == left


async def test_livez_answers_while_a_table_is_taken_back(unused_tcp_port):
    import aiohttp  # noqa: PLC0415 - not needed by the other

    worker, pulse = Worker(), telemetry.Pulse()
    worker.rows = table(50_000)
    answers = []

    async def recover():
        for _ in worker.handler.on_recovered(PARTITION, worker.rows):
            await asyncio.sleep(0)

    async with (
        telemetry.serve("127.0.0.1", unused_tcp_port, "worker.http_port", worker.metrics, list, pulse),
        aiohttp.ClientSession(f"http://127.0.0.1:{unused_tcp_port}") as session,
    ):
        recovering = asyncio.create_task(recover())
        while not recovering.done():
            async with session.get("/livez") as answer:
                answers.append(answer.status)
        await recovering
    assert set(answers) == {200}
    assert len(answers) >= 5
