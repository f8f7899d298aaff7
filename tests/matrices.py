"""Expected state machines for the tests: full matrices, written as text tables.

This file knows no particular machine.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txgreenwsgi._states import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.trial.unittest import SynchronousTestCase

    from txgreenwsgi._states import TransitionTable

    Matrix = dict[str, dict[str, str]]

__all__ = ["ILLEGAL", "assert_event", "assert_table", "matrix"]

#: The cell of an event that is illegal in a state.
ILLEGAL = "-"


def matrix(text: str) -> Matrix:
    """Return the cells of a table as `cells[state][event]`.

    Args:
        text: lines of cells that are separated by "|": the events, then for each
            state its name and the state that follows each event, or `ILLEGAL`.
    """
    lines = [
        [cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()
    ]
    events = lines[0][1:]
    return {state: dict(zip(events, cells, strict=True)) for state, *cells in lines[1:]}


def assert_table(
    case: SynchronousTestCase, table: TransitionTable, expected: Matrix
) -> None:
    """Fail unless `table` agrees with `expected` for every (state, event) pair."""
    case.assertEqual(set(table.states), set(expected))
    for state, row in expected.items():
        case.assertEqual(set(table.events), set(row), state)
        for event, following in row.items():
            pair = f"{table.name}: {event!r} in {state!r}"
            moves = table.moves(event)
            if following == ILLEGAL:
                for look_up in (
                    partial(moves.__getitem__, state),
                    partial(table.after, state, event),
                ):
                    error = case.assertRaises(IllegalTransition, look_up)
                    case.assertEqual((error.state, error.event), (state, event), pair)
            else:
                case.assertEqual(moves[state], following, pair)
                case.assertEqual(table.after(state, event), following, pair)


def assert_event(
    case: SynchronousTestCase,
    cell: str,
    act: Callable[[], object],
    state_of: Callable[[], str],
    pair: str,
) -> None:
    """Fail unless `act` moves a machine as the cell of its matrix tells.

    Args:
        case: the test.
        cell: the next state, or `ILLEGAL`: then `act` raises `IllegalTransition`
            and the state stays.
        act: causes the event.
        state_of: returns the state of the machine.
        pair: the state and the event, for the failure.
    """
    if cell == ILLEGAL:
        before = state_of()
        try:
            act()
        except IllegalTransition as error:
            case.assertEqual(error.state, before, pair)
            case.assertEqual(state_of(), before, pair)
        else:
            case.fail(f"{pair}: no IllegalTransition; the state is {state_of()!r}")
    else:
        act()
        case.assertEqual(state_of(), cell, pair)
