"""Applications in paste.deploy files."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import service
from txgreenwsgi._launch.find_app import AppNotFound, check_spec, find_app
from txgreenwsgi._twistd.options import Options

FACTORY = """
def make(global_conf, **settings):
    def app(environ, start_response):
        return [repr(sorted(settings.items())), global_conf["here"]]
    return app

def upper(app, global_conf):
    return lambda environ, start_response: [app(environ, start_response)[0].upper()]

def breaks(global_conf):
    return {}["inside of the factory"]

def number(global_conf):
    return 5

app = make({"here": "module"})
"""

INI = """
[DEFAULT]
color = red

[app:main]
paste.app_factory = findme_paste:make
Title = 100%% %(here)s

[app:second]
paste.app_factory = findme_paste:make
title = second

[filter:upper]
paste.filter_app_factory = findme_paste:upper

[pipeline:loud]
pipeline = upper second

[composite:both]
use = call:findme_paste:make

[app:breaks]
paste.app_factory = findme_paste:breaks

[app:number]
paste.app_factory = findme_paste:number

[server:main]
use = egg:waitress#main
"""

LOGGING = """
[loggers]
keys = root, findme

[handlers]
keys = file

[formatters]
keys = plain

[logger_root]
level = WARNING
handlers = file

[logger_findme]
level = DEBUG
handlers =
qualname = findme.paste

[handler_file]
class = FileHandler
args = ("%(here)s/app.log",)
formatter = plain

[formatter_plain]
format = %(levelname)s %(message)s
"""


class PasteTestCase(SynchronousTestCase):
    """Files in a current directory of their own."""

    def setUp(self) -> None:
        """Create a module and a file, and enter their directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.patch(sys, "path", [str(self.directory), *sys.path])
        self.addCleanup(sys.modules.pop, "findme_paste", None)
        self.addCleanup(sys.modules.pop, "config", None)
        self.write("findme_paste.py", FACTORY)
        self.write("prod.ini", INI)

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def answer(self, spec: str) -> Any:
        """Return the response of the named application."""
        check_spec(spec)
        return find_app(spec)({}, lambda *_args: lambda _block: None)

    def refusal(self, spec: str) -> str:
        """Return the error message, with DIR for the directory."""
        error = self.assertRaises(AppNotFound, find_app, spec)
        return str(error).replace(str(self.directory), "DIR")


