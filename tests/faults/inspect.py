"""At rest: read everything, hold it against each other, and wait until it agrees or the time is over."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from typing import Any, Final

from jsonschema import Draft202012Validator

from streams.core.job import escape
from streams.docs.schemas import VALUES
from streams.docs.topics import definitions
from streams.topology import EVENTS, HEALTH
from tests.faults import checks, counts
from tests.faults.application import dump
from tests.faults.processes import WORKERS
from tests.faults.stage import BUFFER_BYTES, MAX_TEXT_BYTES, Stage
from tests.faults.topics import gaps_of, is_look

MIB: Final = 1 << 20
AGAIN_S: Final = 0.5
PERMANENT: Final = frozenset({"records", "processes", "memory"})
"""Checks of what happened: nothing can make it unhappen."""
MOST_BYTES: Final = {"bridge": BUFFER_BYTES + 150 * MIB, "worker": 400 * MIB}
_DRIFT: Final = re.compile(r"^bullmq_streams_jobs_drift\{([^}]*)\} (\S+)$", re.MULTILINE)


async def problems(stage: Stage) -> dict[str, list[str]]:
    """What is wrong now, by check; empty when all is well."""
    await stage.topics.catch_up()
    told: dict[str, dict[str, Any]] = {}
    for application in stage.applications:
        told |= await dump(application.directory, stage.redis.server.port, application.queues)
    last = stage.applications[-1]
    hostile = sorted(queue for queue in stage.redis.history.streams if queue.startswith("hostile"))
    told |= await dump(last.directory, stage.redis.server.port, hostile)
    stage.redis.record()
    topics, logs = stage.topics, [log for application in stage.applications for log in application.logs]
    found = {
        "rows": checks.rows(topics.rows, told, MAX_TEXT_BYTES),
        "forgotten": checks.forgotten(topics.rows, told, logs, stage.redis.history, topics.entries),
        "chains": checks.chains(topics.transitions, topics.rows),
        "alerts": checks.alerts(topics.alerts, topics.rows, told, topics.transitions, logs, topics.gone),
        "entries": checks.entries(stage.redis.history, topics.entries, gaps_of(topics.health), stage.refused),
        "records": topics.broken + dead_letters(stage) + schemas(stage),
        "refused": refused(stage),
        "drift": drift(stage),
        "processes": list(stage.processes.ended),
        "memory": memory(stage),
    }
    return {name: lines for name, lines in found.items() if lines}


def dead_letters(stage: Stage) -> list[str]:
    """Only what is hostile may be set aside."""
    return [
        f"{each['place']}: {each['key']!r} set aside as {each.get('dlq_reason')}: {each.get('dlq_error', '')[:200]}"
        for each in stage.topics.dead
        if not each["key"].startswith("default/hostile")
    ]


def schemas(stage: Stage) -> list[str]:
    """Samples of all records against the published schemas."""
    wrong = []
    for topic, value in stage.topics.samples:
        found = [next(iter(_validator(name).iter_errors(value)), None) for name in names(topic, value)]
        if not found:
            wrong.append(f"{topic}: type {value.get('type')!r} is not published ({value!r:.200})")
        elif (error := found[0]) is not None and None not in found:
            where = "/".join(map(str, error.absolute_path))
            wrong.append(
                f"{topic} {value.get('queue')}/{value.get('job_id') or value.get('id')}: {where}: {error.message:.200}"
            )
    return wrong


def names(topic: str, value: dict[str, Any]) -> list[str]:
    """The published shapes of which the value may be one."""
    if topic == EVENTS:
        return ["Observation" if is_look(value) else "Entry"]
    shapes = [shape.__name__ for shape in VALUES[topic]]
    if topic != HEALTH:
        return shapes
    return [name for name in shapes if _definitions()[name]["properties"]["type"].get("const") == value.get("type")]


@functools.cache
def _definitions() -> dict[str, Any]:
    return definitions()


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": _definitions()}})


def refused(stage: Stage) -> list[str]:
    """Queues that nobody can read are told of, by name."""
    said = [str(each.get("queue")) for each in stage.topics.health if each["type"] == "refused"]
    with stage.redis.direct as client:
        there = [mark for mark, key in stage.refused.items() if client.exists(key)]
    return [
        f"queue with {mark!r} in its name: cannot be read, and no `refused` on health names it (there are {len(said)})"
        for mark in there
        if not any(mark in queue for queue in said)
    ]


def drift(stage: Stage) -> list[str]:
    """The product's own word: its table equals BullMQ's counts. The metric is one worker's that has all partitions."""
    found = [(name, *each) for name in WORKERS for each in _DRIFT.findall(stage.processes.metrics(name))]
    told = [f"{name}: jobs_drift{{{labels}}} is {value}, expected 0" for name, labels, value in found if float(value)]
    told += counts.drift(stage.topics.health)
    return [line for line in told if not any(queue in line for queue in twice(stage))] if told else []


def twice(stage: Stage) -> list[str]:
    """Hostile queues in whose list an id stands twice, as metrics and records name them: Redis counts it twice."""
    with stage.redis.direct as client:
        lists = {
            queue: client.lrange(f"bull:{queue}:wait", 0, -1)
            for queue in stage.redis.history.streams
            if queue.startswith("hostile") and client.type(f"bull:{queue}:wait") == b"list"
        }
    bad = [queue for queue, ids in lists.items() if len(set(ids)) < len(ids)]
    return [name for queue in bad for name in (f'queue="{queue}"', f"/{escape(queue)}:")]


def memory(stage: Stage) -> list[str]:
    return [
        f"{name}: had {peak / MIB:.0f} MiB, expected at most {MOST_BYTES[name.partition('-')[0]] / MIB:.0f}"
        for name, peak in stage.processes.peaks.items()
        if peak > MOST_BYTES[name.partition("-")[0]]
    ]


async def settled(stage: Stage, within_s: float) -> dict[str, list[str]]:
    """The problems that are left after so long, or once nothing is left that time could mend."""
    end = time.monotonic() + within_s
    while True:
        found = await problems(stage)
        if not found.keys() - PERMANENT or time.monotonic() > end:
            return found
        await asyncio.sleep(AGAIN_S)


def report(found: dict[str, list[str]]) -> str:
    """Everything that is wrong, in words. Ends of logs keep their lines."""
    found = {**found, "processes": [line for text in found.get("processes", ()) for line in text.splitlines()]}
    return "\n".join(f"== {name}: {len(lines)}\n{checks.some(lines)}" for name, lines in found.items() if lines)
