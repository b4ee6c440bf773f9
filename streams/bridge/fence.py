"""Who holds a transactional id: the question that tells a bridge whether a newer one has taken its place.

A producer learns that it was fenced from the error of its next request, but not always: an end of transaction that
meets the takeover half way is answered with an unknown error. To open a new producer then would fence the newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from aiokafka.client import CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient

_TEXT = CompactString("utf-8")


_ENDED_BY_BROKER = ("PrepareEpochFence", "PrepareAbort", "CompleteAbort")


class Holder(NamedTuple):
    """The producer that may write under a transactional id; each one that opens it gets another epoch (or id)."""

    producer_id: int
    epoch: int
    state: str = ""
    """Of its transaction, in Kafka's words."""

    def took_over_from(self, other: Holder) -> bool:
        """Whether somebody has opened the id since `other` held it.

        The broker itself ends a transaction that lasts longer than its timeout, and counts the epoch up by one; whoever
        opens the id meanwhile counts it up as well, and leaves no aborted transaction.
        """
        if self[:2] == other[:2]:
            return False
        ended = self.producer_id == other.producer_id and self.epoch == other.epoch + 1
        return not (ended and self.state in _ENDED_BY_BROKER)


async def holder(client: AIOKafkaClient, transactional_id: str) -> Holder | None:
    """None where it cannot be known: a broker before 3.0, a missing right, an id never used.

    Raises KafkaError where the broker cannot answer now. Source: KIP-664, DescribeTransactions.
    """
    node = await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
    try:
        response = await client.send(node, _DescribeTransactions(transactional_id))
    except IncompatibleBrokerVersion:
        return None
    (found,) = response.to_object()["transaction_states"]
    error: type[KafkaError] = for_code(found["error_code"])
    if error.retriable:
        raise error
    if found["error_code"]:
        return None
    return Holder(found["producer_id"], found["producer_epoch"], found["transaction_state"])


class _DescribeTransactionsResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transaction_states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", _TEXT),
                ("transaction_state", _TEXT),
                ("transaction_timeout_ms", Int32),
                ("transaction_start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsRequest(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    FLEXIBLE_VERSION: ClassVar[bool] = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeTransactionsResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(_TEXT)), ("tags", TaggedFields))


class _DescribeTransactions(Request[_DescribeTransactionsRequest]):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[_DescribeTransactionsRequest]) -> _DescribeTransactionsRequest:
        return request_struct_class([self._transactional_id], {})
