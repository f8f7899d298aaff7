"""The service of the command: the order in which its parts start and stop."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.monitoring.records import record
from txgreenwsgi._launch.find_app import AppNotFound
from txgreenwsgi._server.errors import ListenError, StartError
from txgreenwsgi._twistd import server
from txgreenwsgi._twistd.service import Options, log_path, makeService
from txgreenwsgi._twistd.signals import OperatorSignals
from txgreenwsgi._twistd.watchdog import Watchdog
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams
from txgreenwsgi.monitoring import AccessLog


class FakeGreenService(Service):
    """A recording fake: the real service opens sockets, and has tests of its own."""

    made: FakeGreenService

    def __init__(
        self,
        load_app: Any,
        listen: Any,
        settings: Any,
        observers: Any,
        reactor: Any,
        access_log: Any,
        freezer: Any,
        tls: Any = None,
        ticket_secret: bytes = b"",
    ) -> None:
        self.tls = tls
        self.freezer = freezer
        self.load_app, self.listen = load_app, listen
        self.settings, self.access_log = settings, access_log
        self.calls: list[str] = []
        self.urls: list[str] = []
        self.listening: Exception | None = None
        self.stopped: Deferred[None] = Deferred()
        FakeGreenService.made = self

    def privilegedStartService(self) -> None:
        """Record it, or fail as the test demands."""
        self.calls.append("listen")
        if self.listening is not None:
            raise self.listening

    def startService(self) -> None:
        """Record it and load the application."""
        self.calls.append("start")
        self.load_app()

    def stopService(self) -> Deferred[None]:
        """Return a Deferred that the test fires."""
        self.calls.append("stop")
        return self.stopped

    def cut_short(self) -> None:
        """End the grace period."""

    def read_certificates(self) -> None:
        """Record it."""
        self.calls.append("read certificates")

    def drain(self) -> Deferred[None]:
        """Return a Deferred that has fired."""
        self.calls.append("drain")
        return succeed(None)

    def end_drain(self) -> None:
        """End the drain."""

    def opened(self) -> Deferred[bool]:
        """Return a Deferred that has fired."""
        return succeed(True)

    def status(self) -> str:
        """Return a text."""
        return "5 requests in flight"


class MakeServiceTests(SynchronousTestCase):
    """`makeService` with a fake server."""

    def setUp(self) -> None:
        """Restore the state of the process after each test."""
        self.patch(server, "GreenService", FakeGreenService)
        # Otherwise the library stays patched for all tests of this process.
        self.patched: list[tuple[str, ...]] = []
        self.patch(server, "patch", self.patched.append)
        self.patch(server, "patch_drivers", lambda names: None)
        # It would change the handlers of this process.
        self.installed: list[object] = []
        self.patch(
            OperatorSignals,
            "install",
            lambda signals, reactor: self.installed.append(reactor),
        )
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "excepthook", sys.excepthook)
        self.addCleanup(os.chdir, os.getcwd())
        self.reactor = MemoryReactorClock()

    def make(self, *arguments: str, **parent: Any) -> tuple[Any, FakeGreenService]:
        """Return the service for a command line, and the server in it."""
        options = Options()
        if parent:
            options.parent = ServerOptions()
            options.parent.update(parent)
        options.parseOptions(arguments)
        made = makeService(options, self.reactor)
        return made, FakeGreenService.made

    def test_is_a_service(self) -> None:
        """The result is a service for twistd and twist."""
        self.assertTrue(verifyObject(IService, self.make()[0], tentative=True))

    def test_server(self) -> None:
        """The server gets the values of the options."""
        _made, green = self.make("--listen=tcp:1", "--listen=tcp:2", "--max-body=5")
        self.assertEqual(green.listen, ("tcp:1", "tcp:2"))
        self.assertEqual(green.settings.max_body, 5)
        self.assertIsNone(green.access_log)
        self.assertEqual(green.calls, [])

    def test_garbage_collection(self) -> None:
        """By default the application is frozen; `--gc unchanged` turns this off."""
        self.assertIsNotNone(self.make()[1].freezer)
        self.assertIsNotNone(self.make("--gc=freeze")[1].freezer)
        self.assertIsNone(self.make("--gc=unchanged")[1].freezer)

    def test_patching(self) -> None:
        """The library is patched when the application is loaded, and no sooner."""
        made, _green = self.make("--patch=time,socket")
        self.assertEqual(self.patched, [])
        made.startService()
        [patched] = self.patched
        self.assertEqual(set(patched), {"time", "socket"})

    def test_signals(self) -> None:
        """The watchdog is installed after the reactor has set its own handlers."""
        made, _green = self.make("--app=wsgiref.simple_server:demo_app")
        made.startService()
        self.assertEqual(self.installed, [self.reactor])
        (install, (reactor,), _keywords), *others, last = self.reactor.whenRunningHooks
        self.assertIsInstance(install.__self__, Watchdog)
        self.assertIs(reactor, self.reactor)
        # twist redirects the standard streams when it runs the reactor.
        self.assertEqual(others, [(replace_standard_streams, (), {})])
        # The line that it serves tells that signals may be sent.
        self.assertIn("announce_process", last[0].__qualname__)

    def test_notifications(self) -> None:
        """A service manager learns when all is open, and of the shutdown."""
        notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notifications.close)
        notifications.bind(f"\0txgreenwsgi-{os.getpid()}-{id(self)}")
        address = "@" + notifications.getsockname()[1:].decode()
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": address})
        made, green = self.make("--drain-delay=5", "--graceful-timeout=20")
        self.assertNotIn("NOTIFY_SOCKET", os.environ)
        made.privilegedStartService()
        made.startService()
        for hook, arguments, keywords in self.reactor.whenRunningHooks[2:]:
            hook(*arguments, **keywords)
        stopped = made.stopService()
        green.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(
            [notifications.recv(1000).decode() for _ in range(3)],
            [
                "STATUS=5 requests in flight",
                "READY=1",
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000",
            ],
        )

    def test_order_under_twistd(self) -> None:
        """Under twistd, ports are opened before the application is loaded."""
        made, green = self.make()
        made.privilegedStartService()
        self.assertEqual(green.calls, ["listen"])
        made.startService()
        self.assertEqual(green.calls, ["listen", "start"])

    def test_order_under_twist(self) -> None:
        """Under twist, which has no privileged start, the order is the same."""
        made, green = self.make()
        made.startService()
        self.assertEqual(green.calls, ["listen", "start"])

    def test_access_log(self) -> None:
        """The server gets the access log, which is not opened before the start."""
        path = os.path.abspath(self.mktemp())
        _made, green = self.make("--access-log", path)
        self.assertIsInstance(green.access_log, AccessLog)
        self.assertFalse(os.path.exists(path))

    def test_lines_of_the_access_log(self) -> None:
        """The access log has the format of the options, and skips their paths."""
        path = os.path.abspath(self.mktemp())
        _made, green = self.make(
            f"--access-log={path}",
            "--access-log-format=%U %{X-A}o",
            "--access-log-skip=/health",
            "--access-log-skip=/-/*",
        )
        log = green.access_log
        self.assertEqual(log.needs, {"environ", "response_headers"})
        log.open(self.reactor)
        for target in ("/health", "/-/live", "/a?b"):
            log.observe(record(target=target, response_headers=[("X-A", "1")]))
        log.close()
        self.assertEqual(Path(path).read_text(), "/a 1\n")

    def test_stop_that_fails(self) -> None:
        """An error of the server while it stops is passed on."""
        made, green = self.make()
        made.startService()
        stopped = made.stopService()
        green.stopped.errback(ZeroDivisionError())
        self.failureResultOf(stopped, ZeroDivisionError)

    def test_restarted(self) -> None:
        """A stopped service listens again when it is started."""
        made, green = self.make()
        made.startService()
        made.stopService()
        made.startService()
        self.assertEqual(green.calls, ["listen", "start", "stop", "listen", "start"])

    def test_current_directory(self) -> None:
        """By default, modules are found in the current directory."""
        os.mkdir(directory := self.mktemp())
        os.chdir(directory)
        here = os.getcwd()
        _made, green = self.make("--app=wsgiref.simple_server:demo_app")
        green.load_app()
        self.assertEqual(sys.path[0], here)
        green.load_app()
        self.assertEqual(sys.path.count(here), 1)

    def test_chdir(self) -> None:
        """With --chdir, the application runs in that directory."""
        os.mkdir(directory := self.mktemp())
        _made, green = self.make(
            "--chdir", directory, "--app=wsgiref.simple_server:demo_app"
        )
        expected = os.path.realpath(directory)
        green.load_app()
        self.assertEqual(os.getcwd(), expected)
        self.assertEqual(sys.path[0], expected)

    def assert_ends_with(self, start: Any, message: str) -> None:
        """Assert that the process ends with a message, without a traceback."""
        error = self.assertRaises(StartError, start)
        printed: list[str] = []

        class Stderr:
            write = staticmethod(printed.append)

        self.patch(sys, "stderr", Stderr)
        sys.excepthook(type(error), error, error.__traceback__)
        self.assertEqual("".join(printed), f"txgreenwsgi cannot start: {message}\n")

    def test_wrong_app(self) -> None:
        """A misspelled --app ends the process with one line."""
        made, _green = self.make("--app=wsgiref.simple_server:demo_ap")
        self.assert_ends_with(
            made.startService,
            "--app 'wsgiref.simple_server:demo_ap': module wsgiref.simple_server has "
            "no demo_ap; did you mean demo_app?",
        )

    def test_missing_directory(self) -> None:
        """A missing directory ends the process with one line."""
        made, _green = self.make("--chdir=nowhere", rundir="/elsewhere")
        self.assert_ends_with(
            made.startService,
            "--chdir 'nowhere' cannot be entered ([Errno 2] No such file or directory: "
            "'nowhere'): give the directory of the application's modules",
        )

    def test_port_in_use(self) -> None:
        """A port in use ends the process with one line."""
        made, green = self.make()
        in_use = OSError(errno.EADDRINUSE, "Address in use")
        green.listening = ListenError("tcp:80", CannotListenError("", 80, in_use))
        self.assert_ends_with(
            made.privilegedStartService,
            f"cannot listen on 'tcp:80' ([Errno {errno.EADDRINUSE}] Address in use): "
            "stop the process that uses this address, or give another endpoint",
        )

    def test_errors_of_the_application(self) -> None:
        """An error of the application's own code keeps its traceback."""
        os.mkdir(directory := os.path.abspath(self.mktemp()))
        for name, source, kind in [
            ("tx_broken", "1 / 0", ZeroDivisionError),
            ("tx_exits", "raise SystemExit(0)", AppNotFound),
        ]:
            with open(os.path.join(directory, f"{name}.py"), "w") as file:
                file.write(source)
            made, _green = self.make(
                "--chdir", os.path.abspath(directory), "--app", name
            )
            hook = sys.excepthook
            self.assertRaises(kind, made.startService)
            self.assertIs(sys.excepthook, hook)

    def test_other_errors_after_a_message(self) -> None:
        """The hook that prints messages passes other errors on."""
        made, _green = self.make("--app=tx_nowhere")
        self.assertRaises(StartError, made.startService)
        seen: list[object] = []
        self.patch(sys, "__excepthook__", lambda *error: seen.append(error[1]))
        error = ZeroDivisionError()
        sys.excepthook(ZeroDivisionError, error, None)
        self.assertEqual(seen, [error])

    def test_stacks_path(self) -> None:
        """The stacks of a daemon go to its log, by its absolute path."""
        here = os.getcwd()
        cases: list[tuple[dict[str, Any], str]] = [
            ({"nodaemon": 1, "logfile": "x.log"}, ""),
            ({"nodaemon": 0, "logfile": None}, os.path.join(here, "twistd.log")),
            ({"nodaemon": 0, "logfile": "x.log"}, os.path.join(here, "x.log")),
            ({"nodaemon": 0, "logfile": "/x.log"}, "/x.log"),
            ({"nodaemon": 0, "syslog": 1, "logfile": None}, ""),
            ({"nodaemon": 0, "debug": True, "logfile": None}, ""),
            ({}, ""),
        ]
        for parent, path in cases:
            options = Options()
            if parent:
                options.parent = ServerOptions()
                options.parent.update(parent)
            self.assertEqual(log_path(options), path, parent)


class LazyTests(SynchronousTestCase):
    """The order of imports."""

    def test_no_reactor_no_application(self) -> None:
        """Before the service starts, no reactor and no application is imported.

        twistd forks and changes the user in between, and --reactor would come too
        late.
        """
        program = (
            "import sys\n"
            "from twisted.plugin import getPlugins\n"
            "from twisted.application.service import IServiceMaker\n"
            "[maker] = [each for each in getPlugins(IServiceMaker)\n"
            "           if each.tapname == 'greenwsgi']\n"
            "print('txgreenwsgi._twistd' in sys.modules)\n"
            "options = maker.options()\n"
            "options.parseOptions(['--app=wsgiref.simple_server:demo_app',\n"
            "                      '--access-log=-', '--listen=tcp:0'])\n"
            "maker.makeService(options)\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
            "print('wsgiref.simple_server' in sys.modules)\n"
            "print('txgreenwsgi.demo' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("False\n" * 4, ""))
