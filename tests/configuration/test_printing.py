"""`--print-config`: the text, and reading it again."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import (
    Conditions,
    Configuration,
    ConfigurationError,
    Given,
    all_options,
    printed,
    resolve,
)


def configured(**values: object) -> Configuration:
    """Return a configuration with these values, which have the origin "test"."""
    options = {name: Given(value, "test") for name, value in values.items()}
    return resolve(options, {}, Conditions(), lambda key, value: "")


#: Text of arguments, without NUL and without surrogates.
TEXT = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]))


class PrintTests(SynchronousTestCase):
    """`printed`."""

    def read(self, text: str) -> Configuration:
        """Return the configuration of a file elsewhere."""
        path = Path(self.mktemp())
        path.mkdir()
        path /= "printed.toml"
        path.write_text(text, "utf-8")
        options = {"config": Given(str(path), "--config")}
        return resolve(options, {}, Conditions(), lambda key, value: "")

    def assert_round_trip(self, configuration: Configuration) -> None:
        """Assert that the printed file gives the same configuration."""
        again = self.read(printed(configuration, os.getcwd()))
        self.assertEqual(again.command(), self.without_config(configuration, again))
        self.assertEqual(again.settings(), configuration.settings())

    def without_config(self, one: Configuration, other: Configuration) -> object:
        """Return the command of one configuration with the file of the other."""
        given = {**one.given, "config": other.given["config"]}
        return Configuration(given).command()

    def test_defaults(self) -> None:
        """Every option is printed with its origin, and defaults read back."""
        configuration = configured()
        text = printed(configuration, "/")
        for name, each in all_options().items():
            if each.option.is_action or not each.option.in_file:
                self.assertNotIn(f"{name} =", text)
            elif each.default is None:
                self.assertIn(f"# {name}: not set\n", text)
            else:
                self.assertRegex(text, rf"(?m)^{name} = .+  # default$")
        self.assertIn('patch = "all"  # default\n', text)
        self.assert_round_trip(configuration)

    def test_values(self) -> None:
        """Values of every kind read back."""
        configuration = configured(
            app="a:b('\"\\\n\t\x7f\U0001f600')",
            patch=(),
            listen=("tcp6:1:interface=\\:\\:1", "unix:/run/a b.sock"),
            add_header=(("A", "b: c"), ("A", 'd "e"')),
            environ=(("A", "=b\n"), ("C", "")),
            max_body=0,
            keep_alive=0.1,
            request_timeout=1e300,
            strict=True,
            chunked="stream",
            methods=("GET", "X"),
            access_log="-",
            trusted_proxy=("unix", "10.0.0.0/8"),
            workers="auto",
        )
        self.assert_round_trip(configuration)
        self.assertIn(
            'environ = ["A==b\\n", "C="]  # test\n', printed(configuration, "/")
        )

    @settings(deadline=None)
    @given(TEXT, TEXT)
    def test_any_text(self, app: str, value: str) -> None:
        """Any text reads back."""
        configuration = configured(app="a" + app, environ=(("A", value),))
        self.assert_round_trip(configuration)

    def test_paths(self) -> None:
        """Relative paths are printed as absolute ones."""
        configuration = configured(
            access_log="a.log", chdir=".", listen=("unix:b.sock", "tcp:1")
        )
        text = printed(configuration, "/srv/a:b")
        self.assertIn('access_log = "/srv/a:b/a.log"', text)
        self.assertIn('chdir = "/srv/a:b"', text)
        self.assertIn(r'listen = ["unix:/srv/a\\:b/b.sock", "tcp:1"]', text)

    def test_origin(self) -> None:
        """An origin cannot end the comment."""
        configuration = configured()
        given = {**configuration.given, "app": Given("a", "x\ny\udcff.toml, line 1")}
        text = printed(Configuration(given), "/")
        self.assertIn('app = "a"  # x\\x0ay\\xdcff.toml, line 1\n', text)

    def test_not_utf8(self) -> None:
        """A value that TOML cannot express is an error."""
        error = self.assertRaises(
            ConfigurationError, printed, configured(app="a\udcff"), "/"
        )
        self.assertIn("a value that is not UTF-8 text", str(error))
