"""The server in a `.tac` file: patching, the access log and the errors of a start."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, START_SECONDS, ServerProcess, start

# A view that blocks by a function that its module has bound.
SHOP = """
    import sys, time
    from time import sleep

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/bound":
            sleep(1)
        elif environ["PATH_INFO"] == "/module":
            time.sleep(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"Hello\\n"]
"""

# The first lines of each `.tac`: `twistd -y` puts no directory on the path.
HEAD = """
    import os, sys
    from twisted.application.service import Application
    from twisted.application.internet import StreamServerEndpointService
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString
    sys.path[:0] = [os.environ["CHECKOUT"], os.path.dirname(os.path.abspath(__file__))]
    application = Application("shop")
    listen = "tcp:0:interface=127.0.0.1"
"""

BY_NAME = """
    from txgreenwsgi import service
    service(
        "shop:app", [listen], patch="all", access_log="-", access_log_format="json"
    ).setServiceParent(application)
"""

PATCHED_FIRST = """
    from txgreenwsgi import monkey
    monkey.patch_all()
    from txgreenwsgi import service
    from shop import app
    service(app, [listen]).setServiceParent(application)
"""

SITE = """
    from txgreenwsgi import monkey
    monkey.patch_all()
    from txgreenwsgi import GreenSite
    from shop import app
    site = GreenSite(app, access_log="-", access_log_format="json")
    StreamServerEndpointService(
        serverFromString(reactor, listen), site
    ).setServiceParent(application)
"""

RESOURCE = """
    from txgreenwsgi import monkey
    monkey.patch_all()
    from twisted.web.server import Site
    from txgreenwsgi import GreenWSGIResource
    from shop import app
    resource = GreenWSGIResource(app, access_log="-", access_log_format="json")
    StreamServerEndpointService(
        serverFromString(reactor, listen), Site(resource)
    ).setServiceParent(application)
"""

UNPATCHED = """
    from txgreenwsgi import service
    from shop import app
    service(app, [listen]).setServiceParent(application)
"""

UNPATCHED_SITE = """
    from txgreenwsgi import GreenSite
    from shop import app
    StreamServerEndpointService(
        serverFromString(reactor, listen), GreenSite(app)
    ).setServiceParent(application)
"""

UNPATCHED_RESOURCE = """
    from twisted.web.server import Site
    from txgreenwsgi import GreenWSGIResource
    from shop import app
    StreamServerEndpointService(
        serverFromString(reactor, listen), Site(GreenWSGIResource(app))
    ).setServiceParent(application)
