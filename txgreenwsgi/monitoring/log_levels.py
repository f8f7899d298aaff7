"""Levels of the server log, for all components or for single ones.

A component is a namespace of Twisted's log, such as `txgreenwsgi._workers.master`, with
the namespaces below it. It must never know how a line is written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.logger import LogEvent

__all__ = ["LEVELS", "LogLevels", "parsed_level"]

#: The names of the levels, the lowest first.
LEVELS: Final = ("debug", "info", "warn", "error", "critical")

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.\-/]+\Z")


def parsed_level(word: str) -> tuple[str, str]:
    """Return the namespace and the level of a word, such as `twisted=warn`.

    The namespace of a level alone is "", for all components.

    Raises:
        ValueError: the word has another form; the message gives the reason.
    """
    namespace, equals, level = word.rpartition("=")
    if equals and not _NAMESPACE.match(namespace):
        raise ValueError(f"{namespace!r} is no namespace")
    if level not in LEVELS:
        raise ValueError(f"{level!r} is no level")
    return namespace, level


class LogLevels:
    """The lowest level that is logged, by component.

    Args:
        words: as for `parsed_level`. The longest namespace that contains the component
            counts; of two words for one namespace, the last.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._ranks = {
            namespace: LEVELS.index(level)
            for namespace, level in map(parsed_level, words)
        }
        # By namespace; the number of namespaces is that of the modules that log.
        self._found: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def allows(self, event: LogEvent) -> bool:
        """Return whether an event is logged. An event without a level is `info`."""
        if not self._ranks:
            return True
        level = event.get("log_level")
        name = "info" if level is None else level.name
        namespace = event.get("log_namespace") or ""
        rank = self._found.get(namespace)
        if rank is None:
            rank = self._found[namespace] = self._rank(namespace)
        return LEVELS.index(name) >= rank

    def _rank(self, namespace: str) -> int:
        while namespace and namespace not in self._ranks:
            namespace = namespace.rpartition(".")[0]
        return self._ranks.get(namespace, 0)
