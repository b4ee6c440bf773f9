"""Fixtures of the system tests: the product's processes, ended after the test."""

from __future__ import annotations

import pytest

from tests.system.support import Line


@pytest.fixture
async def line(kafka, redis_server, redis_client, prefix, topics, tmp_path):
    """Bridge and workers to be started, on an emptied Redis. Modules that share one override it."""
    await redis_client.flushdb()
    await topics()
    line = Line(kafka, redis_server, prefix, tmp_path)
    yield line
    line.stop_all()
