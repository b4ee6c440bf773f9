"""`topics apply` and `topics check`: the topics on the broker against their declaration."""

from __future__ import annotations

from collections.abc import Iterator

from streams import admin
from streams.admin import Cluster, Found, Wanted
from streams.commands import console, errors
from streams.commands.findings import Finding, report
from streams.settings import Settings

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
    return findings


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


def _partitions_remedy(found: Found) -> str:
    return (
        f"set kafka.partitions to {found.partitions} if all topics have so many; adding partitions would part a job's "
        "records, so for another number use a new kafka.topic_prefix"
    )


def _describe(topic: Wanted) -> str:
    config = ", ".join(f"{key}={value}" for key, value in topic.config.items())
    plural = "" if topic.partitions == 1 else "s"
    return f"{topic.partitions} partition{plural}, replication factor {topic.replication}, {config}"
