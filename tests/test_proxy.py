"""Tests of `GreenProxy`: APIs that return Deferreds, called as if they blocked."""

from __future__ import annotations

import types
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.protocols import amp
from twisted.spread import pb
from twisted.test.iosim import connectedServerAndClient

from txgreenwsgi import NotInGreenlet, TimedOut
from txgreenwsgi.proxy import GreenProxy

from .net.tasks import TaskTestCase


class Sum(amp.Command):
    """The command of the AMP test."""

    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]  # noqa: RUF012 - AMP's
    response = [(b"total", amp.Integer())]  # noqa: RUF012


class Adder(amp.AMP):
    """The server of the AMP test."""

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        """Return the sum."""
        return {"total": a + b}


class Api:
    """An API with each kind of method."""

    name = "api"
    Kind = dict

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.waiting: Deferred[str] = Deferred()

    def now(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Return a fired Deferred."""
        return succeed((args, kwargs))

    def later(self) -> Deferred[str]:
        """Return a pending Deferred."""
        self.calls.append("later")
        return self.waiting

    def failing(self) -> Deferred[Any]:
        """Return a failed Deferred."""
        return fail(KeyError("missing"))

    def plain(self) -> int:
        """Return a plain value."""
        return 3

    async def coroutine(self) -> str:
        """Return a value from a coroutine."""
        return await self.waiting


class GreenProxyTests(TaskTestCase):
    """`GreenProxy`."""

    def setUp(self) -> None:
        """Make an API and its proxy."""
        super().setUp()
        self.api = Api()
        self.proxy = GreenProxy(self.api)

    def test_waits(self) -> None:
        """A call waits for the Deferred and returns its result."""
        task = self.begin(self.proxy.later)
        self.assertFalse(task.done)
        self.api.waiting.callback("result")
        self.reactor.settle()
        self.assertEqual(self.result(task), "result")

    def test_arguments(self) -> None:
        """Arguments are passed on; plain results are returned unchanged."""
        found = self.run_now(lambda: self.proxy.now(1, b=2))
        self.assertEqual(found, ((1,), {"b": 2}))
        self.assertEqual(self.run_now(self.proxy.plain), 3)

    def test_raises(self) -> None:
        """A failure is raised."""
        with self.assertRaisesRegex(KeyError, "missing"):
            self.run_now(self.proxy.failing)

    def test_coroutines_and_tasks(self) -> None:
        """Coroutines and tasks are waited for too."""
        self.api.waiting.callback("result")
        self.assertEqual(self.run_now(self.proxy.coroutine), "result")
        inner = self.begin(self.api.plain)
        self.assertEqual(self.run_now(GreenProxy(lambda: inner)), 3)

    def test_timeout(self) -> None:
        """A call that exceeds the proxy's timeout is cancelled."""
        cancelled: list[Any] = []
        self.api.waiting = Deferred(cancelled.append)
        task = self.begin(GreenProxy(self.api, timeout=2.0).later)
        self.reactor.advance(2.0)
        with self.assertRaises(TimedOut):
            self.result(task)
        self.assertEqual(cancelled, [self.api.waiting])

    def test_attributes(self) -> None:
        """Other attributes are the object's own, to read, set and delete."""
        self.assertEqual(self.proxy.name, "api")
        self.assertIs(self.proxy.Kind, dict)
        self.proxy.name = "other"
        self.assertEqual(self.api.name, "other")
        del self.proxy.name
        self.assertEqual(self.api.name, "api")
        self.assertIn("later", dir(self.proxy))
        self.assertRegex(repr(self.proxy), r"GreenProxy\(<.*Api object")
        with self.assertRaises(AttributeError):
            self.proxy.missing  # noqa: B018 - reading it is the test

    def test_modules_and_functions(self) -> None:
        """A module or a single function may be wrapped."""
        module = types.ModuleType("client")
        module.get = lambda url: succeed(f"got {url}")  # type: ignore[attr-defined]
        self.assertEqual(self.run_now(GreenProxy(module).get, "/x"), "got /x")
        self.assertEqual(self.run_now(GreenProxy(module.get), "/y"), "got /y")

    def test_outside_a_task(self) -> None:
        """Outside a task the object is not called."""
        with self.assertRaisesRegex(NotInGreenlet, "a GreenProxy was called outside"):
            self.proxy.later()
        self.assertEqual(self.api.calls, [])

    def test_amp(self) -> None:
        """An AMP command is called, and its response returned."""
        client, _server, pump = connectedServerAndClient(Adder, amp.AMP)
        remote = GreenProxy(client)
        task = self.begin(lambda: remote.callRemote(Sum, a=2, b=3))
        pump.flush()
        self.reactor.settle()
        self.assertEqual(self.result(task), {"total": 5})

    def test_perspective_broker(self) -> None:
        """A reference of Perspective Broker is called, root object first."""

        class Root(pb.Root):
            def remote_greet(self, name: str) -> str:
                return f"hello, {name}"

        factory = pb.PBClientFactory()
        server = pb.PBServerFactory(Root())
        _client, _server, pump = connectedServerAndClient(
            lambda: server.buildProtocol(None), lambda: factory.buildProtocol(None)
        )
        pump.flush()

        def greet() -> Any:
            root = GreenProxy(factory).getRootObject()
            return GreenProxy(root).callRemote("greet", "Ann")

        task = self.begin(greet)
        for _ in range(3):
            pump.flush()
            self.reactor.settle()
        self.assertEqual(self.result(task), "hello, Ann")
