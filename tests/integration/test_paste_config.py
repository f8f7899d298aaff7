"""A Pyramid project's ini file, served by the command and by a `.tac` file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import TestCase

from .processes import CHECKOUT, LOOPBACK, TWISTD, ServerProcess, serve, start

PROJECT = """
import logging
import time

from pyramid.config import Configurator

log = logging.getLogger(__name__)


def view(request):
    time.sleep(0.01)
    log.info("view of %s", request.path)
    return {"path": request.path, "title": request.registry.settings["title"]}


def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("all", "/*rest")
    config.add_view(view, route_name="all", renderer="json")
    return config.make_wsgi_app()


def mark(app, global_config, by, to):
    def marked(environ, start_response):
        blocks = app(environ, start_response)
        return [block.replace(by.encode(), to.encode()) for block in blocks]

    return marked
"""

# As the templates of Pyramid make it, with `call:` in place of an installed egg.
INI = """
[app:main]
use = call:paste_shop:main
pyramid.reload_templates = false
pyramid.default_locale_name = en
title = %(here)s

[filter:mark]
paste.filter_app_factory = paste_shop:mark
by = path
to = PATH

[pipeline:loud]
pipeline =
    mark
    main

[server:main]
use = egg:waitress#main
listen = localhost:6543

[loggers]
keys = root, paste_shop

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[logger_paste_shop]
level = DEBUG
handlers =
qualname = paste_shop

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(asctime)s %(levelname)-5.5s [%(name)s:%(lineno)s] %(message)s
"""

TAC = """
import sys
sys.path.insert(0, "{folder}")
sys.path.insert(0, "{checkout}")
from twisted.application.service import Application
from txgreenwsgi import service

application = Application("shop")
service(
    "config:{folder}/production.ini#loud",
    listen=["tcp:0:interface={loopback}"],
    patch="all",
).setServiceParent(application)
"""


class PyramidTests(TestCase):
    """An application of Pyramid, described by production.ini."""

    def setUp(self) -> None:
        """Write the project."""
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "etc").mkdir(parents=True)
        (self.folder / "paste_shop.py").write_text(PROJECT)
        (self.folder / "production.ini").write_text(INI)
        (self.folder / "etc" / "loud.ini").write_text(
            "[app:main]\nuse = config:../production.ini#loud\n"
        )

    def check(self, server: ServerProcess, key: str) -> None:
        """Check a response, and the line that the view has logged."""
        answer = server.fetch("/some/path")
        self.assertEqual(answer.status, 200, server.log)
        self.assertIn(f'"{key}": "/some/', answer.text)
        self.assertIn(str(self.folder), answer.text)
        server.wait_logged(r"INFO  \[paste_shop:\d+\] view of /some/path")

    def test_relative(self) -> None:
        """A relative path is relative to --chdir; "main" is the default name."""
        for spec in ("config:production.ini", "config:production.ini#main"):
            self.check(serve(self, spec, f"--chdir={self.folder}"), "path")

    def test_absolute(self) -> None:
        """An absolute path, a pipeline, and a file that uses another one."""
        chdir = f"--chdir={self.folder}"
        self.check(
            serve(self, f"config:{self.folder}/production.ini#loud", chdir), "PATH"
        )
        answer = serve(self, "config:etc/loud.ini", chdir).fetch("/some/path")
        self.assertIn('"PATH": "/some/', answer.text)

    def test_tac(self) -> None:
        """A service takes the same names."""
        tac = self.folder / "shop.tac"
        tac.write_text(
            TAC.format(folder=str(self.folder), checkout=CHECKOUT, loopback=LOOPBACK)
        )
        self.check(start(self, "-y", str(tac)), "PATH")

    def run_check(self, spec: str) -> subprocess.CompletedProcess[str]:
        """Run `--check` in the directory of the project."""
        return subprocess.run(
            [*TWISTD, "-n", "--pidfile=", "greenwsgi", f"--app={spec}", "--check"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def test_check(self) -> None:
        """`--check` loads the file, and reports the mistakes in its name."""
        done = self.run_check("config:production.ini#loud")
        self.assertEqual(done.returncode, 0, done.stdout)
        done = self.run_check("config:production.ini#quiet")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("give one of #main, #loud", done.stdout)
        self.assertNotIn("Traceback", done.stdout)
