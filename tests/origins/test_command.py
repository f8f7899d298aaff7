"""Tests of the option `--origin` of the command."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.options import Options
from txgreenwsgi.origins import NAMES


def parsed(*arguments: str) -> Options:
    """Return the options of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return options


class OriginTests(SynchronousTestCase):
    """`--origin NAME`."""

    def test_none(self) -> None:
        """Without the option the list is empty."""
        self.assertEqual(parsed()["origin"], ())

    def test_every_name(self) -> None:
        """Each adapter may be named, and several, in order."""
        self.assertEqual(
            parsed(*(f"--origin={name}" for name in NAMES))["origin"], NAMES
        )

    def test_unknown(self) -> None:
        """An unknown name raises an error that lists the known ones."""
        with self.assertRaisesRegex(UsageError, "'nginx' .* give awsgi, .* or uwsgi"):
            parsed("--origin", "nginx")

    def test_help(self) -> None:
        """The help names all adapters."""
        text = " ".join(str(Options()).split())
        for name in NAMES:
            self.assertIn(name, text)
