"""The order in which the command's parts start and stop."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txgreenwsgi._twistd import service
from txgreenwsgi._twistd.find_app import AppNotFound
from txgreenwsgi._twistd.service import CannotStart, Options, makeService


class FakeGreenService(Service):
    """Notes what it is made of, and what it is told to do.

    The real one opens sockets; what it does with them has its own tests.
    """

    made: FakeGreenService

    def __init__(
        self, load_app: Any, listen: Any, settings: Any, observers: Any, reactor: Any
    ) -> None:
        self.load_app, self.listen = load_app, listen
        self.settings, self.observers = settings, observers
        self.told: list[str] = []
        self.listening: Exception | None = None
        self.stopped: Deferred[None] = Deferred()
        FakeGreenService.made = self

    def privilegedStartService(self) -> None:
        """Listen."""
        self.told.append("listen")
        if self.listening is not None:
            raise self.listening

    def startService(self) -> None:
        """Load the application."""
        self.told.append("start")
        self.load_app()

    def stopService(self) -> Deferred[None]:
        """Stop when the test says so."""
        self.told.append("stop")
        return self.stopped

    def cut_short(self) -> None:
        """End the time of grace."""


class MakeServiceTests(SynchronousTestCase):
    """A service made from options, with a fake server behind it."""

    def setUp(self) -> None:
        """Keep the process as it was."""
        self.patch(service, "GreenService", FakeGreenService)
        # Else the library stays patched for all tests of this process.
        self.patched: list[tuple[str, ...]] = []
        self.patch(service, "patch", self.patched.append)
        self.patch(service, "patch_drivers", lambda names: None)
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "excepthook", sys.excepthook)
        self.addCleanup(os.chdir, os.getcwd())
        self.reactor = MemoryReactorClock()

    def make(self, *arguments: str, **parent: Any) -> tuple[Any, FakeGreenService]:
        """The service for a command line, and the server within."""
        options = Options()
        if parent:
            options.parent = ServerOptions()
            options.parent.update(parent)
        options.parseOptions(arguments)
        made = makeService(options, self.reactor)
        return made, FakeGreenService.made

    def test_is_a_service(self) -> None:
        """Both twistd and twist are given a service."""
        self.assertTrue(verifyObject(IService, self.make()[0], tentative=True))

    def test_what_is_served(self) -> None:
        """The server is made of what the options say."""
        _made, green = self.make("--listen=tcp:1", "--listen=tcp:2", "--max-body=5")
        self.assertEqual(green.listen, ["tcp:1", "tcp:2"])
        self.assertEqual(green.settings.max_body, 5)
        self.assertEqual(green.observers, [])
        self.assertEqual(green.told, [])

    def test_patching(self) -> None:
        """The library is patched when the application is loaded, and not before."""
        made, _green = self.make("--patch=time,socket")
        self.assertEqual(self.patched, [])
        made.startService()
        [patched] = self.patched
        self.assertEqual(set(patched), {"time", "socket"})

    def test_signals(self) -> None:
        """Signals are taken over once the reactor has set its own handlers."""
        made, _green = self.make("--app=wsgiref.simple_server:demo_app")
        made.startService()
        [(install, (reactor,), _keywords)] = self.reactor.whenRunningHooks
        self.assertIs(install.__self__, made._watchdog)
        self.assertIs(reactor, self.reactor)

    def test_order_under_twistd(self) -> None:
        """Under twistd ports are opened first, and the application is loaded last."""
        made, green = self.make()
        made.privilegedStartService()
        self.assertEqual(green.told, ["listen"])
        made.startService()
        self.assertEqual(green.told, ["listen", "start"])

    def test_order_under_twist(self) -> None:
        """Under twist, which knows no privileges, the order is the same."""
        made, green = self.make()
        made.startService()
        self.assertEqual(green.told, ["listen", "start"])

    def test_access_log(self) -> None:
        """The access log is opened before, and closed after all else."""
        path = os.path.abspath(self.mktemp())
        made, green = self.make("--access-log", path)
        made.privilegedStartService()
        self.assertFalse(os.path.exists(path))
        made.startService()
        self.assertTrue(os.path.exists(path))
        stopped = made.stopService()
        [observe] = green.observers
        self.assertIsNotNone(observe.__self__._clock)
        green.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertIsNone(observe.__self__._clock)

    def test_stop_that_fails(self) -> None:
        """An error while stopping is told, and does not keep the log open."""
        made, green = self.make("--access-log", os.path.abspath(self.mktemp()))
        made.startService()
        stopped = made.stopService()
        green.stopped.errback(ZeroDivisionError())
        self.failureResultOf(stopped, ZeroDivisionError)
        self.assertIsNone(green.observers[0].__self__._clock)

    def test_restarted(self) -> None:
        """A service that was stopped listens again when it is started."""
        made, green = self.make()
        made.startService()
        made.stopService()
        made.startService()
        self.assertEqual(green.told, ["listen", "start", "stop", "listen", "start"])

    def test_current_directory(self) -> None:
        """Without --chdir modules are looked for in the current directory."""
        os.mkdir(directory := self.mktemp())
        os.chdir(directory)
        here = os.getcwd()
        _made, green = self.make("--app=wsgiref.simple_server:demo_app")
        green.load_app()
        self.assertEqual(sys.path[0], here)
        green.load_app()
        self.assertEqual(sys.path.count(here), 1)

    def test_chdir(self) -> None:
        """With --chdir the application finds its own directory."""
        os.mkdir(directory := self.mktemp())
        _made, green = self.make(
            "--chdir", directory, "--app=wsgiref.simple_server:demo_app"
        )
        expected = os.path.realpath(directory)
        green.load_app()
        self.assertEqual(os.getcwd(), expected)
        self.assertEqual(sys.path[0], expected)

    def assert_ends_with(self, start: Any, message: str) -> None:
        """The process would end by a message without a traceback."""
        error = self.assertRaises(CannotStart, start)
        printed: list[str] = []

        class Stderr:
            write = staticmethod(printed.append)

        self.patch(sys, "stderr", Stderr)
        sys.excepthook(type(error), error, error.__traceback__)
        self.assertEqual("".join(printed), f"txgreenwsgi cannot start: {message}\n")

    def test_wrong_app(self) -> None:
        """A misspelled --app ends the process with one line, not a traceback."""
        made, _green = self.make("--app=wsgiref.simple_server:demo_ap")
        self.assert_ends_with(
            made.startService,
            "--app 'wsgiref.simple_server:demo_ap': module wsgiref.simple_server has "
            "no demo_ap; did you mean demo_app?",
        )

    def test_directory_gone(self) -> None:
        """So does a directory that cannot be entered."""
        made, _green = self.make("--chdir=nowhere", rundir="/elsewhere")
        self.assert_ends_with(
            made.startService,
            "--chdir 'nowhere' cannot be entered ([Errno 2] No such file or directory: "
            "'nowhere'): give the directory that the application's modules are in",
        )

    def test_port_in_use(self) -> None:
        """So does a port that somebody else has."""
        made, green = self.make()
        green.listening = CannotListenError("", 8080, OSError(98, "Address in use"))
        self.assert_ends_with(
            made.privilegedStartService,
            "Couldn't listen on any:8080: [Errno 98] Address in use. Give --listen "
            "another endpoint, or stop what is there.",
        )

    def test_directory_of_a_unix_socket_gone(self) -> None:
        """So does a UNIX socket that cannot be made where it is to be."""
        made, green = self.make()
        green.listening = FileNotFoundError(2, "No such file", "7", None, "/no/s.lock")
        self.assert_ends_with(
            made.privilegedStartService,
            "--listen cannot be opened ([Errno 2] No such file: '7' -> '/no/s.lock'): "
            "give a path in a directory that is there and that this user may write to",
        )

    def test_access_log_denied(self) -> None:
        """So does an access log that cannot be written."""
        made, _green = self.make("--access-log=/nowhere/log")
        self.assert_ends_with(
            made.startService,
            "--access-log cannot be opened ([Errno 2] No such file or directory: "
            "'/nowhere/log'): give a file that this user may write",
        )

    def test_errors_of_the_application(self) -> None:
        """An error of the application's own keeps its traceback."""
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
            error = self.assertRaises(kind, made.startService)
            self.assertIs(sys.excepthook, hook)
            self.assertNotIsInstance(error, CannotStart)

    def test_other_errors_after_a_message(self) -> None:
        """The hook that prints messages leaves other errors alone."""
        made, _green = self.make("--app=tx_nowhere")
        self.assertRaises(CannotStart, made.startService)
        seen: list[object] = []
        self.patch(sys, "__excepthook__", lambda *error: seen.append(error[1]))
        error = ZeroDivisionError()
        sys.excepthook(ZeroDivisionError, error, None)
        self.assertEqual(seen, [error])

    def test_stacks_path(self) -> None:
        """A daemon's log is where its stacks go, wherever that is later."""
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
            self.assertEqual(service._log_path(options), path, parent)


class LazyTests(SynchronousTestCase):
    """What is imported when."""

    def test_no_reactor_no_application(self) -> None:
        """Until the service starts, no reactor is chosen and no app imported.

        twistd forks, and sheds its privileges, in between; and --reactor would
        come too late.
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
