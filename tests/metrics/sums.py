"""The numbers of a server, as the sums of its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._metrics.exposition import metrics_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["series_by_label", "sums_of"]


def sums_of(numbers: Sequence[float]) -> dict[str, float]:
    """Return the sums over all labels, by the name of the samples."""
    sums: dict[str, float] = {}
    for metric in metrics_of(numbers):
        for sample in metric.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def series_by_label(numbers: Sequence[float], name: str) -> dict[str, float]:
    """Return the samples with a name that are not 0, by their only label."""
    return {
        label: sample.value
        for metric in metrics_of(numbers)
        for sample in metric.samples
        if sample.name == name and sample.value
        for label in sample.labels.values()
    }
