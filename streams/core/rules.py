"""What the settings decide about the fold: alert rules and times, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert rule as configured."""

    enabled: bool = True
    severity: str = "error"


@dataclass(frozen=True, slots=True)
class Rules:
    """All times in ms."""

    failed: AlertRule = field(default_factory=AlertRule)
    stuck: AlertRule = field(default_factory=lambda: AlertRule(severity="critical"))
    check_interval_ms: int = 1_000
    """Least time between the two looks that a job needs to be called stuck."""
    first_look_ms: int = 1_000
    """How long a job has been active when it is looked at for the first time: most jobs are done by then."""
    lock_margin_ms: int = 100
    """How long after its lock should have ended a running job is looked at again."""
    verify_after_ms: int = 600_000
    retention_ms: int = 604_800_000
    resolve_after_ms: int = 86_400_000
    """When a `failed` alert ends by itself; 0 = never."""
    max_text_bytes: int = 65_536
    """Longest error text in what is told. The bridge has cut them; an older one has not."""


DEFAULT_RULES: Final = Rules()
