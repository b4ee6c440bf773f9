"""Settings: `load(files, environ)` gives a frozen `Settings`, or a ConfigError with everything that is wrong."""

from __future__ import annotations

from streams.settings.errors import ConfigError, Problem
from streams.settings.load import load
from streams.settings.model import (
    Alerts,
    Bridge,
    FailedAlert,
    Kafka,
    Log,
    Section,
    Settings,
    Source,
    StuckAlert,
    Worker,
)

__all__ = [
    "Alerts",
    "Bridge",
    "ConfigError",
    "FailedAlert",
    "Kafka",
    "Log",
    "Problem",
    "Section",
    "Settings",
    "Source",
    "StuckAlert",
    "Worker",
    "load",
]
