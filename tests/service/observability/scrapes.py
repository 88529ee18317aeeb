"""What Prometheus would read."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One reading of every metric."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))

    @classmethod
    def of(cls, url: str) -> Scrape:
        with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 - our own http URL
            return cls(reply.read().decode())

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, and perhaps others."""
        return sum(value for given, value in self.samples(name) if labels.items() <= given.items())

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for family in self.families:
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def names(self) -> set[str]:
        """Of every sample that a query can name."""
        return {sample.name for family in self.families for sample in family.samples}
