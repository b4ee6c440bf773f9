"""Three brokers on the jars of `streams.local`: replication 3, `min.insync.replicas` 2, each behind a proxy of its own.

The product is given the proxies, and they are what the brokers advertise; brokers speak to each other, and the checks
to them, past the proxies.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest

from streams.local.errors import LocalStackError
from streams.local.kafka import Kafka
from streams.local.process import HOST, ports
from tests.faults.proxy import Proxy, Thread

BROKERS: Final = 3
HEAP_MB: Final = 256
READY_S: Final = 90.0
# A broker that is gone or frozen is out of the in-sync replicas after 3 s, not 9 or 30; an old life of a killed one
# has ended by then, too. Leaders go home within 5 s, so that each of them is moved twice.
PROPERTIES: Final = {
    "min.insync.replicas": "2",
    "default.replication.factor": "3",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.state.log.num.partitions": "3",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.fetch.timeout.ms": "2000",
    "leader.imbalance.check.interval.seconds": "5",
    "leader.imbalance.per.broker.percentage": "0",
    "controlled.shutdown.enable": "true",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT",
}


class Broker(Kafka):
    """One of several: the quorum is named in its settings, and clients find it behind `proxy`."""

    def __init__(self, directory: Path, number: int, proxy: Proxy, given: dict[str, str], cluster: str) -> None:
        super().__init__(directory, heap_mb=HEAP_MB, properties=given)
        self.number, self.proxy, self._cluster = number, proxy, cluster

    def _settings(self, found: Any) -> dict[str, str]:
        settings = super()._settings(found)
        del settings["controller.quorum.bootstrap.servers"]  # the voters are named instead
        return settings

    def _format(self, java: list[str], file: Path) -> None:
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={self._cluster}", "--config", str(file)]
        done = subprocess.run([*java, *tool], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LocalStackError(f"Kafka cannot format its storage:\n{(done.stdout + done.stderr)[-2000:]}")


class Cluster:
    """The three of them in `directory`."""

    def __init__(self, directory: Path, thread: Thread) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        names = ("kafka", "controller", "client", "proxy")
        folders = [directory / f"broker-{number}" for number in range(1, BROKERS + 1)]
        found = [ports(folder, dict.fromkeys(names, 0)) for folder in folders]
        voters = ",".join(f"{n}@{HOST}:{each['controller']}" for n, each in enumerate(found, 1))
        self.brokers = []
        for number, (folder, each) in enumerate(zip(folders, found, strict=True), 1):
            inner = f"PLAINTEXT://{HOST}:{each['kafka']}"
            given = {
                **PROPERTIES,
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "listeners": f"{inner},CONTROLLER://{HOST}:{each['controller']},CLIENT://{HOST}:{each['client']}",
                "advertised.listeners": f"{inner},CLIENT://{HOST}:{each['proxy']}",
            }
            proxy = Proxy(thread, each["proxy"], each["client"])
            self.brokers.append(Broker(folder, number, proxy, given, cluster))

    @property
    def bootstrap(self) -> str:
        """What the product is given."""
        return ",".join(f"{HOST}:{broker.proxy.port}" for broker in self.brokers)

    @property
    def direct(self) -> str:
        """The same brokers past the proxies."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Start all; returns when a transaction has reached all replicas. Raises LocalStackError."""
        for broker in self.brokers:
            broker.proxy.start()
            broker.start()
        end = time.monotonic() + READY_S
        while not self._serves():
            for broker in self.brokers:
                broker.process.require_alive()
            if time.monotonic() > end:
                raise LocalStackError(f"three brokers do not serve; the first says:\n{self.brokers[0].process.tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        for broker in self.brokers:  # a controlled end would wait for a quorum that is just leaving
            broker.process.thaw()
            broker.process.kill()
            broker.proxy.stop()

    def heal(self) -> None:
        """All run, nobody is frozen, no network is bad; returns before they have found each other again."""
        for broker in self.brokers:
            broker.proxy.heal()
            broker.process.thaw()
            if broker.process.pid is None:
                broker.start()

    def _serves(self) -> bool:
        with quiet():
            try:
                asyncio.run(_transaction(self.direct))
            except Exception:  # noqa: BLE001 -- the clients raise many kinds while brokers come up
                return False
        return True


async def in_sync(direct: str, prefix: str) -> bool:
    """Whether each partition under a prefix has a leader and all its replicas."""
    admin = AIOKafkaAdminClient(bootstrap_servers=direct, request_timeout_ms=5_000)
    with quiet():
        try:
            await admin.start()
            names = [name for name in await admin.list_topics() if name.startswith((f"{prefix}.", "__"))]
            topics = await admin.describe_topics(names)
        except Exception:  # noqa: BLE001 -- as in `_serves`
            return False
        finally:
            await admin.close()
    parts = [part for topic in topics for part in topic["partitions"]]
    return bool(parts) and all(part["leader"] >= 0 and len(part["isr"]) == BROKERS for part in parts)


async def move_leaders(direct: str, prefix: str, dice: random.Random) -> int:
    """Another order of replicas for each partition: the first of them becomes its leader within some seconds."""
    admin = AIOKafkaAdminClient(bootstrap_servers=direct, request_timeout_ms=10_000)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.startswith((f"{prefix}.", "__"))]
        wanted: list[Any] = []
        for topic in await admin.describe_topics(names):
            moved: list[Any] = []
            for part in topic["partitions"]:
                replicas = list(part["replicas"])
                dice.shuffle(replicas)
                moved.append((part["partition"], replicas, {}))
            wanted.append((topic["topic"], moved, {}))
        request = AlterPartitionReassignmentsRequest(10_000, wanted, {})
        await admin._client.send(admin._client.get_random_node(), request)
    finally:
        await admin.close()
    return sum(len(topic[1]) for topic in wanted)


async def _transaction(bootstrap: str) -> None:
    """Serving means: all replicas take a transaction."""
    probe = f"probe-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    async with asyncio.timeout(20):
        await admin.start()
        try:
            if len((await admin.describe_cluster())["brokers"]) < BROKERS:
                raise LocalStackError("not all brokers are there")
            await admin.create_topics([NewTopic(probe, 1, BROKERS)])
            producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=probe)
            async with producer, producer.transaction():
                await producer.send_and_wait(probe, b"ready")
            await admin.delete_topics([probe])
        finally:
            await admin.close()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The Kafka client logs each refused connection as an error."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
