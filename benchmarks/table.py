"""The results as Markdown that is readable as plain text too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .servers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Results
    from .scenarios import Scenario

__all__ = ["aligned", "markdown", "shown"]

_HOW_TO_READ = (
    f"Medians. In brackets: how many times better {OURS} is; below 1, it is worse. "
    "Ratios are taken round by round, so they need not be the quotient of two "
    "medians. Spread: how far apart the rounds of one server are. "
    "Numbers in square brackets refer to the notes."
)


def shown(figure: float) -> str:
    """Three digits that mean something, and no more."""
    if figure < 10:
        return f"{figure:.2f}"
    if figure < 100:
        return f"{figure:.1f}"
    step = 10 ** (len(str(round(figure))) - 3)
    return f"{round(figure / step) * step:,}"


def markdown(results: Results, about: Sequence[str]) -> str:
    """One table for each unit, and notes.

    Args:
        results: of all rounds.
        about: lines on how and where it was measured.
    """
    # Each remark once, with all that it is about.
    notes: dict[str, dict[str, list[str]]] = {}
    for scenario in results.scenarios:
        for server in results.servers:
            for remark in results.remarks(scenario, server):
                about_servers = notes.setdefault(remark, {})
                about_servers.setdefault(server.name, []).append(scenario.name)
    numbers = {remark: number for number, remark in enumerate(notes, 1)}

    parts = [_HOW_TO_READ]
    for unit in dict.fromkeys(scenario.unit for scenario in results.scenarios):
        scenarios = [each for each in results.scenarios if each.unit == unit]
        parts.append("\n".join(_table(results, scenarios, numbers)))
    parts.append(
        "\n".join(f"- {each.name}: {each.title}" for each in results.scenarios)
    )
    if notes:
        lines = []
        for remark, servers in notes.items():
            names = [
                name
                if len(scenarios) == len(results.scenarios)
                else f"{name} ({', '.join(scenarios)})"
                for name, scenarios in servers.items()
            ]
            lines.append(f"{numbers[remark]}. {', '.join(names)}: {remark}")
        parts.append("\n".join(lines))
    parts.append("\n".join(f"- {line}" for line in about))
    return "\n\n".join(parts) + "\n"


def _table(
    results: Results, scenarios: Sequence[Scenario], numbers: dict[str, int]
) -> list[str]:
    unit = scenarios[0].unit
    if scenarios[0].less_is_better:
        unit += ", less is better"
    rows = [[unit, *(scenario.name for scenario in scenarios)]]
    for server in results.servers:
        row = [f"**{server.name}**" if server.name == OURS else server.name]
        for scenario in scenarios:
            figure = results.median(scenario, server)
            cell = "-" if figure is None else shown(figure)
            ratio = results.ratio(scenario, server)
            if ratio is not None:
                cell += f" ({shown(ratio)})"
            for remark in results.remarks(scenario, server):
                cell += f" [{numbers[remark]}]"
            row.append(cell)
        rows.append(row)
    spreads = [results.spread(scenario) for scenario in scenarios]
    if any(spread is not None for spread in spreads):
        rows.append(
            ["*spread*", *("-" if each is None else f"{each:.0%}" for each in spreads)]
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the lines of a Markdown table, padded to equal widths.

    Args:
        rows: the cells; the first row is the heading.
        left: number of columns, from the first, that are aligned to the left.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = [
        "-" * width if column < left else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return lines
