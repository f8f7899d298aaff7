"""Tests of transition tables."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._states import IllegalTransition, TransitionTable

from .matrices import assert_table, matrix

DOOR = TransitionTable(
    "a door",
    {
        "open": {"close": "shut", "remove": "gone"},
        "shut": {"open": "open", "lock": "locked", "remove": "gone"},
        "locked": {"unlock": "shut"},
        "gone": {},
    },
)


class TransitionTableTests(SynchronousTestCase):
    """`TransitionTable`."""

    def test_names(self) -> None:
        """States and events are listed in the order of the table, without repeats."""
        self.assertEqual(DOOR.name, "a door")
        self.assertEqual(DOOR.states, ("open", "shut", "locked", "gone"))
        self.assertEqual(DOOR.events, ("close", "remove", "open", "lock", "unlock"))

    def test_every_pair(self) -> None:
        """`moves` and `after` agree with the table for every state and event."""
        assert_table(
            self,
            DOOR,
            matrix(
                """
                       | open | close | lock   | unlock | remove
                open   | -    | shut  | -      | -      | gone
                shut   | open | -     | locked | -      | gone
                locked | -    | -     | -      | shut   | -
                gone   | -    | -     | -      | -      | -
                """
            ),
        )

    def test_moves(self) -> None:
        """The moves of an event are a dict of the states that allow it."""
        self.assertEqual(DOOR.moves("remove"), {"open": "gone", "shut": "gone"})

    def test_illegal_transition(self) -> None:
        """The error names the machine, the state, the event and the legal states."""
        error = self.assertRaises(IllegalTransition, DOOR.after, "locked", "remove")
        self.assertEqual(
            str(error),
            "a door: event 'remove' is illegal in state 'locked'; it is legal in "
            "'open', 'shut'",
        )
        self.assertEqual(
            (error.machine, error.state, error.event), ("a door", "locked", "remove")
        )
        self.assertIsInstance(error, RuntimeError)

    def test_illegal_everywhere(self) -> None:
        """An error without any legal state says so."""
        error = IllegalTransition("a door", "gone", "paint", [])
        self.assertEqual(
            str(error),
            "a door: event 'paint' is illegal in state 'gone'; it is legal in no state",
        )

    def test_illegal_lookup_changes_nothing(self) -> None:
        """A failed lookup does not make the transition legal."""
        moves = DOOR.moves("lock")
        for _ in range(2):
            self.assertRaises(IllegalTransition, moves.__getitem__, "open")
        self.assertEqual(moves, {"shut": "locked"})

    def test_unknown_event(self) -> None:
        """An event that no row contains raises ValueError, which names it."""
        for call in (DOOR.moves, lambda event: DOOR.after("open", event)):
            error = self.assertRaises(ValueError, call, "paint")
            self.assertEqual(str(error), "a door has no event 'paint'")

    def test_unknown_state(self) -> None:
        """A lookup of a state without a row raises IllegalTransition."""
        error = self.assertRaises(IllegalTransition, DOOR.after, "ajar", "close")
        self.assertEqual(error.state, "ajar")

    def test_missing_row(self) -> None:
        """A table whose moves lead to a state without a row is rejected."""
        error = self.assertRaises(
            ValueError, TransitionTable, "a door", {"open": {"close": "shut"}}
        )
        self.assertEqual(str(error), "a door: no rows for the states ['shut']")
