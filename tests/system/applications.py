"""Applications on real BullMQ, what may happen to the processes that follow them, and what must be true at rest."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from typing import Any

import redis.asyncio as redis

from streams.topology import full_name
from tests.system import oracle
from tests.system.support import Line, address_of, node, until

MAX_LEN = 1_000_000


class Applications:
    """One application for each BullMQ version on queues of its own, and two more that share one queue."""

    def __init__(self, line: Line, directories: dict[str, str], jobs: int, seed: int) -> None:
        self.line, self.directories, self.jobs, self.seed = line, directories, jobs, seed
        self.address = address_of(line.redis_url)
        self.owner = {version: version for version in directories}
        self.logs: list[dict] = []

    @property
    def queues(self) -> list[str]:
        return [f"{name}{suffix}" for name in [*self.owner, "mixed"] for suffix in ("", "-files", "-held")]

    async def prepare(self) -> None:
        """The queues exist before the bridge starts, so it sees each job as it is added."""
        client = redis.from_url(self.line.redis_url, decode_responses=True)
        for queue in self.queues:
            await client.hset(f"bull:{queue}:meta", "opts.maxLenEvents", MAX_LEN)
        await client.aclose()

    async def run(self) -> None:
        plans = [(version, version, False) for version in self.owner]
        plans += [("v5", "mixed", True), ("v6", "mixed", True)]
        await asyncio.gather(*(asyncio.to_thread(self._run, *plan) for plan in plans))

    def _run(self, version: str, queue: str, shared: bool) -> None:
        jobs = self.jobs // 3 if shared else self.jobs
        process = node(
            "workload.js", bullmq=self.directories[version], **self.address, queue=queue,
            seed=self.seed + len(version), jobs=jobs, shared=shared,
        )  # fmt: skip
        out, err = process.communicate(timeout=240)
        lines = [json.loads(text) for text in out.splitlines()]
        assert process.returncode == 0, f"{version}: {err or lines[-1:]}"
        assert lines[-1] == {"done": True}
        self.logs += [entry["log"] for entry in lines if "log" in entry]

    def dump(self) -> dict[str, dict]:
        """What BullMQ's own Job says, each queue asked through the version that wrote it."""
        found = {}
        for name in [*self.owner, "mixed"]:
            process = node(
                "dump.js", bullmq=self.directories[self.owner.get(name, "v6")], **self.address,
                queues=[f"{name}{suffix}" for suffix in ("", "-files", "-held")],
            )  # fmt: skip
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            found.update(json.loads(out))
        return found

    async def stream_ids(self) -> dict[str, list[str]]:
        client: Any = redis.from_url(self.line.redis_url, decode_responses=True)
        ids = {queue: [entry[0] for entry in await client.xrange(f"bull:{queue}:events")] for queue in self.queues}
        await client.aclose()
        return ids


async def everything_agrees(apps: Applications, line: Line) -> None:
    """At rest: rows equal BullMQ's Jobs, transitions are chains, each entry is published once."""
    rows = await rows_agree(apps, line)
    assert oracle.broken_chains(await values(line, "transitions"), rows) == []
    assert oracle.published_once(await values(line, "events"), await apps.stream_ids()) == []


async def rows_agree(apps: Applications, line: Line) -> dict[str, dict | None]:
    """At rest: rows equal BullMQ's Jobs, and nothing was set aside. Gives the rows."""
    dump = apps.dump()
    last: list[str] = []

    async def settled() -> bool:
        rows = await oracle.rows_of(line.bootstrap, line.prefix)
        last[:] = oracle.compare_with_bullmq(rows, dump) + oracle.compare_with_logs(rows, dump, apps.logs)
        return not last

    try:
        await until(settled, 60, "rows that equal BullMQ's jobs")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *last[:40], line.log_text()])) from None
    rows = await oracle.rows_of(line.bootstrap, line.prefix)
    assert await values(line, "dead-letters") == []
    states = {row["state"] for row in rows.values() if row}
    assert {"waiting", "completed", "failed", "delayed", "paused"} <= states
    return rows


async def values(line: Line, topic: str) -> list[dict]:
    return [json.loads(r.value) for r in await oracle.read_all(line.bootstrap, full_name(line.prefix, topic))]


async def kill_now_and_then(line: Line, dice: random.Random) -> None:
    """Every few seconds one process is killed and started again; never waits for it to get well."""
    running = {name: line.start(name) for name in ("bridge", "worker")}
    await asyncio.sleep(3)
    while True:
        await asyncio.sleep(dice.uniform(0.5, 2.5))
        name = dice.choice(["bridge", "worker"])
        running[name].send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        running[name] = line.start(name)


def revive(line: Line) -> None:
    """One of each, whoever is left from the chaos."""
    for process in line.processes:
        if process.poll() is None:
            process.terminate()
    for process in line.processes:
        process.wait(35)
    line.start("bridge")
    line.start("worker")
