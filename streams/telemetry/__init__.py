"""What a process tells of itself: logs, metrics, health over HTTP."""

from __future__ import annotations

from streams.telemetry.http import ListenError, serve
from streams.telemetry.logs import configure
from streams.telemetry.metrics import Metrics
from streams.telemetry.pulse import Pulse

__all__ = ["ListenError", "Metrics", "Pulse", "configure", "serve"]
