"""The application's own metrics, from its registry of `prometheus_client`.

With workers, each one sends its families as JSON values, and the master merges them:
numbers that only grow are added up, those of ended workers included; every other sample
gets the slot of its worker as a label. It knows registries. It must never know how
families are sent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast

from prometheus_client.core import Metric

from txgreenwsgi._server.errors import StartError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["SLOT_LABEL", "ApplicationMetrics", "FamilyData", "collected", "registry_at"]

#: The label that tells the samples of workers apart.
SLOT_LABEL: Final = "worker_slot"

#: The kinds of metrics whose numbers only grow.
_GROWING: Final = ("counter", "histogram", "summary")

_Labels: TypeAlias = tuple[tuple[str, str], ...]
_Samples: TypeAlias = dict[tuple[str, _Labels], float]


class FamilyData(TypedDict):
    """One family of a registry, as JSON values.

    `samples` has the name, the labels and the value of each sample.
    """

    name: str
    type: str
    help: str
    unit: str
    samples: list[tuple[str, dict[str, str], float]]


def registry_at(place: str) -> Collector:
    """Return the registry that `--metrics-application` names.

    Args:
        place: "package.module:name".

    Raises:
        StartError: there is no registry of that name.
    """
    module_name, _, name = place.partition(":")
    found: object
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise StartError(
            f"--metrics-application {place!r} cannot be found ({error}): give the "
            "registry as package.module:name, such as prometheus_client:REGISTRY"
        ) from error
    if not callable(getattr(found, "collect", None)):
        raise StartError(
            f"--metrics-application {place!r} is no registry, but {found!r:.60}: give "
            "a CollectorRegistry of prometheus_client"
        )
    return cast("Collector", found)


def collected(registry: Collector) -> list[FamilyData]:
    """Return the families of a registry. May park: collectors are the application's."""
    return [
        {
            "name": metric.name,
            "type": metric.type,
            "help": metric.documentation,
            "unit": metric.unit,
            "samples": [
                (sample.name, dict(sample.labels), float(sample.value))
                for sample in metric.samples
            ],
        }
        for metric in registry.collect()
    ]


class ApplicationMetrics:
    """The families of the application in all workers.

    Call from the reactor greenlet.
    """

    def __init__(self) -> None:
        # By worker: its slot, and its last families.
        self._latest: dict[int, tuple[int, list[FamilyData]]] = {}
        # The growing numbers of ended workers, by the name of the family.
        self._ended: dict[str, _Merged] = {}

    def received(self, worker: int, slot: int, families: list[FamilyData]) -> None:
        """Take the families of a worker.

        Args:
            worker: the number of the worker.
            slot: the index of its slot.
            families: replaces what the worker has sent before.
        """
        self._latest[worker] = slot, families

    def ended(self, worker: int) -> None:
        """Keep the growing numbers of a worker that has ended, and nothing else."""
        _, families = self._latest.pop(worker, (0, []))
        for data in families:
            if data["type"] in _GROWING:
                self._merged(self._ended, data).add(data)

    def metrics(self) -> list[Metric]:
        """Return the merged families."""
        merged: dict[str, _Merged] = {}
        for name, ended in self._ended.items():
            merged[name] = ended.copy()
        # Of two workers of a slot, the later one is shown last, and so remains.
        for _, (slot, families) in sorted(self._latest.items()):
            for data in families:
                into = self._merged(merged, data)
                if data["type"] != into.data["type"]:
                    continue  # a reload has changed it; the first one stays
                if data["type"] in _GROWING:
                    into.add(data)
                else:
                    into.set(data, slot)
        return [each.metric() for each in merged.values()]

    @staticmethod
    def _merged(families: dict[str, _Merged], data: FamilyData) -> _Merged:
        name = data["name"]
        if name not in families:
            families[name] = _Merged(data)
        return families[name]


class _Merged:
    """One family of several workers.

    Attributes:
        data: its description, from any worker.
    """

    def __init__(self, data: FamilyData) -> None:
        self.data = data
        self._samples: _Samples = {}

    def copy(self) -> _Merged:
        """Return a copy that can be changed."""
        copied = _Merged(self.data)
        copied._samples = dict(self._samples)
        return copied

    def add(self, data: FamilyData) -> None:
        """Add the numbers of one worker.

        The time of creation of a series is that of the first one.
        """
        samples = self._samples
        created = f"{data['name']}_created"
        for name, labels, value in data["samples"]:
            if "quantile" in labels:
                continue  # no sum of quantiles is one
            key = name, tuple(sorted(labels.items()))
            if name == created:
                samples[key] = min(value, samples.get(key, value))
            else:
                samples[key] = samples.get(key, 0.0) + value

    def set(self, data: FamilyData, slot: int) -> None:
        """Take the samples of one worker, with its slot as a label."""
        for name, labels, value in data["samples"]:
            labels = {**labels, SLOT_LABEL: str(slot + 1)}
            self._samples[name, tuple(sorted(labels.items()))] = value

    def metric(self) -> Metric:
        """Return the family for the page.

        The buckets of a histogram are in order, and its other samples follow them.
        """
        data = self.data
        metric = Metric(data["name"], data["help"], data["type"], data["unit"])
        for (name, labels), value in sorted(self._samples.items(), key=_by_series):
            metric.add_sample(name, dict(labels), value)
        return metric


def _by_series(sample: tuple[tuple[str, _Labels], float]) -> tuple[object, ...]:
    """Return the key that orders samples: by series, then by bucket."""
    (name, labels), _ = sample
    others = tuple(pair for pair in labels if pair[0] not in ("le", "quantile"))
    bound = next((float(value) for key, value in labels if key == "le"), float("inf"))
    suffixes = ("_bucket", "_count", "_total", "_sum", "_created")
    order = next((n for n, each in enumerate(suffixes) if name.endswith(each)), -1)
    return others, order, bound, labels
