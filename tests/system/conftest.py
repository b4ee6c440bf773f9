"""Fixtures of the system tests: the product's processes, ended after the test."""

from __future__ import annotations

import asyncio

import pytest

from tests.system.support import Line, address_of, node


@pytest.fixture
async def line(kafka, redis_server, redis_client, prefix, topics, tmp_path):
    """Bridge and workers to be started, on an emptied Redis. Modules that share one override it."""
    await redis_client.flushdb()
    await topics()
    line = Line(kafka, redis_server, prefix, tmp_path)
    yield line
    line.stop_all()


@pytest.fixture
def do(line, node_bullmq):
    """`await do("v6", "…")` runs a few lines of JavaScript on that BullMQ, to their end."""

    async def run(version: str, script: str) -> None:
        process = node("script.js", bullmq=str(node_bullmq(version)), **address_of(line.redis_url), lines=script)
        _, err = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == 0, err

    return run
