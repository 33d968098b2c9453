"""How series are made: LiveKit's prefix, the node's labels on each, LiveKit's types. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "livekit_"


def exponential(least: float, most: float, count: int) -> tuple[float, ...]:
    """`count` bounds from `least` to `most`, each the same factor above the one before."""
    factor = (most / least) ** (1 / (count - 1))
    return tuple(least * factor**n for n in range(count))


class Families:
    """One registry. `labels` are on every series of LiveKit's."""

    def __init__(self, node_id: str) -> None:
        self.registry = CollectorRegistry()
        self.labels = {"node_id": node_id, "node_type": "SERVER"}
        self._unsuffixed: list[str] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter | Gauge:
        """`name` as it is shown. The library ends every counter's name with _total: the others are gauges to it."""
        if name.endswith("_total"):
            return Counter(PREFIX + name, text, (*self.labels, *labels), registry=self.registry)
        self._unsuffixed.append(PREFIX + name)
        return self.gauge(name, text, *labels)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, (*self.labels, *labels), registry=self.registry)

    def own(self, name: str, text: str, *labels: str) -> Gauge:
        """A series that LiveKit does not have, counted elsewhere."""
        return Gauge(f"lkactor_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, (*self.labels, *labels), registry=self.registry, buckets=tuple(buckets))

    def text(self) -> bytes:
        """The text format, with every counter named so."""
        text = generate_latest(self.registry)
        for name in self._unsuffixed:
            text = text.replace(f"# TYPE {name} gauge\n".encode(), f"# TYPE {name} counter\n".encode())
        return text
