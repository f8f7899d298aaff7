"""`GreenService`: it listens, loads the application, and stops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from tests.monitoring.records import record
from txgreenwsgi import service
from txgreenwsgi._server import collection
from txgreenwsgi._server.errors import EndpointError, ListenError, StartError
from txgreenwsgi._server.service import GreenService
from txgreenwsgi.monitoring import AccessLog

from .application import application
from .wire import WireTestCase

if TYPE_CHECKING:
    from .application import Application


class Reactor(MemoryReactorClock):
    """A reactor that listens in memory, and records that it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:  # noqa: A002
        """Call it immediately."""
        callable(*args, **kw)

    def stop(self) -> None:
        """Record the call."""
        self.stopped = True


@implementer(IStreamServerEndpoint)
class Endpoint:
    """An endpoint that opens when the test fires its Deferred."""

    def __init__(self) -> None:
        self.cancelled = False
        self.opened: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled = True

    def listen(self, factory: Any) -> Deferred[Any]:
        """Return the Deferred of the test."""
        return self.opened


class ServiceTests(WireTestCase):
    """A service on endpoints in memory."""

    def setUp(self) -> None:
        """Create a reactor in memory."""
        super().setUp()
        self.addCleanup(self.stop_freezers)
        self.reactor = Reactor()

    def stop_freezers(self) -> None:
        """Undo the freezing by services that a test does not stop."""
        for freezer in list(collection.started):
            freezer.stop()

    def service(self, *listen: Any, **settings: Any) -> GreenService:
        """Return a service on these endpoints."""
        return service(application, list(listen), reactor=self.reactor, **settings)

    def test_listens(self) -> None:
        """The started service listens on all endpoints, with a backlog of 1024."""
        made = self.service("tcp:8001", "tcp:8002:backlog=5", "unix:/nowhere/socket")
        self.assertEqual(self.reactor.tcpServers, [])
        made.startService()
        self.assertTrue(made.running)
        self.assertEqual(
            [
                (port, factory, backlog)
                for port, factory, backlog, _ in self.reactor.tcpServers
            ],
            [(8001, made.site, 1024), (8002, made.site, 5)],
        )
        self.assertEqual(
            self.reactor.unixServers[0][:3], ("/nowhere/socket", made.site, 1024)
        )
        self.assertEqual(len(made.ports), 3)
        self.assert_logged("listening on", "8001")

    def test_endpoint_object(self) -> None:
        """Endpoint objects are accepted."""
        made = self.service(TCP4ServerEndpoint(self.reactor, 8003))
        made.startService()
        self.assertEqual(self.reactor.tcpServers[0][0], 8003)

    def test_privileges(self) -> None:
        """It listens while privileged, and loads the application afterwards, once."""
        loaded: list[int] = []

        def load() -> Application:
            loaded.append(len(self.reactor.tcpServers))
            return application

        made = GreenService(load, ["tcp:80"], reactor=self.reactor)
        made.privilegedStartService()
        self.assertEqual(loaded, [])
        made.startService()
        self.assertEqual(loaded, [1])
        self.assertEqual(len(self.reactor.tcpServers), 1)
        self.assertIs(made.site.application, application)

    def test_application_first(self) -> None:
        """Without a privileged start, it loads the application before it listens."""

        def load() -> Application:
            raise ImportError("no such application")

        made = GreenService(load, ["tcp:8001"], reactor=self.reactor)
        self.assertRaises(ImportError, made.startService)
        self.assertEqual(self.reactor.tcpServers, [])

    def test_default(self) -> None:
        """By default, it listens on port 8080."""
        made = service(application, reactor=self.reactor)
        made.startService()
        self.assertEqual(self.reactor.tcpServers[0][0], 8080)

    def test_stop(self) -> None:
        """A stop closes the ports, then waits for the requests in flight."""
        made = self.service("tcp:8001")
        made.startService()
        (port,) = made.ports
        closed: Deferred[None] = Deferred()
        port.stopListening = lambda: closed  # type: ignore[method-assign]
        stopped = made.stopService()
        self.assertFalse(made.running)
        self.assertFalse(made.site.stopping)
        self.assertNoResult(stopped)
        closed.callback(None)
        self.assertTrue(made.site.stopping)
        self.successResultOf(stopped)
        self.assertEqual(made.ports, [])

    def test_stop_while_it_opens(self) -> None:
        """A stop cancels an endpoint that is still opening."""
        endpoint = Endpoint()
        made = self.service(endpoint)
        made.startService()
        self.successResultOf(made.stopService())
        self.assertTrue(endpoint.cancelled)
        self.assertFalse(self.reactor.stopped)

    def test_stop_although_a_port_fails(self) -> None:
        """An error while a port closes is logged, and the stop completes."""
        made = self.service("tcp:8001")
        made.startService()
        made.ports[0].stopListening = lambda: fail(OSError())  # type: ignore[method-assign]
        self.successResultOf(made.stopService())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assert_logged("cannot close a port")

    def test_start_again(self) -> None:
        """A stopped service can be started again."""
        made = self.service("tcp:8001")
        made.startService()
        self.successResultOf(made.stopService())
        made.startService()
        self.assertFalse(made.site.stopping)
        self.assertEqual(len(made.ports), 1)

    def test_cut_short(self) -> None:
        """`cut_short` before `stopService` skips its grace period only."""
        made = self.service("tcp:8001")
        made.cut_short()
        made.startService()
        self.assertEqual(self.grace_period(made), [None])
        made.startService()
        made.cut_short()
        self.assertTrue(made.running)
        self.assertEqual(self.grace_period(made), [0])
        made.startService()
        self.assertEqual(self.grace_period(made), [None])

    def test_drain_delay(self) -> None:
        """With `drain_delay`, a stop closes the ports that much later."""
        made = self.service("tcp:8001", drain_delay=5)
        made.startService()
        self.assertEqual(made.site.server.unready_reason, "")
        self.assertEqual(made.status(), "0 requests in flight")
        stopped = made.stopService()
        self.assertEqual(made.status(), "not ready, 0 requests in flight")
        self.assertEqual(made.site.server.unready_reason, "the server is about to stop")
        self.reactor.advance(4.9)
        self.assertNoResult(stopped)
        self.assertEqual((len(made.ports), made.site.stopping), (1, False))
        self.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual((made.ports, made.site.stopping), ([], True))
        self.assertEqual(made.status(), "stopping, 0 requests in flight")
        made.startService()
        self.assertEqual(made.site.server.unready_reason, "")
        stopped = made.stopService()
        self.assertNoResult(stopped)
        made.cut_short()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_drain_before_the_stop(self) -> None:
        """`drain` comes before `stopService`, which then does not wait again."""
        made = self.service("tcp:8001", drain_delay=5)
        made.startService()
        drained, again = made.drain(), made.drain()
        self.assertEqual(made.site.server.unready, "the server is about to stop")
        self.reactor.advance(5)
        self.successResultOf(drained)
        self.successResultOf(again)
        self.assertEqual((len(made.ports), made.site.stopping), (1, False))
        self.successResultOf(made.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_in_the_drain(self) -> None:
        """`end_drain` ends the drain of `drain` and of `stopService` alike."""
        made = self.service("tcp:8001", drain_delay=5)
        made.startService()
        drained, stopped = made.drain(), made.stopService()
        self.assertNoResult(drained)
        made.end_drain()
        self.successResultOf(drained)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_start_in_the_drain(self) -> None:
        """A start ends the drain of a stop, before the ports open again."""
        made = self.service("tcp:8001", drain_delay=5)
        for privileged in (False, True):
            made.startService()
            stopped = made.stopService()
            if privileged:
                made.privilegedStartService()
            made.startService()
            self.successResultOf(stopped)
            self.reactor.advance(10)
            self.assertEqual(len(made.ports), 1)
            self.assertEqual(made.site.server.unready_reason, "")
            made.cut_short()
            self.successResultOf(made.stopService())

    def test_opened(self) -> None:
        """`opened` fires when all endpoints are open, or one of them has failed."""
        for fails in (False, True):
            self.reactor = Reactor()
            endpoint = Endpoint()
            made = self.service("tcp:8001", endpoint)
            made.startService()
            opened = made.opened()
            self.assertNoResult(opened)
            if fails:
                endpoint.opened.errback(CannotListenError(None, 1, OSError()))
                self.flushLoggedErrors(ListenError)
            else:
                endpoint.opened.callback(made.ports[0])
            self.assertEqual(self.successResultOf(opened), not fails)
            self.successResultOf(made.stopService())

    def grace_period(self, made: GreenService) -> list[float | None]:
        """Stop the service and return the grace periods that it passed to its site."""
        passed: list[float | None] = []
        stop = made.site.stop

        def record(grace_seconds: float | None = None) -> Deferred[None]:
            passed.append(grace_seconds)
            return stop(grace_seconds)

        made.site.stop = record  # type: ignore[method-assign]
        self.successResultOf(made.stopService())
        made.site.stop = stop  # type: ignore[method-assign]
        return passed

    def test_cannot_listen_while_privileged(self) -> None:
        """A port in use ends the privileged start with the remedy."""
        endpoint = Endpoint()
        made = self.service("tcp:81", endpoint)
        endpoint.opened.errback(CannotListenError("", 80, OSError("in use")))
        error = self.assertRaises(ListenError, made.privilegedStartService)
        self.assertIn("cannot listen on any:80 (in use): stop the", str(error))
        self.assertEqual(made.ports, [])

    def test_lock_beside_a_unix_socket(self) -> None:
        """The error of a lock file, which Twisted passes on, names the endpoint."""
        endpoint = Endpoint()
        endpoint.opened.errback(FileNotFoundError(2, "Missing", "7", None, "/no/s"))
        made = self.service(endpoint)
        error = self.assertRaises(ListenError, made.privilegedStartService)
        self.assertIn("cannot listen on any:/no/s ([Errno 2]", str(error))

    def test_unreadable_key(self) -> None:
        """A missing key file ends the privileged start with the remedy."""
        made = self.service("tcp:81", f"ssl:443:privateKey={self.mktemp()}")
        error = self.assertRaises(EndpointError, made.privilegedStartService)
        self.assertIn(": give the path of a readable file", str(error))
        self.assertEqual(made.ports, [])

    def test_cannot_listen_later(self) -> None:
        """After the start, a port in use is logged and stops the reactor."""
        endpoint = Endpoint()
        made = self.service(endpoint)
        made.startService()
        endpoint.opened.errback(CannotListenError("", 80, OSError("in use")))
        self.assertEqual(len(self.flushLoggedErrors(ListenError)), 1)
        self.assert_logged("stopping the reactor: cannot listen on any:80")
        self.assertTrue(self.reactor.stopped)

    def test_access_log(self) -> None:
        """The access log is open from before the application loads to the end."""
        path = self.mktemp()
        log = AccessLog(path)
        opened: list[bool] = []

        def load() -> Application:
            opened.append(os.path.exists(path))
            return application

        made = GreenService(load, ["tcp:1"], reactor=self.reactor, access_log=log)
        made.privilegedStartService()
        self.assertFalse(os.path.exists(path))
        made.startService()
        self.assertEqual(opened, [True])
        (port,) = made.ports
        closed: Deferred[None] = Deferred()
        port.stopListening = lambda: closed  # type: ignore[method-assign]
        stopped = made.stopService()
        log.observe(record(request_id="last"))
        closed.callback(None)
        self.successResultOf(stopped)
        log.observe(record(request_id="late"))
        self.reactor.advance(0)
        with open(path) as file:
            self.assertEqual([line.split()[-1] for line in file], ["last"])

    def test_access_log_that_cannot_be_opened(self) -> None:
        """An access log that cannot be opened ends the start with the remedy."""
        log = AccessLog(os.path.join(self.mktemp(), "log"))
        made = GreenService(
            lambda: application, ["tcp:1"], reactor=self.reactor, access_log=log
        )
        error = self.assertRaises(StartError, made.startService)
        self.assertIn("the access log cannot be opened ([Errno 2]", str(error))
        self.assertIn("): give a file that this user may write to", str(error))

    def test_one_endpoint_for_many(self) -> None:
        """A string in place of a list is refused with the correction."""
        error = self.assertRaises(TypeError, GreenService, application, "tcp:8001")
        self.assertEqual(
            str(error),
            "listen='tcp:8001' is one endpoint, not a list of them: give ['tcp:8001']",
        )
