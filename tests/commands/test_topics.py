from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import topology
from tests.commands.support import PARTITIONS, lines, run, servers

pytestmark = pytest.mark.system


def with_admin(kafka: str, work) -> Any:
    async def go() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    return asyncio.run(go())


def test_apply_creates_check_agrees_and_apply_again_does_nothing(kafka, prefix):
    settings = servers(kafka, prefix)
    missing = run("topics", "check", "--json", **settings)
    assert missing.exit_code == 1
    assert lines(missing)[0]["findings"][0] == {
        "level": "error",
        "check": f"{prefix}.events.v1",
        "message": "does not exist",
        "remedy": "run: bullmq-streams topics apply",
    }
    assert len(lines(missing)[0]["findings"]) == len(topology.TOPICS)
    applied = lines(run("topics", "apply", "--json", **settings))[0]
    assert applied["ok"]
    assert len(applied["actions"]) == len(topology.TOPICS)
    checked = run("topics", "check", "--json", **settings)
    assert checked.exit_code == 0
    assert lines(checked)[0]["ok"]
    assert lines(run("topics", "apply", "--json", **settings))[0]["actions"] == []


def test_apply_corrects_settings_and_leaves_those_of_others_alone(kafka, prefix):
    settings = servers(kafka, prefix)
    run("topics", "apply", **settings)
    name = f"{prefix}.events.v1"
    resource = ConfigResource(
        ConfigResourceType.TOPIC, name, {"retention.ms": "1000", "segment.ms": "60000", "cleanup.policy": "compact"}
    )
    with_admin(kafka, lambda admin: admin.alter_configs([resource]))
    deadline = time.monotonic() + 10
    while (checked := run("topics", "check", **settings)).exit_code == 0:
        assert time.monotonic() < deadline  # the broker acknowledges a change before it is in force
    assert f"✗ {name}: has retention.ms=1000, not 604800000" in checked.stdout
    assert f"✗ {name}: has cleanup.policy=compact, not delete" in checked.stdout
    applied = run("topics", "apply", **settings)
    assert applied.exit_code == 0
    assert f"+ set retention.ms=604800000 on {name}, was 1000" in applied.stdout
    ask = ConfigResource(ConfigResourceType.TOPIC, name, {"segment.ms": ""})
    (response,) = with_admin(kafka, lambda admin: admin.describe_configs([ask]))
    assert response.resources[0][4][0][1] == "60000"


def test_partitions_are_found_different_and_cannot_be_corrected(kafka, prefix):
    with_admin(kafka, lambda admin: admin.create_topics([NewTopic(f"{prefix}.events.v1", PARTITIONS + 1, 1)]))
    applied = run("topics", "apply", **servers(kafka, prefix))
    assert applied.exit_code == 1
    assert f"✗ {prefix}.events.v1: has 5 partitions, not 4" in applied.stdout
    assert "kafka.topic_prefix" in applied.stdout


def test_a_replication_factor_beyond_the_brokers_is_explained(kafka, prefix):
    result = run("topics", "apply", **servers(kafka, prefix), KAFKA__REPLICATION_FACTOR="3")
    assert result.exit_code == 1
    assert "cannot be created" in result.stderr
    assert "replication factor" in result.stderr.lower()


def test_checking_creates_nothing(kafka, prefix):
    run("topics", "check", **servers(kafka, prefix))
    names = with_admin(kafka, lambda admin: admin.list_topics())
    assert not [name for name in names if name.startswith(prefix)]
