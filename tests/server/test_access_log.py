"""The access log of `GreenSite` and `GreenWSGIResource`: when it opens and closes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.transports.harness_links import StoppableMemoryReactor
from txgreenwsgi import GreenSite, GreenWSGIResource, StartError
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.settings import SettingError
from txgreenwsgi.testing import MemoryReactor, MemoryServer

from .application import application
from .logged import Logged
from .wire import get

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi.monitoring import ExchangeRecord

REMEDY = "give a file that this user may write to"


class Reactor(StoppableMemoryReactor):
    """A reactor in memory that shuts down completely when the test says so.

    Attributes:
        after: the functions to call after the shutdown.
    """

    def __init__(self) -> None:
        self.after: list[Callable[[], object]] = []
        super().__init__()

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., Any],  # noqa: A002 - Twisted's name
        *args: object,
        **kwargs: object,
    ) -> Any:
        """Keep the trigger."""
        if phase == "after":
            self.after.append(callable)
        return super().addSystemEventTrigger(
            phase, eventType, callable, *args, **kwargs
        )

    def end(self) -> None:
        """Fire the triggers of all phases, in the order of a real reactor."""
        self.shut_down()
        self.settle()
        while self.after:
            self.after.pop(0)()


class Server(MemoryServer):
    """A server in memory on a `Reactor`, with an access log in JSON.

    Attributes:
        memory: that reactor.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(application)
        self.reactor = self.memory = Reactor()
        options = {"access_log": path, "access_log_format": "json", **options}
        self.site = GreenSite(application, reactor=self.reactor, **options)


class TreeServer(Server):
    """The same behind twisted.web."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.resource = GreenWSGIResource(
            application,
            reactor=self.reactor,
            access_log=path,
            access_log_format="json",
        )
        tree: Any = Site(self.resource, reactor=self.reactor)
        self.site = tree


class AccessLogTestCase(SynchronousTestCase):
    """A path for the log."""

    def setUp(self) -> None:
        """Choose the path."""
        self.path = os.path.abspath(self.mktemp())

    def targets(self) -> list[str]:
        """Return the targets of the logged requests."""
        lines = Path(self.path).read_text().splitlines()
        return [json.loads(line)["target"] for line in lines]

    def is_open(self) -> bool:
        """Return whether this process has the file open."""
        fds = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        return self.path in [os.path.realpath(fd) for fd in fds]


class SiteTests(AccessLogTestCase):
    """`GreenSite(access_log=...)`."""

    def test_ports(self) -> None:
        """The file opens with the first port and closes with the last one."""
        server = Server(self.path)
        self.assertFalse(os.path.exists(self.path))
        server.site.doStart()
        server.site.doStart()
        server.request("GET", "/one")
        server.site.doStop()
        server.request("GET", "/two")
        server.close()
        self.assertTrue(self.is_open())
        server.site.doStop()
        self.assertFalse(self.is_open())
        self.assertEqual(self.targets(), ["/one", "/two"])

    def test_stop(self) -> None:
        """Requests in flight when the last port closes are logged."""
        server = Server(self.path)
        server.site.doStart()
        server.connect().send(get("/sleep?seconds=5"))
        server.site.doStop()
        stopped = server.site.stop()
        self.assertTrue(self.is_open())
        server.advance(5)
        server.close()
        self.successResultOf(stopped)
        self.assertFalse(self.is_open())
        self.assertEqual(self.targets(), ["/sleep?seconds=5"])

    def test_stop_before_the_ports_have_closed(self) -> None:
        """A port that is about to close does not lose its last requests."""
        server = Server(self.path)
        server.site.doStart()
        self.successResultOf(server.site.stop())
        server.request("GET", "/last")
        server.close()
        server.site.doStop()
        self.assertFalse(self.is_open())
        self.assertEqual(self.targets(), ["/last"])

    def test_reactor_shuts_down(self) -> None:
        """Without a `stop`, the end of the reactor writes and closes the log."""
        server = Server(self.path)
        server.site.doStart()
        clients = [server.connect(), server.connect()]
        server.site.doStop()
        for client, path in zip(clients, ("/", "/sleep?seconds=5"), strict=True):
            client.send(get(path))
        server.memory.end()
        self.assertFalse(self.is_open())
        self.assertEqual(self.targets(), ["/", "/sleep?seconds=5"])
        server.close()

    def test_started_again(self) -> None:
        """A site that listens again logs again, in one file with one descriptor."""
        server = Server(self.path)
        triggers = set()
        for number in range(3):
            server.site.doStart()
            server.request("GET", f"/{number}")
            server.site.doStop()  # the client's connection is still open
            server.site.doStart()
            triggers.add(len(server.memory.after))
            server.site.doStop()
            self.successResultOf(server.site.stop())
            self.assertFalse(self.is_open())
        self.assertEqual(self.targets(), ["/0", "/1", "/2"])
        self.assertEqual(len(triggers), 1, "triggers of the reactor pile up")

    def test_other_observers(self) -> None:
        """Observers are called besides, and a request is logged once."""
        records: list[ExchangeRecord] = []
        server = Server(self.path, observers=[records.append])
        server.site.doStart()
        server.request("GET", "/?one")
        server.advance(0)
        self.assertEqual([record.target for record in records], ["/?one"])
        self.assertEqual(self.targets(), ["/?one"])
        server.close()
        server.site.doStop()

    def test_file_that_cannot_be_opened(self) -> None:
        """It is an error at construction, with the reason and the remedy."""
        path = os.path.join(self.path, "log")
        error = self.assertRaises(StartError, GreenSite, application, access_log=path)
        self.assertEqual(
            str(error),
            "the access log cannot be opened ([Errno 2] No such file or directory: "
            f"{path!r}): {REMEDY}",
        )

    def test_file_that_can_no_longer_be_opened(self) -> None:
        """It is an error of listening, which the endpoint passes on."""
        os.mkdir(self.path)
        reactor = MemoryReactorClock()
        site = GreenSite(
            application, reactor=reactor, access_log=os.path.join(self.path, "log")
        )
        os.rmdir(self.path)
        error = self.assertRaises(StartError, site.doStart)
        self.assertIn(REMEDY, str(error))
        self.assertEqual(site.numPorts, 0)
        os.mkdir(self.path)
        endpoint = TCP4ServerEndpoint(reactor, 8080)
        self.successResultOf(endpoint.listen(site))

    def test_format(self) -> None:
        """The format is "combined" by default, and another one is an error."""
        server = Server(self.path)
        server.site = GreenSite(
            application, reactor=server.memory, access_log=self.path
        )
        server.site.doStart()
        server.request("GET", "/?one")
        server.close()
        server.site.doStop()
        self.assertIn('"GET /?one HTTP/1.1" 200 6', Path(self.path).read_text())
        wrong = "clf"
        for make in (GreenSite, GreenWSGIResource):
            error = self.assertRaises(
                ValueError,
                make,
                application,
                access_log=self.path,
                access_log_format=wrong,
            )
            self.assertIn("give combined, common, json", str(error))


class ResourceTests(AccessLogTestCase):
    """`GreenWSGIResource(access_log=...)`."""

    def test_requests(self) -> None:
        """The file opens at the first request and closes after the reactor's end."""
        server = TreeServer(self.path)
        self.assertFalse(os.path.exists(self.path))
        for path in ("/?one", "/?two"):
            client = server.connect()
            client.send(get(path))
            server.advance(0)
            self.assertEqual(client.responses()[0].status, 200)
        self.assertEqual(self.targets(), ["/?one", "/?two"])
        client = server.connect()
        client.send(get("/sleep?seconds=5"))
        server.advance(5)
        self.assertTrue(self.is_open())
        server.memory.end()
        self.assertFalse(self.is_open())
        self.assertEqual(self.targets()[2:], ["/sleep?seconds=5"])
        server.close()

    def test_file_that_cannot_be_opened(self) -> None:
        """It is an error at construction, with the reason and the remedy."""
        path = os.path.join(self.path, "log")
        error = self.assertRaises(
            StartError, GreenWSGIResource, application, access_log=path
        )
        self.assertIn(f"No such file or directory: {path!r}): {REMEDY}", str(error))

    def test_file_that_can_no_longer_be_opened(self) -> None:
        """Requests are served without a log, and an error is logged."""
        logged = Logged(self)
        os.mkdir(self.path)
        server = TreeServer(os.path.join(self.path, "log"))
        os.rmdir(self.path)
        for _ in range(2):
            client = server.connect()
            client.send(get("/"))
            server.advance(0)
            self.assertEqual(client.responses()[0].status, 200)
        [line] = logged.errors()
        self.assertIn("serving without an access log: the access log cannot", line)
        self.assertIn(REMEDY, line)
        server.close()

    def test_signature_of_wsgi_resource(self) -> None:
        """The arguments of WSGIResource can be followed by `access_log`."""
        make: Any = GreenWSGIResource
        reactor = MemoryReactor()
        resource = make(reactor, None, application, access_log=self.path)
        self.assertEqual(len(self.flushWarnings()), 1)
        self.assertEqual(len(resource.application_server.table.observers), 1)