class PasteConfigTests(PasteTestCase):
    """The names of applications, and mistakes in them."""

    def test_names(self) -> None:
        """The name is that of a section; "main" is the default."""
        main = f"[('Title', '100% {self.directory}')]"
        for spec, expected in {
            "config:prod.ini": main,
            "config:prod.ini#": main,
            "config:prod.ini#main": main,
            f"config:{self.directory}/prod.ini": main,
            f"config:{self.directory}/prod.ini#second": "[('title', 'second')]",
            "config:./prod.ini#second": "[('title', 'second')]",
            "config:prod.ini#loud": "[('TITLE', 'SECOND')]",
        }.items():
            self.assertEqual(self.answer(spec)[0], expected, spec)

    def test_paths(self) -> None:
        """A file may have any name; %20 is a space."""
        for name in ("a b", "none", "sub/x.cfg", "ünï.ini"):
            self.write(name, "[app:main]\npaste.app_factory = findme_paste:make\n")
            found = self.answer(f"config:{name}")
            self.assertEqual(found[1], str((self.directory / name).parent))
        self.assertEqual(self.answer("config:a%20b")[0], "[]")

    def test_module_of_that_name(self) -> None:
        """A module called config is found as before."""
        self.write("config.py", FACTORY)
        for spec in ("config:app", "config.app", "config", "config:make({'here': ''})"):
            self.assertEqual(self.answer(spec)[0], "[]", spec)

    def test_missing_file(self) -> None:
        """For a missing file, the message gives the whole path."""
        for spec in ("config:nonesuch.ini", "config:nonesuch.ini#main"):
            self.assertEqual(
                self.refusal(spec),
                f"--app {spec!r}: DIR/nonesuch.ini cannot be read (No such file or "
                "directory); give the path of a paste.deploy file, absolute or "
                "relative to the current directory",
            )
        self.assertIn("Is a directory", self.refusal("config:./"))

    def test_missing_section(self) -> None:
        """For a missing section, the message lists those that exist."""
        self.assertEqual(
            self.refusal("config:prod.ini#mian"),
            "--app 'config:prod.ini#mian': DIR/prod.ini has no section [app:mian], nor "
            "a composite or pipeline of that name; give one of #main, #second, #loud, "
            "#both, #breaks, #number",
        )
        self.write("empty.ini", "[server:main]\n")
        self.assertIn("of that name; add one", self.refusal("config:empty.ini"))

    def test_malformed_file(self) -> None:
        """A file with another syntax is refused."""
        for text in ("key = value\n", "[app:main\n", "[a]\n[a]\n", "[a]\nno value\n"):
            self.write("bad.ini", text)
            self.assertIn(
                "is not a paste.deploy file", self.refusal("config:bad.ini"), text
            )
        (self.directory / "bad.ini").write_bytes(b"\xff\xfe[app:main]")
        self.assertIn("is not a paste.deploy file", self.refusal("config:bad.ini"))

    def test_package_is_missing(self) -> None:
        """Without PasteDeploy, the message names it."""
        self.patch(sys, "modules", {**sys.modules, "paste.deploy": None})
        self.assertIn("run pip install PasteDeploy", self.refusal("config:prod.ini"))

    def test_errors_of_the_factory(self) -> None:
        """An exception of the factory propagates unchanged."""
        self.assertRaises(KeyError, find_app, "config:prod.ini#breaks")

    def test_not_an_application(self) -> None:
        """A factory that returns something else is reported."""
        self.assertIn("5 is of type int", self.refusal("config:prod.ini#number"))

    def test_file_without_prefix(self) -> None:
        """For the name of an ini file, the message gives the prefix."""
        for text in ("prod.ini", "etc/prod.ini#main", "/etc/prod.ini"):
            for find in (find_app, check_spec):
                error = self.assertRaises(AppNotFound, find, text)
                self.assertIn(f"give --app config:{text}", str(error))
        error = self.assertRaises(AppNotFound, service, "prod.ini")
        self.assertIn("give app='config:prod.ini'", str(error))

    def test_positional_argument(self) -> None:
        """The command names the option for a file."""
        for text in ("prod.ini", "config:prod.ini", "config:etc/prod.ini#main"):
            error = self.assertRaises(usage.UsageError, Options().parseOptions, [text])
            spec = text if text.startswith("config:") else f"config:{text}"
            self.assertIn(f"give --app {spec}", str(error))

    def test_service(self) -> None:
        """A service loads the file when it starts, not before."""
        (self.directory / "prod.ini").rename("later.ini")
        made = service("config:prod.ini", [])
        (self.directory / "later.ini").rename("prod.ini")
        made.startService()
        self.addCleanup(made.stopService)
        application: Any = made.site.application
        self.assertIn("100%", application({}, None)[0])


class LoggingTests(PasteTestCase):
    """The logging sections of a file."""

    def setUp(self) -> None:
        """Restore the state of `logging` at the end."""
        super().setUp()
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level

        def restore() -> None:
            for handler in root.handlers:
                if handler not in handlers:
                    handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)

        self.addCleanup(restore)
        self.write("prod.ini", INI + LOGGING)

    def test_configured(self) -> None:
        """The logging sections apply before the application is made."""
        before = logging.getLogger("findme.before")
        find_app("config:prod.ini")
        logging.getLogger("findme.paste").debug("debug line")
        logging.getLogger("findme.other").info("not this one")
        before.warning("existing logger")
        lines = (self.directory / "app.log").read_text().splitlines()
        self.assertEqual(lines, ["DEBUG debug line", "WARNING existing logger"])

    def test_invalid(self) -> None:
        """Invalid logging sections are reported with the file."""
        self.write("prod.ini", INI + "[loggers]\nkeys = root\n")
        message = self.refusal("config:prod.ini")
        self.assertIn("the logging sections of DIR/prod.ini cannot be used", message)
