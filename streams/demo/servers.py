"""Which Kafka and Redis the demo runs on: those named by flags or settings, else a local stack from PyPI."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka.errors import KafkaError
from pydantic import SecretStr

from streams import admin
from streams.commands import errors
from streams.commands.errors import CommandError
from streams.demo.children import Children
from streams.demo.crawling import QUEUES
from streams.demo.source import source_name
from streams.local import stack
from streams.local.errors import INSTALL
from streams.settings import Bridge, ConfigError, Problem, Settings, Source
from streams.settings.redis_url import check_url
from streams.settings.url import check_bootstrap

Say = Callable[[str], None]

DISCOVER_S: Final = 0.5
FEED: Final = "to feed only sample jobs to what runs there: python -m streams.demo.application"


def with_flags(settings: Settings, bootstrap: str | None, redis: str | None) -> Settings:
    """The settings with the servers of the flags. Raises ConfigError."""
    problems: list[Problem] = []

    def checked(flag: str, check: Callable[[Any], Any], value: Any) -> Any:
        try:
            return check(value)
        except ValueError as error:
            problems.append(Problem(flag, "", str(error)))

    if bootstrap is not None:
        servers = checked("--bootstrap", check_bootstrap, bootstrap)
        settings = _with_kafka(settings, servers)
    if redis is not None:
        url = checked("--redis", check_url, SecretStr(redis))
        settings = _with_url(settings, url)
    if problems:
        raise ConfigError(problems)
    return settings


def are_named(settings: Settings) -> bool:
    """Whether somebody named a server in a file or in the environment."""
    keys = ("kafka.bootstrap_servers", *(f"sources.{name}.url" for name in settings.sources))
    return any(settings.origin(key) != "default" for key in keys)


def for_demo(settings: Settings) -> Settings:
    """The demo's own part of it: one source, the demo's queues alone, free ports for HTTP."""
    name = source_name(settings)
    source = settings.sources[name].model_copy(
        update={"queues": (QUEUES,), "exclude": (), "discover_interval_s": DISCOVER_S}
    )
    bridge_port, worker_port = _free_ports(2)
    bridge: Bridge = settings.bridge.model_copy(
        # A bridge of the same name would be fenced off its work.
        update={"id": f"{settings.bridge.id}-demo", "http_port": bridge_port, "start": "beginning", "snapshot": True}
    )
    return settings.model_copy(
        update={
            "sources": {name: source},
            "bridge": bridge,
            "worker": settings.worker.model_copy(update={"http_port": worker_port}),
            "http_host": "127.0.0.1",
            "log": settings.log.model_copy(update={"format": "text"}),
        }
    )


def require_packages() -> None:
    """Raise CommandError where BullMQ's Python port is missing."""
    if importlib.util.find_spec("bullmq") is None:
        raise CommandError("the sample application needs BullMQ's Python port", f"run: {INSTALL}")


async def require_unused(settings: Settings) -> None:
    """Raise CommandError where a worker is at work on these topics: two that write one table would spoil it."""
    group = settings.worker.app_id
    with errors.kafka(settings):
        members = await _members(settings, group)
    if members:
        raise CommandError(
            f"a worker of the group {group} is at work on the topics {settings.kafka.topic_prefix}.*",
            "give the demo BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX and BULLMQ_STREAMS_WORKER__APP_ID of its own, such as "
            f"bullmq-demo; if it is of a demo that was killed, wait a minute; {FEED}",
        )


async def create_topics(settings: Settings, say: Say) -> None:
    """Create the topics that are missing and leave the others as they are. Raises CommandError."""
    with errors.kafka(settings):
        async with admin.cluster(settings) as cluster:
            wanted = admin.wanted(settings)
            found = await cluster.describe(topic.name for topic in wanted)
            missing = [topic for topic in wanted if topic.name not in found]
            if missing:
                await cluster.create(missing)
    for topic in wanted:
        there = found.get(topic.name)
        if there is not None and there.partitions != topic.partitions:
            raise CommandError(
                f"topic {topic.name} has {there.partitions} partitions, not {topic.partitions}",
                "set BULLMQ_STREAMS_KAFKA__PARTITIONS to that, or BULLMQ_STREAMS_KAFKA__TOPIC_PREFIX to a new one",
            )
    say(f"{len(missing)} topics {settings.kafka.topic_prefix}.* created, {len(found)} were there")


async def start_local(settings: Settings, children: Children, ends: AsyncExitStack, say: Say, say_end: Say) -> Settings:
    """A Kafka and a Valkey in a folder of the demo's own; `ends` stops them. Raises CommandError."""
    directory = children.directory / "servers"
    ends.push_async_callback(asyncio.to_thread, stack.down, directory, say_end)
    child = children.python("servers", "streams.local", "up", "--dir", str(directory))
    lines: list[str] = []
    code = await children.run(child, lambda line: _servers_line(line, lines, say))
    if code:
        said = next((line for line in lines if line.startswith("error: ")), "")
        raise CommandError(said.removeprefix("error: ")) if said else child.failure(f"failed with code {code}")
    found = json.loads(next(line for line in lines if line.startswith("{")))
    return _with_url(_with_kafka(settings, found["bootstrap"]), SecretStr(found["redis"]))


def _servers_line(line: str, lines: list[str], say: Say) -> None:
    lines.append(line)
    if line.startswith(("starting ", "fetching ")):  # no traceback
        say(line)


def _with_kafka(settings: Settings, bootstrap: str) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": bootstrap})})


def _with_url(settings: Settings, url: SecretStr) -> Settings:
    name = source_name(settings)
    source: Source = settings.sources[name].model_copy(update={"url": url})
    return settings.model_copy(update={"sources": {**settings.sources, name: source}})


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def _members(settings: Settings, group: str) -> int:
    """How many members a consumer group has; 0 where it cannot be seen."""
    try:
        async with admin.cluster(settings) as cluster:
            return await cluster.members(group)
    except KafkaError as error:
        if error.retriable is False:
            return 0
        raise
