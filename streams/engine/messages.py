"""Faust's message and topic, for events that are whole fetches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faust
from faust.types.tuples import TP, ConsumerMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.engine.api import ConsumerRecord


class BatchMessage(ConsumerMessage):
    """The records of one fetch of one partition. `offset` is that of the last one."""

    __slots__ = ("records",)

    records: Sequence[ConsumerRecord]

    @classmethod
    def of(cls, tp: TP, records: Sequence[ConsumerRecord], generation: int) -> BatchMessage:
        """A message of `records` (at least one), fetched in the given generation of the group."""
        last = records[-1]
        message = cls(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            None,  # headers, key, value, checksum: the records have theirs
            None,
            None,
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )
        message.records = records
        return message


class BatchTopic(faust.Topic):
    """A topic whose events carry undecoded records; who reads `event.message.records` decodes them."""

    def _compile_decode(self) -> Any:
        create_event = self.app.create_event

        async def decode(message: BatchMessage, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's
            return create_event(None, message.records, None, message)

        self.decode = decode
        return decode
