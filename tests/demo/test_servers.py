from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.commands.errors import CommandError
from streams.demo import servers
from streams.demo.source import connection, require_redis, source_name
from streams.settings import ConfigError, Settings, load

URL = "BULLMQ_STREAMS_SOURCES__DEFAULT__URL"
BOOTSTRAP = "BULLMQ_STREAMS_KAFKA__BOOTSTRAP_SERVERS"


def test_servers_are_named_by_the_settings_or_not() -> None:
    assert not servers.are_named(load([], {}))
    assert not servers.are_named(load([], {"BULLMQ_STREAMS_KAFKA__PARTITIONS": "4"}))
    assert servers.are_named(load([], {URL: "redis://localhost:6379/0"}))
    assert servers.are_named(load([], {BOOTSTRAP: "localhost:9092"}))


def test_flags_win_over_settings() -> None:
    settings = servers.with_flags(load([], {URL: "redis://a", BOOTSTRAP: "a:1"}), "b:2", "redis://b")

    assert settings.kafka.bootstrap_servers == "b:2"
    assert connection(settings).url.get_secret_value() == "redis://b"


def test_wrong_flags_are_all_told_at_once_without_the_password() -> None:
    with pytest.raises(ConfigError) as failure:
        servers.with_flags(load([], {}), "nowhere", "http://:secret@host")

    assert len(failure.value.problems) == 2
    assert "--bootstrap" in str(failure.value)
    assert "--redis" in str(failure.value)
    assert "secret" not in str(failure.value)


def test_the_demo_reads_its_own_queues_alone_and_fences_nobody() -> None:
    given = load(
        [],
        {
            URL: "redis://a",
            "BULLMQ_STREAMS_SOURCES__OTHER__URL": "redis://b",
            "BULLMQ_STREAMS_SOURCES__DEFAULT__EXCLUDE": '["demo-*"]',
            "BULLMQ_STREAMS_BRIDGE__SNAPSHOT": "false",
            "BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": "mine",
        },
    )
    settings = servers.for_demo(given)

    assert list(settings.sources) == ["default"]
    assert settings.sources["default"].queues == ("demo-*",)
    assert settings.sources["default"].exclude == ()
    assert settings.bridge.id != given.bridge.id
    assert settings.kafka.topic_prefix == "mine"
    assert 0 not in {settings.bridge.http_port, settings.worker.http_port}
    assert settings.bridge.http_port != settings.worker.http_port


def test_the_source_is_the_default_one_or_the_first() -> None:
    second = {"BULLMQ_STREAMS_SOURCES__SECOND__URL": "redis://b"}
    assert source_name(load([], {**second, URL: "redis://a"})) == "default"
    assert source_name(load([], second)) == "second"


async def test_a_redis_that_does_not_answer_is_told_with_a_remedy() -> None:
    with pytest.raises(CommandError) as failure:
        await require_redis(connection(load([], {URL: "redis://:secret@127.0.0.1:1/0"})))

    assert "redis://:***@127.0.0.1:1/0 does not answer" in str(failure.value)
    assert "--redis" in failure.value.remedy


async def test_a_kafka_that_does_not_answer_is_told_with_a_remedy() -> None:
    with pytest.raises(CommandError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        await servers.require_unused(load([], {BOOTSTRAP: "127.0.0.1:1"}))


@pytest.fixture
def settings(kafka: str, prefix: str) -> Callable[..., Settings]:
    def make(**more: str) -> Settings:
        return load([], {BOOTSTRAP: kafka, "BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX": prefix, **more})

    return make


@pytest.mark.system
async def test_missing_topics_are_created_and_others_left_alone(settings: Callable[..., Settings]) -> None:
    said: list[str] = []
    await servers.create_topics(settings(), said.append)
    await servers.create_topics(settings(), said.append)

    assert [line.split()[0] for line in said] == ["8", "0"]
    with pytest.raises(CommandError, match="has 8 partitions, not 3"):
        await servers.create_topics(settings(BULLMQ_STREAMS_KAFKA__PARTITIONS="3"), said.append)


@pytest.mark.system
async def test_topics_on_which_a_worker_is_at_work_are_refused(settings: Callable[..., Settings], prefix: str) -> None:
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415 - of the system tests alone

    mine = settings(BULLMQ_STREAMS_WORKER__APP_ID=prefix)
    await servers.create_topics(mine, lambda _: None)
    await servers.require_unused(mine)
    member = AIOKafkaConsumer(mine.topic("events"), group_id=prefix, **mine.kafka.client())
    await member.start()
    try:
        with pytest.raises(CommandError, match=f"a worker of the group {prefix} is at work"):
            await servers.require_unused(mine)
    finally:
        await member.stop()
    await servers.require_unused(mine)
