"""Counters, gauges and histograms of one process, by the names of `names.METRICS`, and the text Prometheus scrapes.

Made for tens of thousands of series: counting takes no lock and no look at buckets, and the text is made in a thread,
from copies that are taken whole, while the event loop goes on counting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from streams.telemetry.names import METRICS, Metric, Role

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
"""Values of a metric's labels, in the order in which they are declared."""
_QUEUE: Final = ("source", "queue")
_LABELS: Final = "\0"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Value:
    """A counter's or a gauge's series."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add."""
        self.value += amount

    def set(self, value: float) -> None:
        """Set."""
        self.value = value


class Distribution:
    """A histogram's series. An observation costs a bisection: this one is made for every event."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, or so many equal ones."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count


def _bounds(bounds: tuple[float, ...]) -> list[str]:
    return [*(str(float(bound)) for bound in bounds), "+Inf"]


class Family:
    """All series of one metric."""

    def __init__(self, spec: Metric) -> None:
        self.spec = spec
        self.children: dict[Labels, Any] = {}
        self.read: Callable[[], Mapping[Labels, float]] | None = None
        """Where the series are worked out when somebody asks."""
        self._of_queue: dict[Labels, set[Labels]] | None = {} if spec.labels[:2] == _QUEUE else None
        self._sorted = sorted(enumerate(spec.labels), key=lambda label: label[1])
        if not spec.labels:
            self.child(())

    def child(self, values: Labels) -> Any:
        """The series of these label values. Raises ValueError when there are more or fewer of them than labels."""
        child = self.children.get(values)
        if child is None:
            if len(values) != len(self.spec.labels):
                raise ValueError(f"{self.spec.name} has the labels {self.spec.labels}")
            child = Distribution(self.spec.buckets) if self.spec.kind == "histogram" else Value()
            self.children[values] = child
            if self._of_queue is not None:
                self._of_queue.setdefault(values[:2], set()).add(values)
        return child

    def drop(self, values: Labels) -> None:
        """Forget a series."""
        self.children.pop(values, None)
        if self._of_queue is not None and (siblings := self._of_queue.get(values[:2])) is not None:
            siblings.discard(values)
            if not siblings:
                del self._of_queue[values[:2]]

    def with_labels(self, labels: Mapping[str, str]) -> list[Labels]:
        """The series that bear all these labels, whatever else they bear."""
        if self._of_queue is not None and tuple(labels) == _QUEUE:
            return list(self._of_queue.get(tuple(labels.values()), ()))
        if not labels or not labels.keys() <= set(self.spec.labels):
            return []
        wanted = [(self.spec.labels.index(name), value) for name, value in labels.items()]
        return [values for values in self.children if all(values[at] == value for at, value in wanted)]

    def lines(self) -> Iterator[str]:
        """The text. Safe beside a thread that goes on counting: copying a dict or a list cannot be interrupted."""
        name, kind = self.spec.full_name, self.spec.kind
        yield f"# HELP {name} {self.spec.help}\n# TYPE {name} {kind}\n"
        if self.read is not None:
            for values, number in self.read().items():
                yield f"{name}{self._braced(values)} {float(number)}\n"
        elif kind == "histogram":
            yield from self._histogram()
        else:
            for values, child in self.children.copy().items():
                yield f"{name}{self._braced(values)} {float(child.value)}\n"

    def _histogram(self) -> Iterator[str]:
        template = self._template()
        for values, child in self.children.copy().items():
            spent, counts = child.sum, list(accumulate(child.counts.copy()))
            text = template % (*counts, counts[-1], spent)
            yield text.replace(_LABELS, self._labels(values))

    def _template(self) -> str:
        """A series' lines: `%` for the numbers, and a mark for the labels, so that a label may hold a `%`."""
        name, labelled = self.spec.full_name, bool(self.spec.labels)
        begin, braced = (f"{_LABELS},", f"{{{_LABELS}}}") if labelled else ("", "")
        buckets = [f'{name}_bucket{{{begin}le="{bound}"}} %d\n' for bound in _bounds(self.spec.buckets)]
        return "".join([*buckets, f"{name}_count{braced} %d\n{name}_sum{braced} %r\n"])

    def _labels(self, values: Labels) -> str:
        return ",".join([f'{name}="{_escaped(values[at])}"' for at, name in self._sorted])

    def _braced(self, values: Labels) -> str:
        return f"{{{self._labels(values)}}}" if values else ""


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES) if "\\" in value or '"' in value or "\n" in value else value


class Metrics:
    """All metrics of one process. Names are those of the contract, without the prefix; a wrong one is a KeyError.

    `inc`, `set` and `observe` take labels by name; `child` gives the bound metric for a hot loop. For one thread, the
    event loop's; only `text` may be called from another.
    """

    def __init__(self, role: Role) -> None:
        self._families = {metric.name: Family(metric) for metric in METRICS if metric.role == role}
        self._refreshers: list[Callable[[], None]] = []
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

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
        return self._families[name].child(values)

    def replace(self, name: str, values: Mapping[Labels, float]) -> None:
        """Set a gauge to exactly these label sets; those that were there before and are not named are dropped."""
        family = self._families[name]
        for gone in family.children.keys() - values.keys():
            family.drop(gone)
        for labels, value in values.items():
            family.child(labels).value = value

    def forget(self, labels: Mapping[str, str]) -> None:
        """Drop all series that bear these labels: what they name is gone."""
        for family in self._families.values():
            for values in family.with_labels(labels):
                family.drop(values)

    def before(self, refresh: Callable[[], None]) -> None:
        """Call `refresh`, in the event loop, before each reading: for gauges worked out when somebody asks."""
        self._refreshers.append(refresh)

    def read(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """Take a gauge's series from `read` at each reading. It is called in another thread than the event loop's, so
        that it may take its time; what it looks at it has to copy whole.
        """
        self._families[name].read = read

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        self.refresh()
        return self.text()

    def refresh(self) -> None:
        """The first part of `render`, for the event loop's thread."""
        for refresh in self._refreshers:
            refresh()

    def text(self) -> bytes:
        """The second part of `render`, for any thread."""
        ours = "".join([line for family in self._families.values() for line in family.lines()])
        return ours.encode("utf-8", "replace") + generate_latest(self._process)

    def _labelled(self, name: str, labels: Mapping[str, str] | None) -> Any:
        family = self._families[name]
        if labels is None:
            return family.child(())
        if labels.keys() != set(family.spec.labels):
            raise ValueError(f"{name} has the labels {family.spec.labels}")
        return family.child(tuple([labels[label] for label in family.spec.labels]))
