"""`txgreenwsgi [SPEC] [options]` as a command line of twistd."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from twisted.python.usage import UsageError
from twisted.scripts import twistd
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._command import SUBCOMMANDS
from txgreenwsgi._command.serve import help_text, main, translate
from txgreenwsgi._twistd.hints import PROCESS_OPTIONS
from txgreenwsgi._twistd.options import Options


class TranslationTests(SynchronousTestCase):
    """Valid command lines."""

    def test_no_arguments(self) -> None:
        """Without arguments, the defaults of the server apply."""
        self.assertEqual(translate([]), ([], [], False))

    def test_spec(self) -> None:
        """The application may be before, between or after the options."""
        for words in (
            ["shop:app", "--listen", "tcp:80", "--strict"],
            ["--listen", "tcp:80", "shop:app", "--strict"],
            ["--listen=tcp:80", "--strict", "shop:app"],
            ["--listen=tcp:80", "--strict", "--", "shop:app"],
        ):
            line = translate(words)
            self.assertEqual(line.process, [])
            self.assertEqual(
                line.server, ["--listen=tcp:80", "--strict", "--app=shop:app"]
            )

    def test_posixly_correct(self) -> None:
        """Options after the application do not depend on the environment."""
        self.patch(os, "environ", {**os.environ, "POSIXLY_CORRECT": "1"})
        self.assertEqual(
            translate(["shop", "--strict"]).server, ["--strict", "--app=shop"]
        )

    def test_options_of_twistd(self) -> None:
        """Options of twistd are passed to it, some with another name."""
        line = translate(
            [
                *("--reactor", "select", "shop", "--log-file=x.log", "--syslog"),
                *("--syslog-prefix", "web", "--umask=027", "--debug"),
            ]
        )
        self.assertEqual(
            line.process,
            [
                *("--reactor=select", "--logfile=x.log", "--syslog", "--prefix=web"),
                *("--umask=027", "--debug"),
            ],
        )
        self.assertEqual(line.server, ["--app=shop"])

    def test_same_names(self) -> None:
        """Options of the server take precedence over those of twistd."""
        line = translate(["--logfile", "access.log", "--prefix", "/app", "-l", "x"])
        self.assertEqual(line.process, [])
        self.assertEqual(
            line.server, ["--logfile=access.log", "--prefix=/app", "-l", "x"]
        )

    def test_abbreviations(self) -> None:
        """An unambiguous beginning of an option is enough, as in twistd."""
        line = translate(["--grace", "5", "--pidf=p"])
        self.assertEqual(line.server, ["--graceful-timeout=5"])
        self.assertEqual(line.process, ["--pidfile=p"])

    def test_values_that_look_like_options(self) -> None:
        """The value of an option may be any text."""
        line = translate(["--add-header", "--x: y", "--app", "--"])
        self.assertEqual(line.server, ["--add-header=--x: y", "--app=--"])

    def test_help(self) -> None:
        """--help needs no valid command line after it."""
        for words in (["--help"], ["-h"], ["shop", "--help", "extra"]):
            self.assertTrue(translate(words).wants_help)

    def test_every_option(self) -> None:
        """Every option of the server is accepted, and parsed by it alone."""
        options: Any = Options()
        for option in options.longOpt:
            if option in ("help",):
                continue
            value = "1" if option.endswith("=") else ""
            line = translate([f"--{option}{value}"])
            self.assertEqual(line.server, [f"--{option}{value}"])

    def test_no_conflict(self) -> None:
        """No option of twistd has the name of an option of the server."""
        options: Any = Options()
        ours = {option.rstrip("=") for option in options.longOpt}
        self.assertEqual(ours.intersection(PROCESS_OPTIONS), set())


class RefusalTests(SynchronousTestCase):
    """Invalid command lines."""

    def refusal(self, *words: str) -> str:
        """Return the message."""
        return str(self.assertRaises(UsageError, translate, words))

    def test_unknown_option(self) -> None:
        """An option of another server gets its counterpart."""
        self.assertEqual(
            self.refusal("shop", "-b", ":80"),
            "-b is not an option: use --listen with an endpoint string: --listen "
            "tcp:80",
        )
        self.assertEqual(
            self.refusal("-u", "www"), "-u is not an option: give --uid www"
        )
        self.assertEqual(
            self.refusal("--umaskk", "x"),
            "--umaskk is not an option: did you mean --umask?",
        )

    def test_no_value(self) -> None:
        """An option without its value is named."""
        self.assertEqual(self.refusal("--uid"), "option --uid requires argument")

    def test_two_applications(self) -> None:
        """There is one application."""
        self.assertEqual(
            self.refusal("serve", "shop:app"),
            "'serve' and 'shop:app' are two arguments, but there is one application: "
            "give txgreenwsgi shop:app, with options before or after",
        )
        for option in ("--app", "--wsgi"):
            self.assertEqual(
                self.refusal("shop", option, "site"),
                f"'shop' and {option} name two applications: remove one",
            )
        self.assertIn("'' is empty", self.refusal(""))

    def test_not_a_module(self) -> None:
        """A file or an address gets the text to give."""
        for word, remedy in [
            ("shop/wsgi.py", "is the name of a file: give txgreenwsgi shop.wsgi"),
            ("wsgi.py:app", "is the name of a file: give txgreenwsgi wsgi:app"),
            (
                "/no/such/wsgi.py",
                "is the name of a file: give txgreenwsgi wsgi --chdir /no/such",
            ),
            (
                "production.ini",
                "is the name of a file: give txgreenwsgi config:production.ini",
            ),
            ("8000", "is an address, not an application: give --listen tcp:8000"),
            (
                "127.0.0.1:8000",
                "is an address, not an application: give --listen "
                "tcp:8000:interface=127.0.0.1",
            ),
        ]:
            self.assertEqual(self.refusal(word), f"{word!r} {remedy}")
        for word in ("shop", "shop:create_app(1)", "config:a.ini#b", "shop.wsgi"):
            self.assertEqual(translate([word]).server, [f"--app={word}"])

    def test_misspelled_subcommand(self) -> None:
        """A word that resembles a subcommand is one, unless such a module exists."""
        self.assertEqual(
            self.refusal("relaod"),
            "'relaod' is neither a subcommand nor a module: did you mean reload?",
        )
        directory = Path(self.mktemp())
        directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        Path("relaod.py").touch()
        self.assertEqual(translate(["relaod"]).server, ["--app=relaod"])
        self.assertEqual(translate(["statu:app"]).server, ["--app=statu:app"])

    def test_subcommand_behind_options(self) -> None:
        """A subcommand is the first word."""
        self.assertEqual(
            self.refusal("--strict", "status"),
            "'status' is a subcommand, which comes first: txgreenwsgi status ...; to "
            "serve a module of that name, give --app status",
        )
        self.assertEqual(translate(["--app", "status"]).server, ["--app=status"])


class MainTests(SynchronousTestCase):
    """The exit status and the output."""

    def setUp(self) -> None:
        """Collect the output."""
        self.output, self.errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)
        self.started: list[Any] = []
        self.patch(twistd, "runApp", self.started.append)

    def test_served(self) -> None:
        """Twistd runs in the foreground, without a pidfile."""
        self.assertEqual(main(["shop:app", "--umask=027", "--strict"]), 0)
        (config,) = self.started
        self.assertTrue(config["nodaemon"])
        self.assertEqual(config["pidfile"], "")
        self.assertEqual(config["umask"], 0o27)
        self.assertEqual(config.subCommand, "greenwsgi")
        self.assertEqual(list(config.loadedPlugins), ["greenwsgi"])
        self.assertEqual(config.subOptions.command.app, "shop:app")
        self.assertTrue(config.subOptions.settings.strict)

    def test_usage_error(self) -> None:
        """A usage error prints the error and one line, and has status 2."""
        for words, error in [
            (["--keepalive", "5"], "--keepalive is not an option: did you mean"),
            (["--keep-alive", "x"], "--keep-alive 'x' is not a number of seconds"),
            (["--reactor", "warp"], "The specified reactor does not exist: 'warp'"),
            (["--logger", "no.such"], "Logger 'no.such' could not be imported"),
        ]:
            self.errors.truncate(0)
            self.errors.seek(0)
            self.assertEqual(main(words), 2)
            written = self.errors.getvalue()
            self.assertTrue(written.startswith(f"txgreenwsgi: {error}"), written)
            self.assertTrue(
                written.endswith("\ntxgreenwsgi --help lists the options\n")
            )
            self.assertLess(written.count("\n"), 4)
        self.assertEqual(self.output.getvalue(), "")
        self.assertEqual(self.started, [])

    def test_unknown_option(self) -> None:
        """The remedy of the last resort is not printed twice."""
        self.assertEqual(main(["--zebra"]), 2)
        self.assertEqual(
            self.errors.getvalue(),
            "txgreenwsgi: --zebra is not an option: --help lists the options\n",
        )

    def test_help(self) -> None:
        """The help lists subcommands, options and options of the process."""
        self.assertEqual(main(["--help"]), 0)
        self.assertEqual(self.output.getvalue(), help_text() + "\n")
        self.assertEqual(self.started, [])

    def test_help_text(self) -> None:
        """Every option and subcommand is in the help, in lines of 80 columns."""
        self.patch(os, "environ", {**os.environ, "COLUMNS": "80"})
        text = help_text()
        options: Any = Options()
        for name in (*options.longOpt, *PROCESS_OPTIONS):
            self.assertIn(f"  --{name}", text)
        for name, subcommand in SUBCOMMANDS.items():
            self.assertIn(f"\n  {name} {subcommand.form}".rstrip(), text)
        self.assertEqual([line for line in text.splitlines() if len(line) > 80], [])
        self.assertEqual(text.count("--version"), 1)

    def test_version(self) -> None:
        """--version prints the versions and exits."""
        self.assertRaises(SystemExit, main, ["--version"])
        self.assertTrue(self.output.getvalue().startswith("txgreenwsgi "))
