"""`delivery = "at_least_once"`: kills repeat records, and whoever drops repeated `ce_id`s has each once."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from streams.topology import full_name
from tests.system import oracle
from tests.system.applications import Applications, kill_now_and_then, revive, rows_agree
from tests.system.support import Line

SEED = 11

pytestmark = [pytest.mark.system, pytest.mark.node]


async def firsts(line: Line, topic: str) -> tuple[list[Any], int]:
    """The values of a topic without repeats, in order, and how many repeats there were; those have the same key."""
    seen: dict[bytes, bytes] = {}
    found, repeated = [], 0
    for record in await oracle.read_all(line.bootstrap, full_name(line.prefix, topic)):
        ce_id = dict(record.headers)["ce_id"]
        if ce_id in seen:
            assert seen[ce_id] == record.key
            repeated += 1
        else:
            seen[ce_id] = record.key
            found.append(json.loads(record.value))
    return found, repeated


async def test_repeats_have_the_same_id_and_nothing_is_missing(line, node_bullmq):
    line.env["BULLMQ_STREAMS_DELIVERY"] = "at_least_once"
    apps = Applications(line, {version: str(node_bullmq(version)) for version in ("v5", "v6")}, 250, SEED)
    await apps.prepare()
    chaos = asyncio.create_task(kill_now_and_then(line, random.Random(SEED)))
    await apps.run()
    chaos.cancel()
    await asyncio.gather(chaos, return_exceptions=True)
    revive(line)
    rows = await rows_agree(apps, line)
    events, events_repeated = await firsts(line, "events")
    transitions, transitions_repeated = await firsts(line, "transitions")
    alerts, _ = await firsts(line, "alerts")
    print(f"{events_repeated} events and {transitions_repeated} transitions repeated")  # noqa: T201 - what -s is for
    assert oracle.published_once(events, await apps.stream_ids()) == []
    assert oracle.broken_chains(transitions, rows) == []
    failed = {(t["queue"], t["job_id"], t["life"]) for t in transitions if t["to"] == "failed" and t["from"]}
    told = {(a["queue"], a["job_id"], a["life"]) for a in alerts if (a["rule"], a["status"]) == ("failed", "firing")}
    assert told == failed
