"""HTML text: escaping, tables, sparklines.

Every function returns HTML and escapes the text that it is given; `Markup` marks HTML,
which is not escaped again. It must never know what is shown.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Markup", "element", "html", "joined", "lines", "sparkline", "table"]


class Markup(str):
    """HTML."""

    __slots__ = ()


def html(text: str) -> Markup:
    """Return HTML for a text, with escapes for characters that are not printable."""
    if isinstance(text, Markup):
        return text
    if text.isalnum():
        return Markup(text)
    return Markup(escape(printable(text), quote=True))


def joined(*parts: str) -> Markup:
    """Return one piece of HTML."""
    return Markup("".join(map(html, parts)))


def lines(text: str) -> Markup:
    """Return HTML for text of several lines, to stand in `pre`."""
    return Markup("\n".join(map(html, text.splitlines())))


def element(tag: str, /, *content: str, **attributes: str | None) -> Markup:
    """Return an element.

    Args:
        tag: its name.
        content: its children.
        attributes: underscores stand for hyphens; a last one is removed, as in
            `class_`. None leaves the attribute out.
    """
    words = [tag]
    for key, value in attributes.items():
        if value is not None:
            shown = key.rstrip("_").replace("_", "-")
            words.append(f'{shown}="{html(value)}"')
    return Markup(f"<{' '.join(words)}>{joined(*content)}</{tag}>")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()
) -> Markup:
    """Return a table.

    Args:
        head: the titles of the columns.
        rows: the cells of each row; the text of a cell, or `Markup`.
        classes: the class of each column.
    """
    kinds = [*classes, *[""] * (len(head) - len(classes))]
    titles = [
        element("th", title, scope="col", class_=kind or None)
        for title, kind in zip(head, kinds, strict=True)
    ]
    # A narrow screen shows each cell on its own line, with its title.
    begins = [
        str(element("td", data_title=title, class_=kind or None))[: -len("</td>")]
        for title, kind in zip(head, kinds, strict=True)
    ]
    body = [f"<tr>{''.join(map(_cell, begins, row))}</tr>" for row in rows]
    return element(
        "table",
        element("thead", element("tr", *titles)),
        Markup(f"<tbody>{''.join(body)}</tbody>"),
    )


def _cell(begin: str, content: str) -> str:
    return f"{begin}{html(content)}</td>"


def sparkline(values: Sequence[float], most: int, label: str) -> Markup:
    """Return a line chart of values, the latest at the right.

    Args:
        values: 0 or more each.
        most: the number of values that fill the width.
        label: read by a screen reader.
    """
    width, height = 240, 40
    highest = max(values, default=0.0) or 1.0
    begin = most - len(values)
    points = [
        f"{(begin + index) * width / (most - 1):.1f},"
        f"{height - 1 - value / highest * (height - 3):.1f}"
        for index, value in enumerate(values)
    ]
    line = area = Markup("")
    if len(points) > 1:
        first, last = points[0].split(",")[0], points[-1].split(",")[0]
        area = element(
            "polygon",
            points=f"{first},{height} {' '.join(points)} {last},{height}",
            class_="area",
        )
        line = element("polyline", points=" ".join(points), class_="line")
    return element(
        "svg",
        area,
        line,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
