"""The service: it listens, loads the application, and stops well."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from txgreenwsgi import service
from txgreenwsgi._server.service import GreenService
from txgreenwsgi.settings import SettingError

from .application import application
from .wire import WireTestCase

if TYPE_CHECKING:
    from .application import Application


class Reactor(MemoryReactorClock):
    """Listens in memory, and notes when it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:  # noqa: A002
        """It runs."""
        callable(*args, **kw)

    def stop(self) -> None:
        """Note it."""
        self.stopped = True


@implementer(IStreamServerEndpoint)
class Endpoint:
    """An endpoint that listens when, and if, the test says so."""

    def __init__(self) -> None:
        self.cancelled = False
        self.opened: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled = True

    def listen(self, factory: Any) -> Deferred[Any]:
        """Whatever the test does with it."""
        return self.opened


class ServiceTests(WireTestCase):
    """`txgreenwsgi.service`."""

    def setUp(self) -> None:
        """Have a reactor in memory."""
        super().setUp()
        self.reactor = Reactor()

    def service(self, *listen: Any, **settings: Any) -> GreenService:
        """A service on endpoints."""
        return service(application, list(listen), reactor=self.reactor, **settings)

    def test_listens(self) -> None:
        """It listens on all its endpoints from its start on, with a long backlog."""
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
        """An endpoint may be an object."""
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
        """Started without privileges, it loads the application before it listens."""

        def load() -> Application:
            raise ImportError("no such application")

        made = GreenService(load, ["tcp:8001"], reactor=self.reactor)
        self.assertRaises(ImportError, made.startService)
        self.assertEqual(self.reactor.tcpServers, [])

    def test_default(self) -> None:
        """Without endpoints it listens on port 8080."""
        made = service(application, reactor=self.reactor)
        made.startService()
        self.assertEqual(self.reactor.tcpServers[0][0], 8080)

    def test_stop(self) -> None:
        """It stops listening, then waits for what is in flight."""
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
        """An endpoint that has not opened yet is given up."""
        endpoint = Endpoint()
        made = self.service(endpoint)
        made.startService()
        self.successResultOf(made.stopService())
        self.assertTrue(endpoint.cancelled)
        self.assertFalse(self.reactor.stopped)

    def test_stop_although_a_port_fails(self) -> None:
        """A port that cannot be closed does not keep the server from stopping."""
        made = self.service("tcp:8001")
        made.startService()
        made.ports[0].stopListening = lambda: fail(OSError())  # type: ignore[method-assign]
        self.successResultOf(made.stopService())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assert_logged("a port cannot be closed")

    def test_start_again(self) -> None:
        """It can be started again."""
        made = self.service("tcp:8001")
        made.startService()
        self.successResultOf(made.stopService())
        made.startService()
        self.assertFalse(made.site.stopping)
        self.assertEqual(len(made.ports), 1)

    def test_cut_short(self) -> None:
        """A stop can be told to hurry, whether or not it is under way."""
        made = self.service("tcp:8001")
        made.cut_short()
        made.startService()
        made.cut_short()
        self.assertTrue(made.running)

    def test_cannot_listen_while_privileged(self) -> None:
        """A port that is taken ends the start with that error."""
        endpoint = Endpoint()
        made = self.service("tcp:81", endpoint)
        endpoint.opened.errback(CannotListenError("", 80, OSError("taken")))
        self.assertRaises(CannotListenError, made.privilegedStartService)
        self.assertEqual(made.ports, [])

    def test_cannot_listen_later(self) -> None:
        """Later, it is logged and stops the process: a server that serves nobody."""
        endpoint = Endpoint()
        made = self.service(endpoint)
        made.startService()
        endpoint.opened.errback(CannotListenError("", 80, OSError("taken")))
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)
        self.assert_logged("cannot listen on")
        self.assertTrue(self.reactor.stopped)

    def test_not_an_application(self) -> None:
        """What cannot be called is refused at once."""
        wrong: Any = "module:app"
        error = self.assertRaises(TypeError, service, wrong)
        self.assertIn("'module:app' is not", str(error))
        self.assertRaises(TypeError, service, types.ModuleType("module"))

    def test_one_endpoint_for_many(self) -> None:
        """A string where a list belongs is refused, with what to give instead."""
        error = self.assertRaises(TypeError, service, application, "tcp:8001")
        self.assertIn("give ['tcp:8001']", str(error))

    def test_bad_setting(self) -> None:
        """A setting that does not exist is refused."""
        self.assertRaises(SettingError, service, application, max_boddy=1)
