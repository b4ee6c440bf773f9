"""What the bridge counts, and where it says that it is alive, for whoever exposes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Metrics(Protocol):
    """Names as in the contract, without the project's prefix."""

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""


@runtime_checkable
class Asked(Protocol):
    """Metrics of which some are worked out when somebody asks for them."""

    def before(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each reading."""

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set a gauge to exactly these label sets."""

    def forget(self, labels: Mapping[str, str]) -> None:
        """Drop all series that bear these labels."""


class Pulse(Protocol):
    """Hears from each endless loop that it goes round."""

    def beat(self, name: str) -> None:
        """The loop of this name has turned."""


class NoMetrics:
    """Counts nothing."""

    def inc(self, name: str, amount: float, labels: dict[str, str]) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""


class NoPulse:
    """Hears nothing."""

    def beat(self, name: str) -> None:
        """The loop of this name has turned."""
