"""Kafka and Redis together in one folder: `up` starts what does not run, `down` stops what does.

The folder keeps data and ports: `up` after `down` goes on where it was. Remove the folder to begin anew.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.local import ready
from streams.local.jars import Say
from streams.local.kafka import SMALL_HEAP_MB, Kafka
from streams.local.process import Process
from streams.local.redis import Redis


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one folder; None for one not asked for."""

    directory: Path
    kafka: Kafka | None
    redis: Redis | None

    @property
    def bootstrap(self) -> str:
        """Kafka's `host:port`; empty without a Kafka."""
        return self.kafka.bootstrap if self.kafka else ""

    @property
    def redis_url(self) -> str:
        """Redis' URL; empty without a Redis."""
        return self.redis.url if self.redis else ""


def up(
    directory: Path,
    *,
    kafka: bool = True,
    redis: bool = True,
    kafka_port: int = 0,
    redis_port: int = 0,
    jvm_heap_mb: int = SMALL_HEAP_MB,
    properties: Mapping[str, str] | None = None,
    say: Say = lambda _: None,
) -> Servers:
    """Start the servers asked for and return when they serve. Those that already run stay as they are.

    `say` is told what takes long. Raises LocalStackError, having stopped what it started. Blocks for seconds, the first
    time ever for half a minute, and runs an event loop of its own: in a coroutine, call it in a thread.
    """
    directory = directory.resolve()
    servers = Servers(
        directory,
        _kafka(directory, kafka_port, jvm_heap_mb, properties, say) if kafka else None,
        _redis(directory, redis_port) if redis else None,
    )
    with _one_at_a_time(directory):
        _start([server for server in (servers.redis, servers.kafka) if server], say)
    return servers


def down(directory: Path, say: Say = lambda _: None) -> None:
    """Stop the servers of the folder, and nothing else; the data stays. None running is fine."""
    directory = directory.resolve()
    if not directory.exists():
        return
    with _one_at_a_time(directory):
        for process in (Process("kafka", directory / "kafka"), Process("redis", directory / "redis")):
            if process.pid is not None:
                say(f"stopping {process.name} (process {process.pid})")
            process.stop()


def _kafka(directory: Path, port: int, heap_mb: int, properties: Mapping[str, str] | None, say: Say) -> Kafka:
    return Kafka(directory / "kafka", port=port, heap_mb=heap_mb, properties=properties, say=say)


def _redis(directory: Path, port: int) -> Redis:
    return Redis(directory / "redis", port=port)


def _start(servers: Sequence[Kafka | Redis], say: Say) -> None:
    started: list[Kafka | Redis] = []
    try:
        for server in servers:
            if server.process.pid is None:
                say(f"starting {server.process.name} in {server.process.directory}")
                started.append(server)  # before, so that an interrupt at any time leaves none behind
                server.start()
        ready.wait(*servers)
    except BaseException:
        for server in started:
            server.process.stop()
        raise


@contextlib.contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Two brokers on one data folder damage it, and Kafka itself notices too late."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
