"""A Redis with an append-only file that may be restarted, emptied, set back, or replaced by a copy that lags.

Who reads and who writes each reach it through a proxy, so that it may be another process from one moment to the next.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import hiredis
import redis

from streams.local.errors import LocalStackError
from streams.local.process import HOST, ports
from streams.local.redis import Redis
from tests.faults.history import History, queue_of
from tests.faults.proxy import Proxy, Thread

# With appendfsync no every write is in the file before its reply is sent: with everysec it may wait for the disk.
# One file for ever: rewriting would lose what the recorder has not read.
OPTIONS: Final = (
    *("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"),
    *("--save", "", "--repl-diskless-sync-delay", "0", "--repl-timeout", "60"),
)
WITHOUT_FILE: Final = ("--appendonly", "no", "--save", "")
READY_S: Final = 20.0
USER: Final = "bridge"
PASSWORD: Final = "reads-only"
# What docs/operations.md gives to the bridge, and what its next version asks for besides.
RIGHTS: Final = (
    *("+xread", "+xrange", "+xinfo|stream", "+hgetall", "+hmget", "+hstrlen", "+lpos", "+lrange", "+llen", "+zscore"),
    *("+zrange", "+zcard", "+pttl", "+exists", "+type", "+scan", "+time", "+multi", "+exec", "+info", "+role", "+ping"),
    *("+hello", "+auth", "+client|setname", "+client|id", "+select"),
)
CHUNK: Final = 1 << 20


class Tail:
    """The commands of an append-only file as they come, and where each ends."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path, self.offset = path, offset
        self.marks: list[tuple[float, int]] = []
        """(monotonic time, offset) at which no transaction was open."""
        self._inside = False

    def read(self) -> list[list[bytes]]:
        """All complete commands since the last time."""
        commands: list[list[bytes]] = []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while data := file.read(CHUNK):
                while not (parsed := _parse(data)):
                    more = file.read(CHUNK)
                    if not more:
                        break
                    data += more
                for command, length in parsed:
                    self.offset += length
                    self._note(command)
                    commands.append(command)
                file.seek(self.offset)
                if not parsed:
                    break
        return commands

    def _note(self, command: Sequence[bytes]) -> None:
        name = command[0].upper()
        self._inside = name == b"MULTI" or (self._inside and name != b"EXEC")
        if not self._inside:
            now = time.monotonic()
            if not self.marks or now - self.marks[-1][0] > 0.05:
                self.marks.append((now, self.offset))

    def before(self, age_s: float) -> int:
        """An offset of about so long ago."""
        at = time.monotonic() - age_s
        return max((offset for when, offset in self.marks if when <= at), default=self.marks[0][1])


def _parse(data: bytes) -> list[tuple[list[bytes], int]]:
    """Complete commands and their lengths in bytes; an incomplete one at the end is left."""
    reader = hiredis.Reader()
    reader.feed(data)
    found = []
    while (command := reader.gets()) is not False:
        found.append((command, len(f"*{len(command)}\r\n") + sum(len(f"${len(w)}\r\n") + len(w) + 2 for w in command)))
    return found


