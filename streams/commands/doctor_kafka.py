"""What `doctor` asks of Kafka: can it be reached, are the topics right, are the rights there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiokafka.errors import TopicAuthorizationFailedError

from streams import admin, topology
from streams.admin import Cluster, TopicError
from streams.commands import doctor_clocks, errors, topics
from streams.commands.errors import CommandError
from streams.commands.findings import Finding
from streams.commands.reading import reader
from streams.settings import Settings

CHECK = "kafka"


async def examine(settings: Settings) -> list[Finding]:
    """All findings about the cluster."""
    findings: list[Finding] = []
    try:
        with errors.kafka(settings):
            addresses = await admin.advertised(settings)
            findings += judge_addresses(addresses)
            if addresses and all(reason for _, reason in addresses):
                return findings  # all else would only time out
            async with admin.cluster(settings) as cluster:
                async for finding in _examine(cluster, settings):
                    findings.append(finding)
    except CommandError as error:
        findings.append(Finding("error", CHECK, error.message, error.remedy))
    return findings


def judge_addresses(addresses: Sequence[tuple[str, str]]) -> list[Finding]:
    """Whether clients come to the brokers by the names that these give themselves."""
    remedy = "set advertised.listeners of that broker to an address that this host reaches, or open the way to it"
    return [
        Finding("error", CHECK, f"a broker names itself {address}, where it cannot be reached: {reason}", remedy)
        for address, reason in addresses
        if reason
    ]


async def _examine(cluster: Cluster, settings: Settings) -> AsyncIterator[Finding]:
    brokers, wanted = await cluster.brokers(), settings.kafka.replication_factor
    yield Finding("ok", CHECK, f"{settings.kafka.bootstrap_servers}: {brokers} broker{'s' * (brokers != 1)}")
    if wanted > brokers:
        message = f"kafka.replication_factor is {wanted}, more than there are brokers"
        yield Finding("error", CHECK, message, f"set it to {brokers} or less")
    elif wanted == 1 < brokers:
        message = "kafka.replication_factor is 1: a lost broker loses its partitions"
        yield Finding("warning", CHECK, message, "set it to 3 before the topics are created")
    yield await _auto_create(cluster)
    for finding in (*await _topics(cluster, settings), *await _coordinators(cluster, settings)):
        yield finding
    yield await _reading(settings)
    async for finding in doctor_clocks.examine(settings):
        yield finding


async def _auto_create(cluster: Cluster) -> Finding:
    try:
        value = await cluster.broker_config("auto.create.topics.enable")
    except TopicError as error:
        return Finding("info", CHECK, f"whether it creates topics by itself is not known: {error}")
    if value == "true":
        message = "auto.create.topics.enable is true: a topic can come into being with the wrong settings"
        return Finding(
            "warning", CHECK, message, "set it to false on the brokers, and run: bullmq-streams topics apply"
        )
    return Finding("ok", CHECK, "topics come into being only by topics apply")


async def _topics(cluster: Cluster, settings: Settings) -> list[Finding]:
    try:
        return await topics.compare(cluster, settings)
    except TopicError as error:
        return [Finding("error", CHECK, str(error), topics.DESCRIBE)]


async def _coordinators(cluster: Cluster, settings: Settings) -> list[Finding]:
    """Whether the groups and transactions may be used. That writing is allowed shows only when something is written."""
    group = settings.worker.app_id
    transaction = settings.bridge_transactional_id
    findings = []
    for kind, name, operations in (("group", group, "Read"), ("transactional id", transaction, "Write and Describe")):
        if (kind == "group") or settings.delivery == "exactly_once":
            refusal = await cluster.coordinator_refusal(name, transactional=kind != "group")
            if refusal:
                remedy = f"give the Kafka user {operations} on the {kind} {name}"
                findings.append(Finding("error", CHECK, f"the {kind} {name} may not be used: {refusal}", remedy))
    return findings or [Finding("ok", CHECK, "consumer group and transactions may be used")]


async def _reading(settings: Settings) -> Finding:
    """Whether every topic that is seen may be read: a fetch at its end."""
    try:
        async with reader(settings) as kafka:
            names = [settings.topic(topic.name) for topic in topology.TOPICS]
            seen = [name for name in names if kafka.exists(name)]
            if not seen:
                return Finding("info", CHECK, "reading could not be tried: no topic is seen")
            await kafka.try_fetch([partition for name in seen for partition in kafka.partitions(name)])
    except TopicAuthorizationFailedError as error:
        return Finding(
            "error", CHECK, f"may not be read: {error}", "give the Kafka user Read on all topics of the prefix"
        )
    return Finding("ok", CHECK, f"{len(seen)} topics may be read (writing is not tried: it would leave a trace)")
