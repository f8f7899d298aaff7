"""The dashboard for Grafana, against the names of the metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._metrics.families import (
    FAMILIES,
    INTERNAL,
    MASTER_FAMILIES,
    Family,
    all_names,
)

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "examples/deploy/grafana/dashboard.json"
PAGE = ROOT / "docs/observability.md"

SHOWN = (*(each for each in FAMILIES if each not in INTERNAL), *MASTER_FAMILIES)


def by_sample() -> dict[str, Family]:
    """Return the families by the names of their samples."""
    return {name: family for family in SHOWN for name in family.sample_names()}


class DashboardTests(SynchronousTestCase):
    """examples/deploy/grafana/dashboard.json."""

    def setUp(self) -> None:
        """Read the file."""
        self.dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
        self.expressions = [
            target["expr"]
            for panel in self.dashboard["panels"]
            for target in panel["targets"]
        ]

    def test_names(self) -> None:
        """Each name in a query is that of a sample, and each family is shown."""
        found = set(re.findall(r"txgreenwsgi_\w+", " ".join(self.expressions)))
        self.assertLessEqual(found, all_names())
        families = by_sample()
        shown = {families[name].name for name in found}
        self.assertEqual(shown, {family.name for family in SHOWN})

    def test_labels(self) -> None:
        """Each label that a query groups or selects by is one of its family."""
        families = by_sample()
        for expression in self.expressions:
            names = re.findall(r"txgreenwsgi_\w+", expression)
            known = {"le", "job"}.union(*(families[name].label_names for name in names))
            grouped = re.findall(r"by \(([^)]*)\)", expression)
            used = {label for text in grouped for label in re.findall(r"\w+", text)}
            used |= set(re.findall(r"[{,](\w+)(?:=|!=|=~)", expression))
            self.assertLessEqual(used, known, expression)
        for panel in self.dashboard["panels"]:
            for target in panel["targets"]:
                legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
                for label in legend:
                    self.assertIn(label, target["expr"] + "slot", target)

    def test_panels(self) -> None:
        """Panels have a description, and do not overlap."""
        places = set()
        for panel in self.dashboard["panels"]:
            self.assertRegex(panel["description"], r"\A[A-Z].*\.\Z")
            place = panel["gridPos"]
            places.add((place["x"], place["y"]))
        self.assertEqual(len(places), len(self.dashboard["panels"]))

    def test_documentation(self) -> None:
        """The page about observability describes each metric."""
        page = PAGE.read_text("utf-8")
        for family in SHOWN:
            suffix = "_total" if family.kind == "counter" else ""
            labels = ", ".join(f"`{name}`" for name in family.label_names)
            row = f"| `{family.name}{suffix}` | {labels} | {family.meaning} |"
            self.assertIn(row, page)
