"""The clocks, in the unit of every record: ms since the epoch."""

from __future__ import annotations

import time
from typing import Final

_STARTED_NS: Final = time.time_ns() - time.monotonic_ns()


def wall_ms() -> int:
    """Now, by this machine's clock. It may be set while we run."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Now, as the wall clock would say had it never been set since the process began: for what is to last so long."""
    return (_STARTED_NS + time.monotonic_ns()) // 1_000_000
