"""The search for a running server, and unusable sockets."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._control import client
from txgreenwsgi._control.client import ask, find_server
from txgreenwsgi._control.interface import ControlError


class ClientTests(SynchronousTestCase):
    """`find_server` and `ask` with sockets of the test."""

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = str(short_folder(self))
        self.paths: list[str] = []
        self.patch(client, "found_sockets", lambda: iter(self.paths))

    def listen(self, name: str) -> socket.socket:
        """Return a listening socket."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        path = f"{self.directory}/{name}"
        listening.bind(path)
        listening.listen()
        self.paths.append(path)
        return listening

    def refusal(self, path: str) -> str:
        """Return the message for a socket without a server."""
        error = self.assertRaises(ControlError, ask, path, "status", timeout=0.01)
        return str(error)

    def test_found(self) -> None:
        """The only socket on which a process listens is found."""
        message = str(self.assertRaises(ControlError, find_server))
        self.assertIn("no running server of this user was found", message)
        self.listen("1.sock").close()
        self.listen("2.sock")
        self.assertEqual(find_server(), f"{self.directory}/2.sock")
        self.listen("3.sock")
        message = str(self.assertRaises(ControlError, find_server))
        self.assertEqual(
            message,
            "several servers are running, give one of these:\n"
            f"  --control {self.directory}/2.sock\n"
            f"  --control {self.directory}/3.sock",
        )

    def test_unreachable(self) -> None:
        """The message gives the reason for each kind of failure."""
        path = f"{self.directory}/1.sock"
        self.assertIn(f"there is no control socket {path!r}", self.refusal(path))
        self.listen("1.sock").close()
        self.assertIn("no server is running at", self.refusal(path))
        self.listen("2.sock")
        self.assertIn(
            "has not answered within 0.01 s", self.refusal(f"{self.directory}/2.sock")
        )
        long = f"{self.directory}/{'x' * 200}"
        self.assertIn("cannot be used (AF_UNIX path too long)", self.refusal(long))
        self.assertIn("no server is running at", self.refusal(self.directory))

    def test_another_user(self) -> None:
        """The message names the remedy for missing permission."""

        def connected(path: str) -> socket.socket:
            raise PermissionError(13, os.strerror(13))

        self.patch(client, "connected", connected)
        self.assertIn("run the command as the user of the server", self.refusal("x"))

    def answered(self, data: bytes) -> str:
        """Return the message for an answer."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        self.patch(client, "connected", lambda path: ours)
        return self.refusal("x")

    def test_answers(self) -> None:
        """A refusal is the message; other answers are no server's."""
        self.assertEqual(self.answered(b'{"ok": false, "error": "no"}\n'), "no")
        self.assertEqual(
            self.answered(b'{"ok": tr'), "the server at x has ended during the command"
        )
        for line in (b"HTTP/1.1 400\r\n", b"[]\n", b'{"ok": true}\n', b"1\n"):
            self.assertIn("is not the control socket", self.answered(line))
