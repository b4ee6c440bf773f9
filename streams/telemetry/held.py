"""How long the event loop is held at a time: what a task that only sleeps notices of the others."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from streams.telemetry.metrics import Metrics
from streams.telemetry.pulse import Pulse

INTERVAL_S: Final = 0.02
"""Between two looks. What holds the loop may begin anywhere in between, so so much is left unseen of it at most."""
LOOP: Final = "loop"


async def watch(metrics: Metrics, pulse: Pulse) -> None:
    """Measure until cancelled: how late each sleep ends, into `loop_held_seconds`."""
    pulse.expect(LOOP)
    observe = metrics.child("loop_held_seconds").observe
    while True:
        due = time.perf_counter() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        observe(max(time.perf_counter() - due, 0.0))
        pulse.beat(LOOP)
