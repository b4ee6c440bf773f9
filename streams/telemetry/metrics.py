"""Counters, gauges and histograms of one process, by the names of `names.METRICS`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from streams.telemetry.names import METRICS, Metric, Role

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Else each counter has a second series that tells when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client


class Distribution:
    """The observations of one label set. An observation costs a bisection, where the library's walks all buckets
    and takes a lock in each: this one is made for every event.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, or so many equal ones."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Prometheus' buckets: upper bound as text, observations up to it."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            yield "+Inf" if bound == float("inf") else str(float(bound)), total


class Histogram(Collector):
    """A histogram with labels."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Distribution] = {}
        if not metric.labels:
            self.labels()

    def labels(self, *values: str) -> Distribution:
        """The child of these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Distribution(self._metric.buckets)
        return child

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """For the registry."""
        family = HistogramMetricFamily(self._metric.full_name, self._metric.help, labels=self._metric.labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, list(child.cumulative()), sum_value=child.sum)
        yield family


class Metrics:
    """All metrics of one process. Names are those of the contract, without the prefix; a wrong one is a KeyError.

    `inc`, `set` and `observe` take labels by name; `child` gives the bound metric for a hot loop.
    """

    def __init__(self, role: Role) -> None:
        self._specs = {metric.name: metric for metric in METRICS if metric.role == role}
        self._registry = CollectorRegistry()
        self._families: dict[str, Any] = {name: self._make(spec) for name, spec in self._specs.items()}
        self._children: dict[tuple[str, ...], Any] = {}
        self._refreshers: list[Callable[[], None]] = []
        self._histograms = {name for name, spec in self._specs.items() if spec.kind == "histogram"}
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def inc(self, name: str, amount: float = 1, labels: Mapping[str, str] | None = None) -> None:
        """Add to a counter."""
        self._labelled(name, labels).inc(amount)

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Set a gauge."""
        self._labelled(name, labels).set(value)

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None, count: int = 1) -> None:
        """Count a value, or `count` equal ones, in a histogram."""
        self._labelled(name, labels).observe(value, count)

    def child(self, name: str, *values: str) -> Any:
        """The bound counter, gauge or histogram of these label values, in the order in which they are declared."""
        key = (name, *values)
        child = self._children.get(key)
        if child is None:
            family = self._families[name]
            if len(values) != len(self._specs[name].labels):
                raise ValueError(f"{name} has the labels {self._specs[name].labels}")
            child = self._children[key] = family.labels(*values) if values or name in self._histograms else family
        return child

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set a gauge to exactly these label sets; those that were there before and are not named are dropped."""
        for key in [key for key in self._children if key[0] == name and key[1:] not in values]:
            del self._children[key]
            self._families[name].remove(*key[1:])
        for labels, value in values.items():
            self.child(name, *labels).set(value)

    def before(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each reading: for gauges that are worked out when somebody asks."""
        self._refreshers.append(refresh)

    def forget(self, labels: Mapping[str, str]) -> None:
        """Drop all series that bear these labels: what they name is gone."""
        for key in list(self._children):
            spec = self._specs[key[0]]
            own = dict(zip(spec.labels, key[1:], strict=True))
            if own and spec.kind != "histogram" and labels.items() <= own.items():
                del self._children[key]
                self._families[key[0]].remove(*key[1:])

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        for refresh in self._refreshers:
            refresh()
        return generate_latest(self._registry)

    def _labelled(self, name: str, labels: Mapping[str, str] | None) -> Any:
        if labels is None:
            return self.child(name)
        if len(labels) != len(self._specs[name].labels):
            raise ValueError(f"{name} has the labels {self._specs[name].labels}")
        return self.child(name, *[labels[label] for label in self._specs[name].labels])

    def _make(self, spec: Metric) -> Any:
        if spec.kind == "histogram":
            histogram = Histogram(spec)
            self._registry.register(histogram)
            return histogram
        kind = Counter if spec.kind == "counter" else Gauge
        return kind(spec.full_name, spec.help, spec.labels, registry=self._registry)
