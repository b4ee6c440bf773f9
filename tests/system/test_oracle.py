"""Real Kafka, Redis and BullMQ: at rest every row equals BullMQ's own Job, whatever was killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from tests.system.applications import Applications, everything_agrees, kill_now_and_then, revive

VERSIONS = ("v4", "v5seed", "v5", "v6")
JOBS = int(os.environ.get("ORACLE_JOBS", "1000"))
SEED = int(os.environ.get("ORACLE_SEED", "7"))

pytestmark = [pytest.mark.system, pytest.mark.node]


@pytest.fixture
def apps(line, node_bullmq):
    return Applications(line, {version: str(node_bullmq(version)) for version in VERSIONS}, JOBS, SEED)


async def test_rows_equal_bullmqs_jobs(line, apps):
    await apps.prepare()
    line.start("bridge")
    line.start("worker")
    await apps.run()
    await everything_agrees(apps, line)


async def test_rows_equal_bullmqs_jobs_after_kills(line, apps):
    """kill -9 of bridge and worker in mid-load, and one worker frozen beyond its session."""
    await apps.prepare()
    chaos = asyncio.create_task(kill_now_and_then(line, random.Random(SEED)))
    await apps.run()
    chaos.cancel()
    await asyncio.gather(chaos, return_exceptions=True)
    revive(line)
    await everything_agrees(apps, line)


async def test_a_frozen_worker_is_fenced(line, apps):
    await apps.prepare()
    line.start("bridge")
    frozen = line.start("worker")
    running = asyncio.create_task(apps.run())
    await asyncio.sleep(4)
    frozen.send_signal(signal.SIGSTOP)
    line.start("worker")
    begin = time.monotonic()
    await running
    await asyncio.sleep(max(0, 14 - (time.monotonic() - begin)))  # beyond the session timeout of 10 s
    frozen.send_signal(signal.SIGCONT)
    await everything_agrees(apps, line)
