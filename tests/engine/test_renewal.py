"""A partition whose producer is lost: the group is asked for a new assignment, and nobody's process ends."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from streams.local import ready
from streams.local.kafka import Kafka
from tests.engine import cluster, storm
from tests.engine.fakes import until

EXPIRY_MS = 3_000
FORGETFUL = {
    "transactional.id.expiration.ms": str(EXPIRY_MS),
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}


@pytest.mark.system
async def test_an_idle_worker_goes_on_when_its_ids_have_expired(tmp_path):
    broker, prefix = Kafka(tmp_path / "broker", properties=FORGETFUL), f"engine-{uuid.uuid4().hex[:8]}"
    await asyncio.to_thread(broker.start)
    try:
        await asyncio.to_thread(ready.wait, broker)
        await cluster.create(broker.bootstrap, prefix)
        load, group = cluster.Load(prefix), storm.Workers(broker.bootstrap, prefix, {"linger_s": 0.0}, tmp_path)
        await group.start()
        log = group.logs / "worker-1.log"
        await until(lambda: "STARTED" in log.read_text(), 60)
        await load.send(broker.bootstrap, 1_000)
        await cluster.drained(broker.bootstrap, prefix, 60)
        await asyncio.sleep(2 * EXPIRY_MS / 1_000 + 1)  # nothing tells that an id was dropped
        await load.send(broker.bootstrap, 1_000)
        await cluster.drained(broker.bootstrap, prefix, 60)
        assert "asking the group for a new assignment" in log.read_text()
        assert len(list(group.logs.glob("worker-*.log"))) == 1, "the same process all along"
        verdict = await cluster.judge(broker.bootstrap, load)
        assert verdict.exact, verdict
        await group.stop()
    finally:
        await asyncio.to_thread(broker.process.stop)
