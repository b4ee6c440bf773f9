"""Rate limit of the clients' loggers: with the broker gone aiokafka says so many times a second."""

from __future__ import annotations

import logging
import time
from traceback import walk_tb
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 30.0
LIBRARIES: Final = ("aiokafka", "faust", "mode")


class RateLimit(logging.Filter):
    """Lets each message (by logger and template) through once per interval, with the number left out since."""

    def __init__(self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.interval_s = interval_s
        self._clock = clock
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False = left out."""
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, str(record.msg))
        now = self._clock()
        if now - self._last.get(key, -self.interval_s) < self.interval_s:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return False
        self._last[key] = now
        if left_out := self._left_out.pop(key, 0):
            record.msg = f"{record.getMessage()} ({left_out} more like this)"
            record.args = ()
        return True


_LIMIT: Final = RateLimit()


def limit() -> None:
    """Apply to every logger of the libraries that exists. A filter of a parent does not see its children."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in LIBRARIES:
            logging.getLogger(name).addFilter(_LIMIT)


def kind_of(error: BaseException) -> str:
    """An exception's type and the place that raised it, `KeyError at streams.core.step:133`: never its data.

    The place is the innermost of our own code, or else the innermost.
    """
    frames = [(frame.f_globals.get("__name__", "?"), line) for frame, line in walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if frame[0].partition(".")[0] == __name__.partition(".")[0]]
    module, line = (ours or frames or [("nowhere", 0)])[-1]
    return f"{type(error).__name__} at {module}:{line}"
