"""What a comparison of a whole queue asks of a row: whether its looks touched it, and if not, whether to ask."""

from __future__ import annotations

from typing import NamedTuple

from streams.core import lifecycle as lc
from streams.core.alerts import OPEN
from streams.core.events import order_of
from streams.core.row import NOTES, Row


class Begin(NamedTuple):
    """When a comparison began: the stream's history, its last id, and Redis' clock (ms) then.

    `common` = the last id that a history which has just ended shares with this one: what was told of later entries may
    be undone. None where none has ended.
    """

    epoch: int
    stream_id: str
    observed_at: int
    common: str | None = None

    @property
    def undone(self) -> bool:
        """Whether finished rows may be wrong too."""
        return self.common is not None


def is_untouched(row: Row, begin: Begin) -> bool:
    """Whether nothing was heard of a row since the comparison began: neither an entry nor a look."""
    at = (row.get("epoch", 0), order_of(row["position"], row["observed_at"]))
    return at < (begin.epoch, order_of(begin.stream_id, begin.observed_at))


def must_ask(row: Row, begin: Begin) -> bool:
    """Whether a row that the comparison's looks did not touch may be wrong.

    BullMQ forgets finished jobs by itself, so of these only two kinds are asked about: those with an open alert, which
    ends when somebody cleans the job away, and those that were told something which another history has undone.
    """
    if not is_untouched(row, begin):
        return False
    if row["state"] not in lc.FINISHED or OPEN in row[NOTES]:
        return True
    return begin.common is not None and _is_behind(row, begin)


def _is_behind(row: Row, begin: Begin) -> bool:
    if row.get("epoch", 0) >= begin.epoch or begin.common is None:
        return False
    return order_of(row["position"], row["observed_at"]) > order_of(begin.common, None)
