"""Committed offsets out of answers as brokers give them, through aiokafka's own coordinator."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from streams.engine import offsets

TP = TopicPartition("t", 0)
FOUND = [("t", [(0, 7, "", 0)])]
NONE = [("t", [(0, -1, "", 0)])]


class Client:
    """A broker that answers in this order."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def send(self, node: int, request: Any, group: Any = None) -> Any:  # noqa: ARG002 - aiokafka's
        return self.answers.pop(0)


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """aiokafka's own, with the product's check and no broker."""
    monkeypatch.setattr(GroupCoordinator, "_send_req", offsets.send_checked)
    made: Any = object.__new__(GroupCoordinator)
    made.coordinator_id, made.group_id, made._retry_backoff_ms, made.deaths = 1, "g", 1, 0

    async def known() -> None:
        made.coordinator_id = 1

    def dead() -> None:
        made.deaths += 1

    made.ensure_coordinator_known, made.coordinator_dead = known, dead
    return made


@pytest.mark.parametrize(("code", "deaths"), [(14, 0), (15, 1), (16, 1)])
async def test_a_refusal_as_a_whole_is_asked_again(coordinator, code, deaths):
    coordinator._client = Client(OffsetFetchResponse_v3(0, [], code), OffsetFetchResponse_v3(0, FOUND, 0))
    assert await coordinator.fetch_committed_offsets([TP]) == {TP: OffsetAndMetadata(7, "")}
    assert coordinator.deaths == deaths


async def test_a_refusal_for_good_is_raised(coordinator):
    coordinator._client = Client(OffsetFetchResponse_v3(0, [], 30))
    with pytest.raises(errors.GroupAuthorizationFailedError):
        await coordinator.fetch_committed_offsets([TP])


@pytest.mark.parametrize("answer", [OffsetFetchResponse_v3(0, NONE, 0), OffsetFetchResponse_v1(NONE)])
async def test_where_nothing_was_committed_nothing_is_found(coordinator, answer):
    coordinator._client = Client(answer)
    assert await coordinator.fetch_committed_offsets([TP]) == {}


async def test_stock_takes_the_refusal_for_nothing_committed(coordinator, monkeypatch):
    """Why this is here: once it fails, aiokafka looks itself, and `offsets` may go."""
    monkeypatch.setattr(GroupCoordinator, "_send_req", offsets._send)
    coordinator._client = Client(OffsetFetchResponse_v3(0, [], 14))
    assert await coordinator.fetch_committed_offsets([TP]) == {}
