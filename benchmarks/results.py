"""The outcomes of all rounds, with their medians, ratios and spread."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from .servers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenarios import Measured, Scenario
    from .servers import Server

__all__ = ["Results"]


class Results:
    """The outcome of each round, for each scenario and server.

    Attributes:
        scenarios: in the order of the columns.
        servers: in the order of the rows.
    """

    def __init__(
        self, scenarios: Sequence[Scenario], servers: Sequence[Server]
    ) -> None:
        self.scenarios = scenarios
        self.servers = servers
        self._outcomes: dict[tuple[str, str], list[Measured | str]] = defaultdict(list)

    def add(self, scenario: Scenario, server: Server, outcome: Measured | str) -> None:
        """Add the outcome of a round: a figure, or the reason why there is none."""
        self._outcomes[scenario.name, server.name].append(outcome)

    def _rounds(self, scenario: Scenario, server: str) -> list[float | None]:
        return [
            None if isinstance(outcome, str) else outcome.figure
            for outcome in self._outcomes[scenario.name, server]
        ]

    def median(self, scenario: Scenario, server: Server) -> float | None:
        """Return the median of the rounds, or None if no round has a figure."""
        figures = [
            figure
            for figure in self._rounds(scenario, server.name)
            if figure is not None
        ]
        return statistics.median(figures) if figures else None

    def ratio(self, scenario: Scenario, server: Server) -> float | None:
        """Return how many times better ours is than `server`; below 1, worse.

        This is the median of the rounds' ratios rather than the ratio of medians:
        other load on the machine affects both sides of a round alike.
        """
        if server.name == OURS:
            return None
        pairs = zip(
            self._rounds(scenario, OURS),
            self._rounds(scenario, server.name),
            strict=False,  # ours has no rounds if it was not selected
        )
        ratios = [
            theirs / ours if scenario.less_is_better else ours / theirs
            for ours, theirs in pairs
            if ours and theirs
        ]
        return statistics.median(ratios) if ratios else None

    def spread(self, scenario: Scenario) -> float | None:
        """Return the range of a server's rounds as a fraction of their median.

        The median over all servers; None with fewer than two rounds.
        """
        spreads = []
        for server in self.servers:
            rounds = self._rounds(scenario, server.name)
            figures = [figure for figure in rounds if figure]
            if len(figures) > 1:
                spreads.append(
                    (max(figures) - min(figures)) / statistics.median(figures)
                )
        return statistics.median(spreads) if spreads else None

    def remarks(self, scenario: Scenario, server: Server) -> list[str]:
        """Return the remarks on a figure, or the reasons why it is missing."""
        outcomes = self._outcomes[scenario.name, server.name]
        remarks = [outcome for outcome in outcomes if isinstance(outcome, str)]
        # Numbers in a remark differ from round to round: keep the last one.
        measured = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        remarks += [outcome.remark for outcome in measured if outcome.remark][-1:]
        return list(dict.fromkeys(remarks))
