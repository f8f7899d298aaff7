"""The server side of the control socket, over a transport in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._control import server
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._control.server import IDLE_SECONDS, ControlFactory


class FakeServer:
    """A recording server."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.reloading: Deferred[Any] = Deferred()

    def status(self) -> Deferred[Any]:
        """Return a status."""
        return succeed({"pid": 7})

    def reload(self) -> Deferred[Any]:
        """Return a Deferred that the test fires."""
        self.calls.append("reload")
        return self.reloading

    def scale(self, number: int, *, relative: bool) -> Deferred[int]:
        """Return the number."""
        self.calls.append((number, relative))
        return succeed(number)

    def snapshot(self) -> Deferred[Any]:
        """Return a snapshot."""
        return succeed({"pid": 7, "routes": []})

    def failure(self, of: str) -> Deferred[Any]:
        """Return a failure."""
        return succeed({"failure_id": of})

    def cancel(self, of: str) -> Deferred[str]:
        """Return the id of the request."""
        self.calls.append(f"cancel {of}")
        return succeed(of)

    def stacks(self, of: str) -> Deferred[str]:
        """Fail as the argument demands."""
        if of == "bug":
            return fail(ZeroDivisionError("oh"))
        return fail(ControlError(f"there is no {of}"))


class ConversationTests(SynchronousTestCase):
    """Requests and answers."""

    def setUp(self) -> None:
        """Connect."""
        self.clock = Clock()
        self.server = FakeServer()
        self.factory = ControlFactory(self.server)
        self.connect()

    def connect(self) -> bool:
        """Open a connection; return False if it is refused."""
        protocol: Any = self.factory.buildProtocol(None)
        if protocol is None:
            return False
        self.protocol = protocol
        self.protocol.callLater = self.clock.callLater
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        return True

    def ask(self, line: object) -> Any:
        """Send one line; return the answer, or None."""
        text = line if isinstance(line, bytes) else json.dumps(line).encode()
        self.protocol.dataReceived(text + b"\n")
        return self.answer()

    def answer(self) -> Any:
        """Return the answer since the last call, or None."""
        data = self.transport.value()
        self.transport.clear()
        if not data:
            return None
        self.assertEqual(data.count(b"\n"), 1)
        return json.loads(data)

    def test_results(self) -> None:
        """A connection carries several requests."""
        self.assertEqual(
            self.ask({"command": "status"}), {"ok": True, "result": {"pid": 7}}
        )
        request = {"command": "scale", "number": 4, "relative": False}
        self.assertEqual(self.ask(request), {"ok": True, "result": 4})
        self.assertEqual(self.server.calls, [(4, False)])

    def test_of_one_thing(self) -> None:
        """A snapshot has no arguments, a failure and a cancellation have one."""
        self.assertEqual(self.ask({"command": "snapshot"})["result"]["routes"], [])
        answer = self.ask({"command": "failure", "of": "1f-2"})
        self.assertEqual(answer["result"], {"failure_id": "1f-2"})
        self.assertEqual(self.ask({"command": "cancel", "of": "a"})["result"], "a")
        self.assertIn("of: str", self.ask({"command": "cancel"})["error"])
        self.assertEqual(self.server.calls, ["cancel a"])

    def test_waiting(self) -> None:
        """An answer may take long; the connection stays open."""
        self.assertIsNone(self.ask({"command": "reload"}))
        self.clock.advance(10 * IDLE_SECONDS)
        self.server.reloading.callback({"succeeded": True})
        self.assertEqual(self.answer(), {"ok": True, "result": {"succeeded": True}})
        self.assertFalse(self.transport.disconnecting)

    def test_refused(self) -> None:
        """The reason of a refusal is the answer."""
        self.assertEqual(
            self.ask({"command": "stacks", "of": "9"}),
            {"ok": False, "error": "there is no 9"},
        )
        self.assertEqual(self.ask({"command": "status"})["ok"], True)

    def test_bug(self) -> None:
        """An unexpected failure is logged, and answered without its traceback."""
        answer = self.ask({"command": "stacks", "of": "bug"})
        self.assertEqual(answer["error"], "the command failed (oh); see the log")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_invalid_requests(self) -> None:
        """What is not a request is refused; nothing is carried out."""
        deep = b"[" * 10000
        for line in (b"", b"x", b"1", b"[]", b'"status"', b"\xff", deep):
            self.assertEqual(
                self.ask(line)["error"], "a request is a JSON object on one line"
            )
        for name in (None, 1, "eval", "__init__", ["status"], {"a": 1}):
            answer = self.ask({"command": name})
            self.assertIn("the commands are status, reload", answer["error"])
        for arguments in (
            {},
            {"number": 4},
            {"number": "4", "relative": False},
            {"number": True, "relative": False},
            {"number": 4.0, "relative": False},
            {"number": 4, "relative": False, "extra": 1},
        ):
            answer = self.ask({"command": "scale", **arguments})
            self.assertIn("scale are number: int, relative: bool", answer["error"])
        self.assertIn("none: ", self.ask({"command": "status", "a": 1})["error"])
        self.assertEqual(self.server.calls, [])

    def test_too_long(self) -> None:
        """A line that is too long closes the connection."""
        self.protocol.dataReceived(b"x" * 20000)
        self.assertIn("at most 16384 bytes", self.answer()["error"])
        self.assertTrue(self.transport.disconnecting)

    def test_two_at_once(self) -> None:
        """A request before the last answer closes the connection."""
        self.ask({"command": "reload"})
        self.assertIn("must be awaited", self.ask({"command": "reload"})["error"])
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.server.calls, ["reload"])

    def test_idle(self) -> None:
        """A connection without a request is closed."""
        self.ask({"command": "status"})
        self.clock.advance(IDLE_SECONDS)
        self.assertTrue(self.transport.disconnecting)

    def test_client_leaves(self) -> None:
        """A command is carried out without its client."""
        self.ask({"command": "reload"})
        self.protocol.connectionLost(None)
        self.server.reloading.callback(1)
        self.assertIsNone(self.answer())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connections(self) -> None:
        """Their number is limited."""
        self.patch(server, "MAX_CONNECTIONS", 2)
        self.assertTrue(self.connect())
        self.assertFalse(self.connect())
        self.protocol.connectionLost(None)
        self.assertTrue(self.connect())
