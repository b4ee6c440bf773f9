"""How walks and comparisons go on from turn to turn."""

from __future__ import annotations

import pytest

from streams import wire
from streams.bridge.bullmq import Keys
from streams.bridge.health import Health
from streams.bridge.metrics import NoMetrics
from streams.bridge.publish import Chunk
from streams.bridge.sequencer import Gap, Taken
from streams.bridge.stream import Look, Stream
from streams.bridge.walk import Begin
from streams.bridge.walking import walk_on


class Counted(NoMetrics):
    def __init__(self) -> None:
        self.counts: dict[str, float] = {}

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        key = f"{name}:{labels['reason']}"
        self.counts[key] = self.counts.get(key, 0) + amount


def turn(own: Stream, taken: Taken | None = None) -> tuple[list[tuple[str, str]], Counted]:
    chunk, metrics = Chunk(), Counted()
    walk_on(own, taken or Taken(), chunk, Health(NoMetrics()), metrics)
    values = [wire.loads(record.value) for record in chunk.records]
    return [(value["status"], value["reason"]) for value in values], metrics


@pytest.fixture
def own() -> Stream:
    return Stream("s", "q", Keys("bull", "q"), position=(5, 0))


@pytest.mark.parametrize(
    ("cause", "reason"), [("trimmed", "gap"), ("reset", "gap"), ("failover", "failover"), ("rewound", "failover")]
)
def test_each_gap_is_followed_by_a_comparison(own, cause, reason):
    _, metrics = turn(own, Taken(gaps=[Gap((1, 0), (2, 0), 3, cause)]))
    assert metrics.counts == {f"bridge_snapshots_total:{reason}": 1}
    assert own.walks == [own.comparisons.running]
    assert own.dirty


def test_it_is_told_from_its_first_page_to_its_last_look(own):
    own.comparisons.ask("first_sight")
    assert turn(own)[0] == []
    walk = own.walks[0]
    assert turn(own)[0] == []
    walk.begin = Begin(0, (5, 0), 7)
    assert turn(own)[0] == [("started", "first_sight"), ("progress", "first_sight")]
    assert turn(own)[0] == []
    walk.places.clear()
    own.looks.append(Look((6, 0), (6, 0), "1", "snapshot", 7, found=False, where=None, queue_paused=False))
    assert turn(own)[0] == []
    own.looks.clear()
    own.position = (6, 0)
    own.comparisons.ask("gap")
    own.comparisons.ask("drift")
    assert turn(own)[0] == [("finished", "first_sight")]
    assert list(own.walks[0].requests.values()) == ["gap", "drift"]


def test_a_pause_takes_the_place_of_the_one_before_and_leaves_a_comparison_alone(own):
    own.comparisons.ask("drift")
    turn(own)
    turn(own, Taken(pause_changes=[True]))
    assert [walk.reason for walk in own.walks] == ["snapshot", "pause"]
    turn(own, Taken(pause_changes=[True, False]))
    assert [walk.reason for walk in own.walks] == ["snapshot", "resume"]
    own.walks[1].places.clear()
    turn(own)
    assert [walk.reason for walk in own.walks] == ["snapshot"]
