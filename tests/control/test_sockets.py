"""When the control socket of a server is open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._control import sockets
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._control.sockets import ControlSocket

from .test_server import FakeServer

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import Controlled


class FakePort:
    """A port that closes when the test says so."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def stopListening(self) -> Deferred[None]:
        """Return a Deferred that the test fires."""
        return self.closed


class FakeReactor:
    """A reactor that records UNIX sockets."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.port = FakePort()

    def listenUNIX(self, path: str, factory: object, mode: int) -> FakePort:
        """Record a path, or fail as the test demands."""
        if self.error is not None:
            raise self.error
        self.paths.append((path, mode))
        return self.port


class ControlSocketTests(SynchronousTestCase):
    """`ControlSocket`."""

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = str(short_folder(self))
        self.reactor = FakeReactor()

    def made(self, place: str, *, has_workers: bool = False) -> ControlSocket:
        """Return a socket that is not open yet."""
        return ControlSocket(
            place,
            cast("Controlled", FakeServer()),
            lambda reactor: reactor,
            has_workers=has_workers,
        )

    def test_path(self) -> None:
        """A path is relative to the start directory; the mode is 0600."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        made = self.made("a.sock")
        os.chdir("/")
        made.open(self.reactor)
        self.assertEqual(self.reactor.paths, [(f"{self.directory}/a.sock", 0o600)])

    def test_none(self) -> None:
        """There is no socket if none is wanted."""
        for place, has_workers in [("none", True), ("none", False), ("auto", False)]:
            made = self.made(place, has_workers=has_workers)
            made.open(self.reactor)
            self.successResultOf(made.close())
        self.assertEqual(self.reactor.paths, [])

    def test_automatic(self) -> None:
        """With workers, the socket is in the default place by default."""
        path = f"{self.directory}/7.sock"
        self.patch(sockets, "default_path", lambda: path)
        self.made("auto", has_workers=True).open(self.reactor)
        self.assertEqual(self.reactor.paths, [(path, 0o600)])

    def test_no_default_place(self) -> None:
        """A server starts without its default socket, and says so."""

        def default_path() -> str:
            raise ControlError("no directory")

        self.patch(sockets, "default_path", default_path)
        made = self.made("auto", has_workers=True)
        with capturedLogs() as events:
            made.open(self.reactor)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["no control socket: no directory"],
        )
        self.successResultOf(made.close())

    def test_wrong_path(self) -> None:
        """A given path that cannot be used is an error."""
        os.chmod(self.directory, 0o777)
        made = self.made(f"{self.directory}/a.sock")
        self.assertRaises(ControlError, made.open, self.reactor)
        os.chmod(self.directory, 0o700)
        in_use = OSError(98, "Address already in use")
        for error in (in_use, CannotListenError(None, "a.sock", in_use)):
            self.reactor.error = error
            refusal = self.assertRaises(ControlError, made.open, self.reactor)
            self.assertEqual(
                str(refusal),
                f"--control '{self.directory}/a.sock' cannot be opened ([Errno 98] "
                "Address already in use): give the path of a new socket, or stop the "
                "server that uses it",
            )

    def test_close(self) -> None:
        """The socket is closed once."""
        made = self.made(f"{self.directory}/a.sock")
        made.open(self.reactor)
        closed = made.close()
        self.assertNoResult(closed)
        self.successResultOf(made.close())
        self.reactor.port.closed.callback(None)
        self.successResultOf(closed)
