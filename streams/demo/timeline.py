"""What the sample application does when, in seconds since its first job. The verdict of the demo follows from it."""

from __future__ import annotations

from typing import Final

PAUSE_AFTER_S: Final = 5.0
PAUSE_S: Final = 4.0
KILL_AFTER_S: Final = 10.0
RESCUE_S: Final = 8.0
"""From the kill of a worker process to the start of the next one: long enough for its job to be told stuck."""
RETRY_AFTER_S: Final = 22.0
"""An operator retries a job that has failed."""
CYCLE_S: Final = 30.0
"""Then all of this comes again."""

LOCK_MS: Final = 2_000
STALLED_INTERVAL_MS: Final = 1_000
STUCK_WITHIN_S: Final = LOCK_MS / 1000 + 5.0
"""From the kill to the alert, as the contract promises."""
RESCUED_WITHIN_S: Final = RESCUE_S + 6.0
"""From the kill: the new process comes up, and BullMQ moves a stalled job at its second check."""
