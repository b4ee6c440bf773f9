"""`topics apply` and `topics check`: the topics on the broker against their declaration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from streams import admin, topology
from streams.admin import Cluster, Found, Wanted
from streams.commands import console, errors
from streams.commands.findings import Finding, report
from streams.settings import Settings
from streams.topology import TOPICS

USUAL_LIMIT: Final = 1_048_588
"""Kafka's default of `max.message.bytes`."""
ENVELOPE: Final = 64 << 10
"""Keys, headers, a row's other fields and its history, whose texts are cut much shorter."""
DESCRIBE = "give it Describe and DescribeConfigs on all topics of the prefix"
APPLY = "run: bullmq-streams topics apply"


async def check(settings: Settings, *, as_json: bool) -> int:
    """Compare; returns the exit code."""
    with errors.kafka(settings):
        async with admin.cluster(settings) as cluster:
            findings = await compare(cluster, settings)
    return report(findings, as_json=as_json)


async def apply(settings: Settings, *, as_json: bool) -> int:
    """Create what is missing, correct what can be corrected, say what is left; returns the exit code."""
    with errors.kafka(settings):
        async with admin.cluster(settings) as cluster:
            actions = await correct(cluster, settings)
            findings = await compare(cluster, settings)
    if not as_json:
        for action in actions:
            console.line(("+ ", "green"), (action, ""))
    return report(findings, as_json=as_json, actions=actions)


async def compare(cluster: Cluster, settings: Settings) -> list[Finding]:
    """One finding for each topic that is right, and one for each difference."""
    topics = admin.wanted(settings)
    found = await cluster.describe(topic.name for topic in topics)
    missing = [topic.name for topic in topics if topic.name not in found]
    hidden = await cluster.hidden(missing) if missing else set()
    findings: list[Finding] = []
    for topic in topics:
        if topic.name in hidden:
            findings.append(Finding("error", topic.name, "may not be described by this Kafka user", DESCRIBE))
            continue
        differences = list(_differences(topic, found.get(topic.name)))
        findings.extend(differences or [Finding("ok", topic.name, _describe(topic))])
    findings.extend(judge_sizes(settings, _limits(topics, found)))
    return findings


def _limits(topics: Iterable[Wanted], found: Mapping[str, Found]) -> dict[str, int]:
    """`max.message.bytes` by short name, of the topics that are there."""
    configs = {
        short.name: found[topic.name].config for short, topic in zip(TOPICS, topics, strict=True) if topic.name in found
    }
    limits = {name: _whole(config.get("max.message.bytes")) for name, config in configs.items()}
    return {name: limit for name, limit in limits.items() if limit is not None}


async def correct(cluster: Cluster, settings: Settings) -> list[str]:
    """Create and reconfigure; returns what was done, one line each."""
    topics = admin.wanted(settings)
    found = await cluster.describe(topic.name for topic in topics)
    missing = [topic for topic in topics if topic.name not in found]
    if missing:
        await cluster.create(missing)
    actions = [f"created {topic.name} ({_describe(topic)})" for topic in missing]
    for topic in topics:
        there = found.get(topic.name)
        changed = _changed(topic, there) if there else {}
        if there and changed:
            await cluster.configure(topic.name, there.own, changed)
            actions += [f"set {key}={value} on {topic.name}, was {there.config[key]}" for key, value in changed.items()]
    return actions


def _changed(topic: Wanted, found: Found) -> dict[str, str]:
    """Settings that are not in force as declared; lists as sets."""
    return {
        key: value
        for key, value in topic.config.items()
        if set(value.split(",")) != set(found.config.get(key, "").split(","))
    }


def _differences(topic: Wanted, found: Found | None) -> Iterator[Finding]:
    if found is None:
        yield Finding("error", topic.name, "does not exist", APPLY)
        return
    if found.partitions != topic.partitions:
        message = f"has {found.partitions} partitions, not {topic.partitions}"
        yield Finding("error", topic.name, message, _partitions_remedy(found))
    if found.replication != topic.replication:
        message = f"has replication factor {found.replication}, not {topic.replication}"
        remedy = f"set kafka.replication_factor to {found.replication}, or move it with kafka-reassign-partitions"
        yield Finding("error", topic.name, message, remedy)
    for key, value in _changed(topic, found).items():
        yield Finding("error", topic.name, f"has {key}={found.config.get(key, '')}, not {value}", APPLY)
    yield from judge_replicas(topic.name, found)


def judge_replicas(name: str, found: Found) -> Iterator[Finding]:
    """Whether what is acknowledged survives the loss of a broker, and writing goes on without one."""
    least, replicas = _whole(found.config.get("min.insync.replicas")), found.replication
    if least is None:
        return
    if least > replicas:
        message = f"has min.insync.replicas={least}, more than its {replicas} replica{'s' * (replicas != 1)}"
        yield Finding("error", name, f"{message}: nothing can be written", f"set it to {max(1, replicas - 1)}")
    elif 1 < least == replicas:
        message = f"has min.insync.replicas={least}, as many as replicas: one broker away stops all writing"
        yield Finding("warning", name, message, f"set it to {replicas - 1}")
    elif least == 1 < replicas:
        message = f"has min.insync.replicas=1 with {replicas} replicas: what one broker alone has taken can be lost"
        yield Finding("warning", name, message, f"set it to {replicas - 1} (with 3 replicas: 2)")


def judge_sizes(settings: Settings, limits: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the topics take the records that there will be. `limits` = `max.message.bytes` by short name.

    The least that all topics need is a record with two texts of `bridge.max_text_bytes` (an error stands in the event
    and in the row, beside its stack) and `ENVELOPE` for the rest; then a row always goes on, cut where it must be.
    """
    needed = least_bytes(settings)
    for topic, limit in limits.items():
        name = settings.topic(topic)
        remedy = f"set max.message.bytes of the topic to {USUAL_LIMIT} or more, or lower bridge.max_text_bytes"
        if limit < needed:
            message = f"takes records of at most {limit:,} bytes (max.message.bytes); at least {needed:,} are needed"
            yield Finding("error", name, message, remedy)
        elif limit < USUAL_LIMIT:
            message = (
                f"takes records of at most {limit:,} bytes (max.message.bytes), Kafka's default is {USUAL_LIMIT:,}"
            )
            yield Finding("warning", name, f"{message}: what is larger is cut, or set aside as too large", remedy)
    events = limits.get(topology.EVENTS, 0)
    for topic in (topology.STATUS, topology.TRANSITIONS, topology.ALERTS):
        if USUAL_LIMIT <= limits.get(topic, events) < events:
            message = (
                f"takes records of at most {limits[topic]:,} bytes, events of {events:,}: larger jobs are cut there"
            )
            yield Finding("warning", settings.topic(topic), message, f"set max.message.bytes of it to {events}")


def least_bytes(settings: Settings) -> int:
    """`max.message.bytes` that every topic needs with these settings."""
    return 2 * settings.bridge.max_text_bytes + ENVELOPE


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _partitions_remedy(found: Found) -> str:
    return (
        f"set kafka.partitions to {found.partitions} if all topics have so many; adding partitions would part a job's "
        "records, so for another number use a new kafka.topic_prefix"
    )


def _describe(topic: Wanted) -> str:
    config = ", ".join(f"{key}={value}" for key, value in topic.config.items())
    plural = "" if topic.partitions == 1 else "s"
    return f"{topic.partitions} partition{plural}, replication factor {topic.replication}, {config}"
