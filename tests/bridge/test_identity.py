"""Which server the connections of a source have got, and what follows from it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from streams.bridge.history import Server
from streams.bridge.identity import Identity, Reach, ReplicaError
from streams.bridge.link import Link
from streams.bridge.outage import Outage

MASTER = Server("a", "ra", 10, role="master")
OTHER = Server("b", "rb", 10, "ra", 11, "master")
REPLICA = replace(MASTER, role="slave")


@dataclass
class Told:
    """An identity of three links, and what it has told."""

    allow_replica: bool = False
    changed: int = 0
    renamed: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.identity = Identity(allow_replica=self.allow_replica, changed=self._change, renamed=self.renamed.append)
        self.links = self.identity.links = [Link("redis://localhost:1") for _ in range(3)]
        self.connect(0, MASTER)
        self.connect(1, MASTER)
        self.connect(2, MASTER)
        self.changed = 0
        for link in self.links:
            link._outdated = False

    def _change(self) -> None:
        self.changed += 1

    def connect(self, number: int, server: Server) -> None:
        self.identity.connected(self.links[number], server, reads=number == 0)

    @property
    def outdated(self) -> list[bool]:
        return [link._outdated for link in self.links]


def test_the_same_server_is_no_news_but_to_whoever_reads_entries():
    told = Told()
    told.connect(1, MASTER)
    assert (told.changed, told.outdated) == (0, [False] * 3)
    told.connect(0, MASTER)
    assert (told.changed, told.outdated) == (1, [False] * 3)


def test_another_server_is_another_for_all_connections(monkeypatch):
    told = Told()
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    told.connect(1, OTHER)
    assert (told.changed, told.outdated, told.identity.server) == (1, [True, False, True], OTHER)


def test_an_address_that_leads_here_and_there_is_not_used_at_once(monkeypatch):
    told = Told()
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    told.connect(1, OTHER)
    with pytest.raises(ConnectionError, match="different servers"):
        told.connect(2, MASTER)


@pytest.mark.parametrize("server", [replace(MASTER, replid="r2", replid2="rb"), replace(MASTER, run_id="c")])
def test_demoted_and_promoted_again_or_restarted_it_is_another(server, monkeypatch):
    told = Told()
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    told.connect(1, server)
    assert told.changed == 1


def test_a_replica_is_refused_at_once_and_when_it_becomes_one():
    told = Told()
    with pytest.raises(ReplicaError, match="allow_replica"):
        told.connect(1, REPLICA)
    assert told.identity.server == MASTER
    with pytest.raises(ReplicaError):
        told.identity.heard(REPLICA)
    assert (told.changed, told.outdated) == (1, [True] * 3)


def test_a_replica_is_read_where_that_is_allowed():
    told = Told(allow_replica=True)
    told.connect(1, REPLICA)
    told.identity.heard(REPLICA)
    assert (told.changed, told.identity.server.is_replica) == (0, True)


def test_over_an_open_connection_a_first_replica_gives_another_name_and_a_promotion_another_history():
    told = Told()
    told.identity.heard(replace(MASTER, run_id="", offset=20))
    assert (told.changed, told.renamed, told.identity.server) == (0, [], replace(MASTER, offset=20))
    told.identity.heard(Server("", "r2", 30, "0" * 40, role="master"))
    assert (told.changed, [server.replid for server in told.renamed]) == (0, ["r2"])
    assert told.identity.server.run_id == "a"
    told.identity.heard(Server("", "r3", 30, "rb", 31, role="master"))
    assert (told.changed, len(told.renamed)) == (1, 1)


async def test_a_replica_is_there_and_not_to_be_used(monkeypatch):
    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", at_once)
    outage = Outage()
    reach = Reach(outage, "main")
    assert outage.missing == ["redis"]
    await reach.wait(ReplicaError("a replica"), "pump")
    assert outage.missing == ["replica"]
    await reach.wait(ConnectionError("away"), "reader")
    assert outage.missing == ["redis", "replica"]
    reach.over("pump")
    reach.over("reader")
    assert outage.missing == []