class Server:
    """The Redis of a run. `bridge` and `application` are its two proxies; `history` is what its streams were."""

    def __init__(self, directory: Path, thread: Thread) -> None:
        self.directory = directory
        found = ports(directory / "proxies", {"bridge": 0, "application": 0})
        self.bridge = Proxy(thread, found["bridge"], 1)
        self.application = Proxy(thread, found["application"], 1)
        self.history = History()
        self.lives = 0
        self.server = self._next()
        self.tail: Tail | None = None

    @property
    def url(self) -> str:
        """For the product, which may read and no more."""
        return f"redis://{USER}:{PASSWORD}@{HOST}:{self.bridge.port}/0"

    @property
    def direct(self) -> redis.Redis:
        """A client past the proxies."""
        return redis.Redis(host=HOST, port=self.server.port, socket_timeout=30)

    def start(self) -> None:
        for proxy in (self.bridge, self.application):
            proxy.start()
            proxy.refuse()
        self._serve(self.server)

    def stop(self) -> None:
        self.server.process.thaw()
        self.server.process.kill()
        for proxy in (self.bridge, self.application):
            proxy.stop()

    def heal(self) -> None:
        """It runs, its network is well, and all may be read."""
        self.server.process.thaw()
        self.allow("bull:*")
        self.bridge.heal()
        self.application.heal()

    def allow(self, *patterns: str) -> None:
        """What the bridge may read from now on."""
        with self.direct as client:
            client.execute_command("ACL", "SETUSER", USER, "resetkeys", *(f"%R~{pattern}" for pattern in patterns))

    def record(self) -> None:
        """Take over what was written since the last time."""
        if self.tail is not None:
            for command in self.tail.read():
                self.history.apply(command)

    def restart(self, *, kill: bool, away_s: float = 0.0) -> None:
        """The same server with the same data, as a crash and a supervisor would."""
        self._end(kill=kill)
        time.sleep(away_s)
        self._serve(self.server)

    def restart_empty(self) -> None:
        """A server without any data in its place."""
        self._end(kill=True)
        self.server = self._next()
        self._serve(self.server)

    def set_back(self, age_s: float) -> None:
        """Its own data of so long ago: the file is cut there, between two transactions."""
        self._end(kill=True)
        assert self.tail is not None
        cut, old, new = self.tail.before(age_s), self.server.process.directory, self._next()
        shutil.copytree(old / "appendonlydir", new.process.directory / "appendonlydir")
        name = new.process.directory / "appendonlydir" / self.tail.path.name
        with name.open("r+b") as file:
            file.truncate(cut)
        self.server = new
        self._serve(new)

    def save(self) -> Path:
        """A copy of the data as it is now, in a file of its own."""
        kept = self.directory / f"saved-{self.lives}.rdb"
        with self.direct as client:
            client.save()
        (self.server.process.directory / "dump.rdb").rename(kept)
        return kept

    def restore(self, kept: Path) -> None:
        """A server that has loaded an older file, and begins a new append-only file with that."""
        self._end(kill=True)
        new = self._next(WITHOUT_FILE)
        kept.rename(new.process.directory / "dump.rdb")
        new.start()
        _wait(new)
        with redis.Redis(host=HOST, port=new.port) as client:
            client.config_set("appendonly", "yes")
            client.config_set("appendfsync", "no")
            client.config_set("auto-aof-rewrite-percentage", "0")
        _wait_for_file(new)
        self.server = Redis(new.process.directory, options=OPTIONS)  # with its file from now on
        self._serve(self.server)

    def fail_over(self, lag_s: float) -> None:
        """A replica takes over that was cut off for the last `lag_s` seconds of the old master."""
        replica = self._next((*OPTIONS, "--replicaof", f"{HOST} {self.server.port}"))
        replica.start()
        _wait(replica)
        with redis.Redis(host=HOST, port=replica.port) as client:
            _until(lambda: client.info("replication").get("master_link_status") == "up", "the replica's first copy")
            _wait_for_file(replica)
            if lag_s:
                client.execute_command("REPLICAOF", HOST, "1")
                time.sleep(lag_s)
            self._end(kill=True)
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.server = Redis(replica.process.directory, options=OPTIONS)
        self._serve(self.server)

    def _next(self, options: Sequence[str] = OPTIONS) -> Redis:
        self.lives += 1
        directory = self.directory / f"life-{self.lives}"
        directory.mkdir(parents=True)
        return Redis(directory, options=options)

    def _end(self, *, kill: bool) -> None:
        """Nobody reaches it any more; then it ends, and its last writes are recorded."""
        for proxy in (self.bridge, self.application):
            proxy.refuse()
        self.server.process.thaw()
        self.server.process.kill() if kill else self.server.process.stop()
        self.record()

    def _serve(self, server: Redis) -> None:
        """Start it if need be; nobody reaches it before the recorder has seen what it has."""
        if server.process.pid is None:
            server.start()
        _wait(server)
        path = _wait_for_file(server)
        with redis.Redis(host=HOST, port=server.port) as client:
            rules = ("reset", "on", f">{PASSWORD}", "-@all", *RIGHTS, "%R~bull:*")
            client.execute_command("ACL", "SETUSER", USER, *rules)
        self.history.become(_contents(server))
        self.tail = Tail(path, path.stat().st_size)
        self.tail.marks.append((time.monotonic(), self.tail.offset))
        for proxy in (self.bridge, self.application):
            proxy.lead_to(server.port)
            proxy.heal()


def _contents(server: Redis) -> dict[bytes, list[tuple[bytes, list[bytes]]]]:
    """All event streams."""
    found = {}
    with redis.Redis(host=HOST, port=server.port) as client:
        for key in client.scan_iter(match="bull:*:events", count=1000, _type="stream"):
            if queue_of(key) is not None:
                raw: Any = _plain(client, key)
                found[key] = [(stream_id, pairs) for stream_id, pairs in raw]
    return found


def _plain(client: redis.Redis, key: bytes) -> Any:
    """Entries as the server sends them: a dict would lose a field named twice."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command("XRANGE", key, "-", "+")
        return connection.read_response(disable_decoding=True)
    finally:
        client.connection_pool.release(connection)


def _wait_for_file(server: Redis) -> Path:
    """The file that the server now appends to, once no rewrite is under way."""
    with redis.Redis(host=HOST, port=server.port) as client:

        def settled() -> bool:
            info = client.info("persistence")
            return (
                bool(info["aof_enabled"]) and not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]
            )

        _until(settled, "an append-only file")
    folder = server.process.directory / "appendonlydir"
    last = [line.split() for line in (folder / "appendonly.aof.manifest").read_text().splitlines()][-1]
    return folder / last[1]


def _wait(server: Redis) -> None:
    def answers() -> bool:
        server.process.require_alive()
        return server.is_ready()

    _until(answers, "an answer of Redis")


def _until(check: Any, what: str) -> None:
    end = time.monotonic() + READY_S
    while not check():
        if time.monotonic() > end:
            raise LocalStackError(f"not within {READY_S:.0f} s: {what}")
        time.sleep(0.02)
