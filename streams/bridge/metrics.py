"""What the bridge counts, for whoever exposes it."""

from __future__ import annotations

from typing import Protocol


class Metrics(Protocol):
    """Names as in the contract, without the project's prefix."""

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""


class NoMetrics:
    """Counts nothing."""

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""
