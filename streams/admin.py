"""Topics as the broker has them: describe, create, correct. The only module that speaks Kafka's admin protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams import topology
from streams.settings import Settings

TIMEOUT_S: Final = 10.0
REACH_S: Final = 3.0
_APPEAR_S: Final = 15.0
_DYNAMIC_TOPIC: Final = 1
"""Source of a setting that was made on the topic itself, as against the broker's and the defaults."""


class TopicError(Exception):
    """The broker refused something about a topic. The text says what and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic on the broker. `config` = values in force; `own` = those set on the topic itself."""

    partitions: int
    replication: int
    config: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it is declared, under its full name."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def wanted(settings: Settings) -> list[Wanted]:
    """All topics of the topology, as these settings want them."""
    kafka = settings.kafka
    return [
        Wanted(
            settings.topic(topic.name), topic.partitions or kafka.partitions, kafka.replication_factor, topic.config()
        )
        for topic in topology.TOPICS
    ]


@asynccontextmanager
async def cluster(settings: Settings) -> AsyncIterator[Cluster]:
    """A connected client. Raises KafkaError or OSError where the cluster does not answer."""
    options = settings.kafka.client()
    client = AIOKafkaAdminClient(**options, request_timeout_ms=int(TIMEOUT_S * 1000))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.start()
        yield Cluster(client, options)
    finally:
        await client.close()


async def advertised(settings: Settings) -> list[tuple[str, str]]:
    """`host:port` under which each broker tells clients to find it, and why it cannot be reached there ("" = it can).

    Bootstrap servers are only asked; everything else goes to these. Raises KafkaError, OSError, TimeoutError.
    """
    client = AIOKafkaClient(**settings.kafka.client())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.bootstrap()
        addresses = sorted({(broker.host, broker.port) for broker in client.cluster.brokers()})
    finally:
        await client.close()
    reasons = await asyncio.gather(*(_reach(*address) for address in addresses))
    return [(f"{host}:{port}", reason) for (host, port), reason in zip(addresses, reasons, strict=True)]


async def _reach(host: str, port: int) -> str:
    """Why nothing takes a connection there; empty where something does."""
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {REACH_S:.0f} s"
    except OSError as error:
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror or str(error)
    writer.close()
    return ""


