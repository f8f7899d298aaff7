"""Transition tables: the definition of a state machine in one place.

A machine is a table of states, each with its legal events and the next states.
States and events are plain strings: comparing them by identity costs nothing, and
a move is one dict lookup (`docs/decisions/0009-state-tables.md` has the figures).

    PROTOCOL = TransitionTable("a door", {"open": {"close": "shut"}, "shut": {}})
    _ON_CLOSE = PROTOCOL.moves("close")
    self.state = _ON_CLOSE[self.state]

This file knows no particular machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IllegalTransition", "Moves", "TransitionTable"]


class IllegalTransition(RuntimeError):
    """An event that is illegal in the current state: a bug in txgreenwsgi.

    Attributes:
        machine: the name of the table.
        state: the current state.
        event: the illegal event.
    """

    def __init__(self, machine: str, state: str, event: str, legal: list[str]) -> None:
        super().__init__(
            f"{machine}: event {event!r} is illegal in state {state!r}; "
            f"it is legal in {', '.join(map(repr, legal)) or 'no state'}"
        )
        self.machine = machine
        self.state = state
        self.event = event


class Moves(dict[str, str]):
    """The transitions of one event: a mapping of current to next state.

    Raises:
        IllegalTransition: on lookup of a state in which the event is illegal.
    """

    __slots__ = ("_event", "_machine")

    def __init__(self, machine: str, event: str, moves: Mapping[str, str]) -> None:
        super().__init__(moves)
        self._machine = machine
        self._event = event

    def __missing__(self, state: str) -> str:
        raise IllegalTransition(self._machine, state, self._event, list(self))


class TransitionTable:
    """A state machine as a table.

    Args:
        name: the name of the machine in errors, such as "an exchange".
        table: for each state, its legal events and the next state of each. A final
            state has an empty row.

    Attributes:
        name: as given.
        states: all states, in the order of the table.
        events: all events, in the order of their first appearance.
    """

    def __init__(self, name: str, table: Mapping[str, Mapping[str, str]]) -> None:
        self.name = name
        self.table = table
        self.states = tuple(table)
        self.events = tuple(dict.fromkeys(e for row in table.values() for e in row))
        unknown = {t for row in table.values() for t in row.values()} - set(table)
        if unknown:
            raise ValueError(f"{name}: no rows for the states {sorted(unknown)}")

    def after(self, state: str, event: str) -> str:
        """Return the state that follows `state` at `event`.

        For hot paths that have already checked the state: evaluate it at import.
        """
        return self.moves(event)[state]

    def moves(self, event: str) -> Moves:
        """Return the transitions of `event`, for lookups on a hot path."""
        if event not in self.events:
            raise ValueError(f"{self.name} has no event {event!r}")
        rows = self.table.items()
        return Moves(
            self.name, event, {s: row[event] for s, row in rows if event in row}
        )