class PatchTests(SynchronousTestCase):
    """`patch=`, which only `service()` can honour."""

    def test_refused(self) -> None:
        """The error gives the call that patches."""
        make: Any
        for make in (GreenSite, GreenWSGIResource):
            error = self.assertRaises(SettingError, make, application, patch="all")
            self.assertEqual(
                str(error),
                f"patch='all' is not supported by {make.__name__}: call "
                "txgreenwsgi.monkey.patch_all() before the application is imported",
            )


class PrepareTests(AccessLogTestCase):
    """`AccessLog.prepare`, the check before the file is opened."""

    def error(self, path: str) -> OSError:
        """Return the error for a path."""
        error: OSError = self.assertRaises(OSError, AccessLog(path).prepare)
        return error

    def test_creates_nothing(self) -> None:
        """A file that can be created or written to passes, and is left alone."""
        AccessLog(self.path).prepare()
        self.assertFalse(os.path.exists(self.path))
        Path(self.path).write_text("kept")
        AccessLog(self.path).prepare()
        AccessLog("-").prepare()
        self.assertEqual(Path(self.path).read_text(), "kept")

    def test_errors(self) -> None:
        """The errors are those of `open`, with its file name."""
        os.mkdir(self.path)
        inside = os.path.join(self.path, "log")
        self.assertIsInstance(self.error(self.path), IsADirectoryError)
        self.patch(os, "access", lambda *args, **keywords: False)
        for _ in range(2):
            error = self.error(inside)
            self.assertIsInstance(error, PermissionError)
            self.assertEqual(error.filename, inside)
            Path(inside).touch()
        error = self.error(os.path.join(inside, "log"))
        self.assertIsInstance(error, NotADirectoryError)

    def test_relative_path(self) -> None:
        """A relative path is resolved by the check."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.mkdir(self.path)
        os.chdir(self.path)
        log = AccessLog("log")
        log.prepare()
        os.chdir(here)
        log.open(MemoryReactorClock())
        log.close()
        self.assertEqual(os.listdir(self.path), ["log"])
