"""Numbers, times and foreign text for people.

It imports only the standard library, so that a command can use it at once.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress

__all__ = [
    "UNKNOWN",
    "clipped",
    "count_text",
    "counted",
    "duration",
    "megabytes",
    "printable",
    "printable_path",
    "rate",
    "short_duration",
]

#: The text of a value that is not known.
UNKNOWN = "-"


def count_text(value: int | None) -> str:
    """Return a number."""
    return UNKNOWN if value is None else str(value)


def counted(number: int, name: str) -> str:
    """Return a number with a noun, such as "2 workers"."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, such as "3 min 4 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, smaller, smaller_unit in [
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ]:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (
                f" {rest} {smaller_unit}" if rest else ""
            )
    return f"{whole} s"


def short_duration(seconds: float) -> str:
    """Return a time with milliseconds if it is short, such as "12 ms"."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.{0 if seconds >= 0.00995 else 1}f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    return duration(seconds)


def rate(per_second: float) -> str:
    """Return a number of requests per second."""
    return f"{per_second:.1f}" if per_second < 9.95 else f"{per_second:.0f}"


def megabytes(size: int | None) -> str:
    """Return a size in bytes."""
    return UNKNOWN if size is None else f"{size / (1 << 20):.0f} MiB"


def printable_path(text: str) -> str:
    """Return a path, or other text of a client, for people.

    Its bytes, one latin-1 character each, are decoded as UTF-8 if they are that.
    Characters that control a terminal or the direction of text are escaped.
    """
    with suppress(UnicodeEncodeError, UnicodeDecodeError):
        text = text.encode("latin-1").decode("utf-8")
    return printable(text)


def printable(text: str) -> str:
    """Return text with escapes in place of characters that are not printable."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def clipped(text: str, width: int) -> str:
    """Return text that fills a number of columns of a terminal, cut or padded."""
    columns = 0
    for index, char in enumerate(text):
        size = _columns(char)
        if columns + size > width:
            cut = text[:index]
            while cut and columns + 1 > width:
                columns -= _columns(cut[-1])
                cut = cut[:-1]
            return f"{cut}…" + " " * (width - columns - 1) if width else ""
        columns += size
    return text + " " * (width - columns)


def _columns(char: str) -> int:
    """Return the number of columns of a printable character."""
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
