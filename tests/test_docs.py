from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streams.bridge.run import run
from streams.docs.__main__ import main
from streams.docs.pages import PAGES
from streams.telemetry.names import METRICS
from tests.bridge.support import Setup, running

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name):
    assert (ROOT / name).read_text("utf-8") == PAGES[name](), "run: python -m streams.docs"


def test_the_generator_writes_all_pages(tmp_path):
    main(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")) == sorted(PAGES)


def test_the_alert_rules_use_metrics_that_exist():
    text = (ROOT / "config/alerts.example.yml").read_text("utf-8")
    known = {metric.full_name for metric in METRICS} | {
        f"{metric.full_name}_bucket" for metric in METRICS if metric.kind == "histogram"
    }
    expressions = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?: {10}.+\n)*)", text)
    used = set(re.findall(r"bullmq_streams_\w+", "".join(expressions)))
    assert used
    assert used <= known


def test_the_readme_has_every_state():
    (table,) = re.findall(r"## The seven states\n(.*?)\n## ", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert re.findall(r"^\| `(\w+)`", table.partition("|---")[2], re.MULTILINE) == [
        "waiting", "active", "delayed", "paused", "stuck", "completed", "failed",
    ]  # fmt: skip


def documented_rights() -> list[str]:
    """The words of the line that operations.md gives for the Redis user."""
    (block,) = re.findall(r"```\n(ACL SETUSER .*?)```", (ROOT / "docs/operations.md").read_text("utf-8"), re.DOTALL)
    return str(block).split()


@pytest.mark.system
async def test_the_bridge_needs_no_more_rights_than_documented(kafka, prefix, secure_redis):
    """A user of the documented line, as written, over TLS: entries, hashes, snapshot and a look at a job."""
    with secure_redis.client() as admin:
        admin.execute_command(*documented_rights())
        admin.hset(f"bull:{prefix}:meta", "opts.maxLenEvents", "10000")
        admin.hset(f"bull:{prefix}:1", mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1", "ats": "1"})
        admin.lpush(f"bull:{prefix}:active", "1")
        for event in ("added", "waiting", "active"):
            admin.xadd(f"bull:{prefix}:events", {"event": event, "jobId": "1"})
    setup = Setup(kafka, secure_redis.url("bridge", "PASSWORD"), prefix, prefix)
    await setup.make_topics()
    async with running(run, setup.settings()), AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await setup.events(4)
        await setup.probe(producer, "1")
        events = await setup.events(5)
    assert [(event["event"], event.get("reason")) for event in events] == [
        ("added", None), ("waiting", None), ("active", None), ("observed", "snapshot"), ("observed", "probe"),
    ]  # fmt: skip
    assert all(event["enriched"] for event in events)
    assert (events[-1]["where"], events[-1]["lock_ttl_ms"]) == ("active", None)
