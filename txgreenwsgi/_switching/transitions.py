"""The error of a state machine: an event that its state does not allow.

The state machines of tasks and suspensions are tables, `TRANSITIONS`, that map each
state to the events it allows, and each event to the next state. The code compares
states by identity, since it does so at every wait; tests check it against the table
for every pair of state and event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IllegalTransition"]


class IllegalTransition(RuntimeError):
    """A state machine received an event that its state does not allow.

    Args:
        machine: the kind of object, for the message.
        table: its transitions, state -> event -> next state.
        state: the state that it is in.
        event: the event that it received.
        remedy: what the caller should do.
    """

    def __init__(
        self,
        machine: str,
        table: Mapping[str, Mapping[str, str]],
        state: str,
        event: str,
        remedy: str = "",
    ) -> None:
        allowed = " or ".join(each for each in table if event in table[each])
        super().__init__(
            f"the {machine} is {state} and cannot {event}: "
            + (remedy or f"{event!r} is allowed in the state {allowed} only")
        )