"""

NO_ACCESS_LOG = (
    "the access log cannot be opened ([Errno 2] No such file or directory: "
    "'/nowhere/log'): give a file that this user may write to"
)


class EmbeddingTests(SynchronousTestCase):
    """Servers that `twistd -y` starts."""

    def write(self, tac: str) -> str:
        """Write a `.tac` beside the application; return its path."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "shop.py").write_text(textwrap.dedent(SHOP))
        path = directory / "shop.tac"
        path.write_text(textwrap.dedent(HEAD) + textwrap.dedent(tac))
        return str(path.resolve())

    def start(self, tac: str) -> ServerProcess:
        """Start twistd with this `.tac`."""
        environ = {"CHECKOUT": str(CHECKOUT)}
        return start(self, "-y", self.write(tac), environ=environ)

    def seconds_of_five(self, server: ServerProcess, path: str) -> float:
        """Return the duration of five concurrent requests of one second each."""
        started = time.monotonic()
        threads = [Thread(target=server.fetch, args=(path,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - started

    def test_views_that_block(self) -> None:
        """Patched as documented, five views in time.sleep(1) take one second."""
        for tac in (BY_NAME, PATCHED_FIRST, SITE, RESOURCE):
            server = self.start(tac)
            for path in ("/bound", "/module"):
                # One after the other, they take five seconds.
                self.assertLess(self.seconds_of_five(server, path), 5, (tac, path))
            self.assertNotIn("not patched", server.log())
            server.ask_to_stop()
            server.wait_ended()

    def test_not_patched(self) -> None:
        """Without patching they take two, and the log gives the remedy at the start."""
        server = self.start(UNPATCHED)
        server.wait_logged(r"The standard library is not patched: .*patch_all\(\)")
        self.assertGreater(self.seconds_of_five(server, "/module"), 4.9)
        self.assertEqual(server.log().count("not patched"), 1)

    def test_remedy(self) -> None:
        """The remedy is one that the server takes: only `service()` patches itself."""
        for tac, remedy in [
            (
                UNPATCHED,
                r'waits\. Give service\(\) patch="all" and the application by name',
            ),
            (UNPATCHED_SITE, r"waits\. Call \S+\(\) before .* given to GreenSite is"),
            (UNPATCHED_RESOURCE, r"before .* given to GreenWSGIResource is imported"),
        ]:
            server = self.start(tac)
            server.fetch("/")
            server.wait_logged(remedy)
            server.ask_to_stop()
            server.wait_ended()
            self.assertEqual(server.log().count("not patched"), 1)

    def test_access_log(self) -> None:
        """`access_log="-"` writes each request to standard output, up to the last."""
        for tac in (BY_NAME, SITE, RESOURCE):
            server = self.start(tac)
            server.fetch("/first")
            server.fetch("/last")
            server.ask_to_stop()
            server.wait_ended()
            lines = [line for line in server.log().splitlines() if line[:1] == "{"]
            targets = [json.loads(line)["target"] for line in lines]
            self.assertEqual(targets, ["/first", "/last"])

    def end_of(self, tac: str) -> str:
        """Return the log of a server that cannot start."""
        environ = {"CHECKOUT": str(CHECKOUT)}
        server = ServerProcess("-y", self.write(tac), environ=environ)
        self.addCleanup(server.kill)
        self.assertEqual(server.process.wait(START_SECONDS), 1, server.log())
        return server.log()

    def test_errors_of_a_start(self) -> None:
        """A mistake ends the process with the message and remedy of the command."""
        for call, message in [
            (
                'service("shop:ap", [listen])',
                "app='shop:ap': module shop has no ap; did you mean app?",
            ),
            (
                'service("shop:app", ["8080"])',
                "listen='8080' is not an endpoint string: give tcp:8080",
            ),
            (
                "service(asgi, [listen])",
                "is an ASGI application (asynchronous), but this server speaks WSGI; "
                "give a WSGI application, or an adapter",
            ),
            (
                'service("shop:app", [listen], access_log="/nowhere/log")',
                NO_ACCESS_LOG,
            ),
        ]:
            log = self.end_of(
                "from txgreenwsgi import service\n"
                "async def asgi(scope, receive, send): ...\n"
                f"{call}.setServiceParent(application)\n"
            )
            self.assertIn(message, log)

    def test_errors_of_a_construction(self) -> None:
        """`GreenSite` and `GreenWSGIResource` report mistakes in the same words."""
        for name in ("GreenSite", "GreenWSGIResource"):
            for arguments, message in [
                ("asgi", "is an ASGI application (asynchronous), but this server"),
                ('app, access_log="/nowhere/log"', NO_ACCESS_LOG),
                (
                    'app, patch="all"',
                    f"is not supported by {name}: call txgreenwsgi.",
                ),
            ]:
                log = self.end_of(
                    f"from txgreenwsgi import {name}\n"
                    "from shop import app\n"
                    "async def asgi(scope, receive, send): ...\n"
                    f"{name}({arguments})\n"
                )
                self.assertIn(message, log)

    def test_port_in_use(self) -> None:
        """A port in use ends the process with the endpoint and the remedy."""
        server = self.start(BY_NAME)
        endpoint = f"tcp:{server.port}:interface={LOOPBACK}"
        log = self.end_of(f'listen = "{endpoint}"\n' + textwrap.dedent(BY_NAME))
        self.assertIn(f"cannot listen on '{endpoint}' ([Errno", log)
        self.assertIn("): stop the process that uses this address, or give", log)
