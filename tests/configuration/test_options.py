"""The descriptions of the command's options, and the validation of values."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import (
    Command,
    Conditions,
    Described,
    Option,
    all_options,
    read,
)
from txgreenwsgi.settings import SettingError, described


def value(option: Option, text: str) -> Any:
    """Return the value of an option from its text."""
    return read(Described("example", option, None), text, Conditions())


class DescriptionTests(SynchronousTestCase):
    """`all_options`."""

    def test_names(self) -> None:
        """The options are the fields of Command, then the settings of the server."""
        names = [field.name for field in dataclasses.fields(Command)]
        names += [name for name, _setting, _default in described()]
        self.assertEqual(list(all_options()), names)
        self.assertEqual(len(set(names)), len(names))

    def test_descriptions(self) -> None:
        """Each option has a sentence, and a placeholder or choices for a text."""
        for name, option, _default in all_options().values():
            self.assertRegex(option.meaning, r"\A[A-Z].*\.\Z", name)
            if option.kind in ("text", "names", "pairs", "words", "choice"):
                self.assertTrue(option.form or option.choices, name)

    def test_defaults(self) -> None:
        """The default of a list is a tuple, and of every option a valid value."""
        for name, option, default in all_options().values():
            if option.kind in ("names", "pairs", "words"):
                self.assertIsInstance(default, tuple, name)
            if option.kind == "choice" and default is not None:
                self.assertIn(default, option.choices, name)


class ReadTests(SynchronousTestCase):
    """`read` for an option that is not a setting."""

    def test_number_or_word(self) -> None:
        """A count with choices takes a number or one of these words."""
        option = Option("count", "Number.", minimum=1, choices=("auto",))
        self.assertEqual(value(option, "auto"), "auto")
        self.assertEqual(value(option, "4"), 4)
        for text, message in {
            "many": "is not a whole number: give decimal digits or auto",
            "0": "is out of range: give a whole number, at least 1, or auto",
            "-1": "is out of range: give a whole number, at least 1, or auto",
        }.items():
            error = self.assertRaises(SettingError, value, option, text)
            self.assertIn(message, str(error))

    def test_kinds(self) -> None:
        """The text becomes a value of the option's kind."""
        for kind, text, expected in (
            ("bytes", "64K", 65536),
            ("seconds", "0.5", 0.5),
            ("names", "a, b", ("a", "b")),
            ("words", "a b", "a b"),
            ("text", "", ""),
        ):
            given: Any = kind
            self.assertEqual(value(Option(given, "Example."), text), expected)
        self.assertEqual(value(Option("pairs", "E.", separator="="), "a=b"), ("a", "b"))

    def test_check(self) -> None:
        """The check gets the value as the type of its kind, or a word of a list."""
        for kind, text, expected in (("count", "2", "2!"), ("words", "a", "'a'!")):
            given: Any = kind
            option = Option(given, "Example.", check=lambda got, _c: f"{got!r}!")
            self.assertEqual(value(option, text), expected)
