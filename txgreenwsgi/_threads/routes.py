"""Route patterns: the requests that run in threads, as the deployer names them.

A pattern is a path with the wildcard `*`, such as `/reports/*`; a method and a path,
such as `POST /upload`; or `all`. This file must never know what is done with a request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from txgreenwsgi.monitoring.path_patterns import path_expression

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALL", "AUTO", "NONE", "RoutePatterns", "readable", "route_of"]

#: The pattern of every request.
ALL: Final = "all"
#: Requests whose route has blocked the reactor repeatedly.
AUTO: Final = "auto"
#: No request.
NONE: Final = "none"

# Segments, or parts of a segment, that differ between requests of one kind: numbers,
# UUIDs, hashes and other long tokens that contain a digit.
_VARIABLE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|[0-9]+"
    r"|(?=[0-9a-zA-Z_-]*[0-9])[0-9a-fA-F]{8,}"
    r"|(?=[A-Za-z_-]*[0-9])[0-9A-Za-z_-]{16,}"
    r")(?![A-Za-z0-9])"
)
#: Segments of a route beyond this number are folded: paths may be of any depth.
_MAX_SEGMENTS: Final = 8


class RoutePatterns:
    """Some route patterns.

    Args:
        patterns: the texts, validated by the settings. `auto` and `none` match nothing.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._all = False
        self._expressions: list[tuple[str | None, re.Pattern[str]]] = []
        for pattern in patterns:
            if pattern == ALL:
                self._all = True
            elif pattern not in (AUTO, NONE):
                self._expressions.append(_parsed(pattern))

    def __bool__(self) -> bool:
        """Return whether any request can match."""
        return self._all or bool(self._expressions)

    def match(self, method: str, path: str) -> bool:
        """Return whether a request matches one of the patterns."""
        return self._all or any(
            (wanted is None or wanted == method) and expression.match(path)
            for wanted, expression in self._expressions
        )


def _parsed(pattern: str) -> tuple[str | None, re.Pattern[str]]:
    method, _, path = pattern.partition(" ") if pattern[0] != "/" else ("", "", pattern)
    return method or None, path_expression(path)


def readable(route: str) -> str:
    """Return a route as a pattern for the command line and the log.

    The bytes are decoded as UTF-8; `*` replaces what cannot be printed.
    """
    text = route.encode("latin-1", "replace").decode("utf-8", "replace")
    return "".join(
        each if each.isprintable() and each != "\ufffd" else "*" for each in text
    )


def route_of(method: str, path: str) -> str:
    """Return the kind of a request: its method and path with variable parts as `*`.

    `readable` makes it a pattern that matches the request: `GET /orders/*/items`.

    Args:
        method: the request method.
        path: the path of the environ: percent-decoded, bytes as Latin-1.
    """
    segments = path.split("/")
    if len(segments) > _MAX_SEGMENTS + 1:
        segments[_MAX_SEGMENTS:] = ["*"]
    return f"{method} {_VARIABLE.sub('*', '/'.join(segments))}"
