"""An SVG bar chart of the results, with a panel for each scenario.

Written without a library. The colours are legible on a white and on a black
background, since it may be shown on either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .table import shown

if TYPE_CHECKING:
    from .results import Results
    from .scenarios import Scenario

__all__ = ["svg"]

# In pixels.
_PANEL_WIDTH = 310
_GAP = 24
_NAME_WIDTH = 138
_FIGURE_WIDTH = 56
_BAR_PITCH = 15
_BAR_HEIGHT = 10
_TITLE_HEIGHT = 26
_COLUMNS = 3

_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #7c8794 }
.title { font-weight: bold }
.figure { text-anchor: start }
.name { text-anchor: end }
.ours { fill: #2a9d6f }
.peer { fill: #8d99a8 }
.limit { fill: none; stroke: #8d99a8; stroke-dasharray: 3 2 }
text.ours { font-weight: bold }
"""


def svg(results: Results) -> str:
    """Return a chart of all medians; the bars of a panel share one scale."""
    lines = []
    top = height = 0
    for number, scenario in enumerate(results.scenarios):
        column = number % _COLUMNS
        if column == 0:
            top = height
        panel, panel_height = _panel(results, scenario)
        height = max(height, top + panel_height + _GAP)
        x = column * (_PANEL_WIDTH + _GAP)
        lines += [f'<g transform="translate({x} {top})">', *panel, "</g>"]
    columns = min(_COLUMNS, len(results.scenarios))
    width = columns * (_PANEL_WIDTH + _GAP) - _GAP
    height -= _GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        "<title>WSGI servers side by side</title>",
        f"<style>{_STYLE}</style>",
    ]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


def _panel(results: Results, scenario: Scenario) -> tuple[list[str], int]:
    """Return the elements of one panel and its height in pixels."""
    unit = scenario.unit
    if scenario.less_is_better:
        unit += ", less is better"
    heading = escape(f"{scenario.name}, {unit}")
    lines = [f'<text class="title" x="0" y="12">{heading}</text>']
    medians = [
        (server, median)
        for server in results.servers
        if (median := results.median(scenario, server)) is not None
    ]
    longest = max((median for _, median in medians), default=0.0)
    room = _PANEL_WIDTH - _NAME_WIDTH - _FIGURE_WIDTH
    for number, (server, median) in enumerate(medians):
        top = _TITLE_HEIGHT + number * _BAR_PITCH
        base = top + _BAR_HEIGHT - 1
        ours = " ours" if server.kind == "ours" else ""
        # Memory may be negative: the server may have freed more than it took.
        length = max(1.0, room * median / longest) if longest > 0 else 1.0
        lines += [
            f'<text class="name{ours}" x="{_NAME_WIDTH - 6}" y="{base}">'
            f"{escape(server.name)}</text>",
            f'<rect class="{server.kind}" x="{_NAME_WIDTH}" y="{top}" '
            f'width="{length:.1f}" height="{_BAR_HEIGHT}" rx="1.5"/>',
            f'<text class="figure{ours}" x="{_NAME_WIDTH + length + 5:.1f}" '
            f'y="{base}">{shown(median)}</text>',
        ]
    return lines, _TITLE_HEIGHT + _BAR_PITCH * len(medians)
