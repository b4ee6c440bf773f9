from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import topology
from streams.admin import Found
from streams.commands.topics import judge_replicas, judge_sizes
from streams.settings import load
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


OLD_STATUS = {"cleanup.policy": "compact"}


def test_the_topics_of_the_first_release_are_corrected_in_place(kafka, prefix):
    settings = servers(kafka, prefix)
    run("topics", "apply", **settings)
    names = [f"{prefix}.status.v1", f"{prefix}.checkpoints.v1"]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, OLD_STATUS) for name in names]
    with_admin(kafka, lambda admin: admin.alter_configs(resources))
    deadline = time.monotonic() + 10
    while (checked := run("topics", "check", **settings)).exit_code == 0:
        assert time.monotonic() < deadline
    assert f"✗ {names[0]}: has segment.bytes=1073741824, not 33554432" in checked.stdout
    assert f"✗ {names[1]}: has min.cleanable.dirty.ratio=0.5, not 0.1" in checked.stdout
    applied = run("topics", "apply", **settings)
    assert applied.exit_code == 0
    assert f"+ set segment.bytes=33554432 on {names[0]}, was 1073741824" in applied.stdout
    assert f"+ set delete.retention.ms=604800000 on {names[0]}, was 86400000" in applied.stdout
    assert run("topics", "check", **settings).exit_code == 0


def test_what_a_topic_takes_is_judged(kafka, prefix):
    settings = servers(kafka, prefix)
    run("topics", "apply", **settings)

    def limit(topic: str, size: int) -> None:
        own = {config.name: config.config() for config in topology.TOPICS}[topic]
        resource = ConfigResource(
            ConfigResourceType.TOPIC, f"{prefix}.{topic}.v1", {**own, "max.message.bytes": str(size)}
        )
        with_admin(kafka, lambda admin: admin.alter_configs([resource]))
        deadline = time.monotonic() + 10
        while f"{size:,}" not in run("topics", "check", **settings).stdout:
            assert time.monotonic() < deadline

    limit("status", 262_144)
    checked = run("topics", "check", **settings)
    assert checked.exit_code == 0
    assert f"! {prefix}.status.v1: takes records of at most 262,144 bytes" in checked.stdout
    limit("events", 100_000)
    checked = run("topics", "check", **settings)
    assert checked.exit_code == 1
    assert "takes records of at most 100,000 bytes (max.message.bytes); at least 196,608 are needed" in checked.stdout
    assert run("topics", "check", **settings, BRIDGE__MAX_TEXT_BYTES="1024").exit_code == 0
    assert run("topics", "apply", **settings).exit_code == 1  # it is not ours to raise


@pytest.mark.parametrize(
    ("least", "replicas", "level", "text"),
    [
        ("1", 1, None, ""),
        ("2", 3, None, ""),
        ("1", 3, "warning", "what one broker alone has taken can be lost"),
        ("3", 3, "warning", "one broker away stops all writing"),
        ("2", 1, "error", "more than its 1 replica: nothing can be written"),
        ("", 3, None, ""),
    ],
)
def test_replicas_in_sync(least, replicas, level, text):
    found = list(judge_replicas("t", Found(1, replicas, {"min.insync.replicas": least}, {})))
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all(text in finding.message and finding.remedy for finding in found)


def test_rows_that_take_less_than_their_events_are_told():
    limits = {"events": 5_000_000, "status": 2_000_000, "transitions": 5_000_000, "health": 1_048_588}
    (finding,) = judge_sizes(load([], {}), limits)
    assert finding.check == "bullmq.status.v1"
    assert "events of 5,000,000: larger jobs are cut there" in finding.message


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
