"""The option `--origin` of the command."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.options import Options
from txgreenwsgi.origins import NAMES


def parsed(*arguments: str) -> Options:
    """What is made of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return options


class OriginTests(SynchronousTestCase):
    """`--origin NAME`."""

    def test_none(self) -> None:
        """Without the option there is none."""
        self.assertEqual(parsed()["origin"], [])

    def test_every_name(self) -> None:
        """Each adapter may be named, and several, in their order."""
        self.assertEqual(
            parsed(*(f"--origin={name}" for name in NAMES))["origin"], list(NAMES)
        )

    def test_unknown(self) -> None:
        """A name that is none is refused, with those that are."""
        with self.assertRaisesRegex(UsageError, "'nginx' .* give awsgi, .* or uwsgi"):
            parsed("--origin", "nginx")

    def test_help(self) -> None:
        """The help names all adapters."""
        text = " ".join(str(Options()).split())
        for name in NAMES:
            self.assertIn(name, text)
