"""What was measured, and the arithmetic on it: medians, ratios, spread."""

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
        scenarios: those that are measured, in the order of columns.
        servers: those that are compared, in the order of rows.
    """

    def __init__(
        self, scenarios: Sequence[Scenario], servers: Sequence[Server]
    ) -> None:
        self.scenarios = scenarios
        self.servers = servers
        self._outcomes: dict[tuple[str, str], list[Measured | str]] = defaultdict(list)

    def add(self, scenario: Scenario, server: Server, outcome: Measured | str) -> None:
        """Add the outcome of one more round: a figure, or why there is none."""
        self._outcomes[scenario.name, server.name].append(outcome)

    def _rounds(self, scenario: Scenario, server: str) -> list[float | None]:
        return [
            None if isinstance(outcome, str) else outcome.figure
            for outcome in self._outcomes[scenario.name, server]
        ]

    def median(self, scenario: Scenario, server: Server) -> float | None:
        """The median of the rounds, None if no round gave a figure."""
        figures = [
            figure
            for figure in self._rounds(scenario, server.name)
            if figure is not None
        ]
        return statistics.median(figures) if figures else None

    def ratio(self, scenario: Scenario, server: Server) -> float | None:
        """How many times better ours is than `server`; below 1, it is worse.

        The median of each round's ratio, not the ratio of the medians: what
        slows the machine down for a while slows down both sides of a round.
        """
        if server.name == OURS:
            return None
        pairs = zip(
            self._rounds(scenario, OURS),
            self._rounds(scenario, server.name),
            strict=False,  # nothing of ours, when it is left out
        )
        ratios = [
            theirs / ours if scenario.less_is_better else ours / theirs
            for ours, theirs in pairs
            if ours and theirs
        ]
        return statistics.median(ratios) if ratios else None

    def spread(self, scenario: Scenario) -> float | None:
        """How far apart the rounds of one server are, as a share of their median.

        The median over the servers; None with fewer than two rounds.
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
        """What there is to say about a figure, or about its absence."""
        outcomes = self._outcomes[scenario.name, server.name]
        remarks = [outcome for outcome in outcomes if isinstance(outcome, str)]
        # A remark may have a number in it that is another one in each round.
        measured = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        remarks += [outcome.remark for outcome in measured if outcome.remark][-1:]
        return list(dict.fromkeys(remarks))
