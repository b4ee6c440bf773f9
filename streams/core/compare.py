"""What a comparison of a queue asks about: the rows that its walk over BullMQ's places has not touched."""

from __future__ import annotations

from typing import Final, NamedTuple

from streams.core import alerts
from streams.core import lifecycle as lc
from streams.core.events import order_of
from streams.core.row import NOTES, Row

FAILOVER: Final = "failover"


class Start(NamedTuple):
    """Where a comparison began, as its `started` says on `health`: the place of a look made at that moment."""

    epoch: int
    stream_id: str
    observed_at: int


def is_touched(row: Row, start: Start) -> bool:
    """Whether the row was heard of since the comparison began: an entry behind it, or a look of it or after it."""
    epoch: int = row.get("epoch", 0)
    if epoch != start.epoch:
        return epoch > start.epoch
    return order_of(row["position"], row["observed_at"]) >= order_of(start.stream_id, start.observed_at)


def must_ask(row: Row, start: Start, *, reason: str, common_id: str | None = None) -> bool:
    """Whether a row that stands in the table when a comparison has finished is to be asked about.

    So are rows that the walk did not touch and that are unfinished or have an open alert: it looks at every job that is
    in a place. After a failover so are finished ones whose last entry stands behind `common_id`, the newest id that
    both histories have (None: there is none), since Redis may have undone it.
    """
    if is_touched(row, start):
        return False
    if row["state"] not in lc.FINISHED or alerts.OPEN in row[NOTES]:
        return True
    return reason == FAILOVER and _is_behind(row, start, common_id)


def _is_behind(row: Row, start: Start, common_id: str | None) -> bool:
    if row.get("epoch", 0) >= start.epoch:
        return False
    return common_id is None or order_of(row["position"], None) > order_of(common_id, None)
