"""Patterns of paths, such as `/health` or `/internal/*`.

It knows records. It must never know what a match means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["PATTERN_FORM", "PathPatterns", "check_pattern", "path_expression"]

#: The remedy for an invalid pattern.
PATTERN_FORM: Final = "give a path such as /health or /internal/*"
# The scheme and authority of an absolute target (RFC 9112 section 3.2.2).
_AUTHORITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def check_pattern(pattern: str) -> str:
    """Return a valid pattern.

    Raises:
        ValueError: it is no path.
    """
    if not pattern.startswith("/"):
        raise ValueError(f"{pattern!r} is not the pattern of a path: {PATTERN_FORM}")
    return pattern


def path_expression(pattern: str) -> re.Pattern[str]:
    """Return the expression that matches a decoded path, one character for each byte.

    A pattern matches the whole path; `*` stands for any text.
    """
    # PEP 3333 decodes the bytes of a path as Latin-1.
    given = pattern.encode("utf-8", "surrogateescape").decode("latin-1")
    expression = ".*".join(map(re.escape, given.split("*")))
    return re.compile(rf"{expression}\Z", re.DOTALL)


class PathPatterns:
    """Some patterns; see `path_expression`.

    Raises:
        ValueError: a pattern is no path.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._expressions = [
            path_expression(check_pattern(pattern)) for pattern in patterns
        ]

    def __bool__(self) -> bool:
        """Return whether any request can match."""
        return bool(self._expressions)

    def match(self, record: ExchangeRecord) -> bool:
        """Return whether the path of a request matches one of the patterns."""
        target = record.target.partition("?")[0]
        path = _AUTHORITY.sub("", target)
        if target and not path:
            path = "/"
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        return any(expression.match(decoded) for expression in self._expressions)
