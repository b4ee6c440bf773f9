"""What ends a process, and how it says so."""

from __future__ import annotations

import pytest

from tests.system.support import Line

pytestmark = pytest.mark.system


async def test_a_worker_with_other_partitions_than_the_topics_ends_with_the_remedy(kafka, prefix, topics, tmp_path):
    line = Line(kafka, "redis://127.0.0.1:1/0", prefix, tmp_path, BULLMQ_STREAMS_KAFKA__PARTITIONS="8")
    names = await topics(4)
    ended = line.command("worker")
    assert ended.returncode == 2, ended.stderr
    errors = [text for text in ended.stderr.splitlines() if text.startswith("error: ")]
    assert f"error: {names['events']} has 4 partitions, the settings say 8" in errors
    assert f"error: {names['status']} has 4 partitions, the settings say 8" in errors
    assert not any(names["health"] in text for text in errors), "it has one partition whatever the setting"
    assert errors[-1].startswith("error: set kafka.partitions")
