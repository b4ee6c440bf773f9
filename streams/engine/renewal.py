"""A partition that cannot go on with its producer is assigned anew: a new producer, rows and offsets read again.

A producer is lost for reasons that a new one mends: the broker forgot the transactional id of an idle system
(`transactional.id.expiration.ms`), ended a transaction that a stall held up for too long, or nobody can tell whether a
commit was one. Only an assignment gives a partition a new one safely: it fences whoever else may own it by now.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 60.0


class Renewal:
    """Asks the group for a new assignment, later each time, until there is one or a commit has succeeded."""

    def __init__(self, app: Any, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._app = app
        self._first_pause_s = self._pause_s = first_pause_s
        self._task: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """A partition has committed: the next trouble is a new one."""
        self._pause_s = self._first_pause_s

    def ask(self, still_needed: Callable[[], bool]) -> None:
        """Begin to ask, unless that is going on. `still_needed` = the assignment is still the one in trouble."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(still_needed), name="renewal")

    async def _run(self, still_needed: Callable[[], bool]) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            if self._app.should_stop or not still_needed():
                return
            broker = self._app.broker
            if broker.kafka and broker.topics:
                self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
                log.warning("asking the group for a new assignment")
                await self._app.consumer.rejoin()