async def record_limits(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """`max.message.bytes` of topics (by their short names), which bounds a batch, overhead included.

    A topic that does not exist or may not be described is left out. Raises KafkaError, OSError, TimeoutError.
    """
    limits = {}
    async with cluster(settings) as connected:
        for topic in topics:
            try:
                found = await connected.describe([settings.topic(topic)])
            except TopicError:
                continue
            if found:
                limits[topic] = int(found[settings.topic(topic)].config["max.message.bytes"])
    return limits


class Cluster:
    """What the commands need of a cluster. All methods raise KafkaError, OSError or TimeoutError when it is gone."""

    def __init__(self, client: AIOKafkaAdminClient, options: Mapping[str, Any]) -> None:
        self._client = client
        self._options = options

    async def brokers(self) -> int:
        """Number of brokers."""
        return len((await self._client.describe_cluster())["brokers"])

    async def broker_config(self, name: str) -> str | None:
        """A setting of a broker, None where it has none of that name. Raises TopicError where it may not be read."""
        node = (await self._client.describe_cluster())["brokers"][0]["node_id"]
        resource = ConfigResource(ConfigResourceType.BROKER, str(node), {name: ""})
        entries = _entries(await self._client.describe_configs([resource]))
        return next((str(entry["config_value"]) for each in entries.values() for entry in each), None)

    async def coordinator_refusal(self, name: str, *, transactional: bool) -> str:
        """Why a consumer group or a transactional id may not be used; empty where it may."""
        kind = CoordinationType.TRANSACTION if transactional else CoordinationType.GROUP
        async with self._client_of_its_own() as client:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await _look_up(client, kind, name)
            except (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed) as error:
                return str(error.description)
        return ""

    async def hidden(self, names: Iterable[str]) -> set[str]:
        """Those of the topics that this user may not describe: they may well exist."""
        request = MetadataRequest(list(names), allow_auto_topic_creation=False)
        async with self._client_of_its_own() as client:
            response = await client.send(client.get_random_node(), request)
        refused = TopicAuthorizationFailedError.errno
        return {topic["topic"] for topic in response.to_object()["topics"] if topic["error_code"] == refused}

    async def members(self, group: str) -> int:
        """How many members a consumer group has; 0 where there is none of that name."""
        if not any(name == group for name, *_ in await self._client.list_consumer_groups()):
            return 0
        (response,) = await self._client.describe_consumer_groups([group])
        return len(response.to_object()["groups"][0]["members"])

    @asynccontextmanager
    async def _client_of_its_own(self) -> AsyncIterator[AIOKafkaClient]:
        """For requests that the admin client does not offer."""
        client = AIOKafkaClient(**self._options)
        try:
            await client.bootstrap()
            yield client
        finally:
            await client.close()

    async def partitions(self) -> dict[str, int]:
        """Number of partitions of every topic there is."""
        topics = await self._client.describe_topics()
        return {topic["topic"]: len(topic["partitions"]) for topic in topics if topic["error_code"] == 0}

    async def describe(self, names: Iterable[str]) -> dict[str, Found]:
        """Those of the topics that exist. Raises TopicError where one may not be described.

        All are asked for: to ask for one by name would create it where the broker creates topics by itself.
        """
        names = set(names)
        found: dict[str, tuple[int, int]] = {}
        for topic in await self._client.describe_topics():
            if topic["topic"] not in names:
                continue
            if topic["error_code"] == 0:
                partitions = topic["partitions"]
                found[topic["topic"]] = (len(partitions), min((len(p["replicas"]) for p in partitions), default=0))
            else:
                raise TopicError(f"{topic['topic']}: {_error(topic['error_code'])}")
        configs = await self._configs(found)
        return {name: Found(*size, *configs[name]) for name, size in found.items()}

    async def create(self, topics: Sequence[Wanted]) -> None:
        """Create topics and wait until they can be written to. One that exists meanwhile is left alone."""
        response = await self._client.create_topics(
            [NewTopic(t.name, t.partitions, t.replication, topic_configs=dict(t.config)) for t in topics]
        )
        for name, code, *message in response.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise TopicError(f"{name} cannot be created: {message[0] if message and message[0] else _error(code)}")
        async with asyncio.timeout(_APPEAR_S):
            await self._appeared([topic.name for topic in topics])

    async def configure(self, name: str, own: Mapping[str, str], changed: Mapping[str, str]) -> None:
        """Change some settings of a topic. This request replaces all that is set on it, so `own` goes along."""
        resource = ConfigResource(ConfigResourceType.TOPIC, name, {**own, **changed})
        for response in await self._client.alter_configs([resource]):
            for code, message, _, _ in response.resources:
                if code:
                    raise TopicError(f"{name} cannot be changed: {message or _error(code)}")
        async with asyncio.timeout(_APPEAR_S):
            await self._in_force(name, changed)

    async def _configs(self, names: Iterable[str]) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        configs = {}
        for name, entries in _entries(await self._client.describe_configs(resources)).items():
            values = {entry["config_names"]: str(entry["config_value"]) for entry in entries}
            own = {
                e["config_names"]: values[e["config_names"]] for e in entries if e["config_source"] == _DYNAMIC_TOPIC
            }
            configs[name] = (values, own)
        return configs

    async def _in_force(self, name: str, changed: Mapping[str, str]) -> None:
        """The brokers learn of a change a moment after it is acknowledged."""
        while True:
            values, _ = (await self._configs([name]))[name]
            if all(values.get(key) == value for key, value in changed.items()):
                return
            await asyncio.sleep(0.1)

    async def _appeared(self, names: list[str]) -> None:
        """Every partition has a leader."""
        while True:
            topics = await self._client.describe_topics(names)
            if all(t["error_code"] == 0 and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
                return
            await asyncio.sleep(0.1)


async def _look_up(client: AIOKafkaClient, kind: int, name: str) -> None:
    """Find the coordinator; where nobody ever needed one, asking makes the broker set it up, which takes a moment."""
    while True:
        try:
            await client.coordinator_lookup(kind, name)
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(0.2)
        else:
            return


def _entries(responses: Iterable[Any]) -> dict[str, list[dict[str, Any]]]:
    """Settings by resource."""
    entries = {}
    for response in responses:
        for resource in response.to_object()["resources"]:
            if resource["error_code"]:
                reason = resource["error_message"] or _error(resource["error_code"])
                raise TopicError(f"settings of {resource['resource_name']} cannot be read: {reason}")
            entries[resource["resource_name"]] = resource["config_entries"]
    return entries


def _error(code: int) -> str:
    kind: type[KafkaError] = for_code(code)
    return str(getattr(kind, "description", "") or getattr(kind, "message", kind.__name__))
