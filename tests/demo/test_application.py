"""The sample application alone, as docker-compose runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process

import pytest
from bullmq import Queue

from streams.demo import crawling

COMMAND = (sys.executable, "-m", "streams.demo.application")


async def start(**settings: str) -> Process:
    variables = {f"BULLMQ_STREAMS_SOURCES__DEFAULT__{name.upper()}": value for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(*COMMAND, env={**os.environ, **variables}, stdout=PIPE, stderr=PIPE)


@pytest.mark.system
async def test_it_makes_jobs_until_sigterm_and_leaves_no_scheduler_and_no_pause(redis_server: str, prefix: str) -> None:
    queue = Queue(crawling.CRAWLING, {"connection": redis_server, "prefix": prefix})
    process = await start(url=redis_server, prefix=prefix)
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), 30)
    assert said == b"queue demo-crawling-scheduler paused\n"
    assert await queue.isPaused()
    assert await queue.getJobSchedulersCount() == 1
    process.terminate()

    assert await asyncio.wait_for(process.wait(), 15) == 0
    assert not await queue.isPaused()
    assert await queue.getJobSchedulersCount() == 0
    assert await queue.getJobCountByTypes("completed", "failed", "delayed", "prioritized") > 5
    await queue.close()


async def test_without_redis_it_ends_with_a_remedy_and_without_the_password() -> None:
    process = await start(url="redis://:secret@127.0.0.1:1/0")
    _, said = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 1
    assert b"error: Redis at redis://:***@127.0.0.1:1/0 does not answer" in said
    assert b"secret" not in said


async def test_wrong_settings_end_it_with_2() -> None:
    process = await start(url="http://127.0.0.1")
    _, said = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 2
    assert b"BULLMQ_STREAMS_SOURCES__DEFAULT__URL: must begin with redis://" in said
