"""Requests and connections end without work for the garbage collector.

Objects in a reference cycle stay until the collector runs; with thousands of clients
the server would grow until then.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.h1_channel import H1Channel
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"

Environ = dict[str, Any]
Start = Any


class Mark:
    """An object in the environ, to see when the environ is freed."""


def _answers(_: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def _sleeps(environ: Environ, start: Start) -> Iterable[bytes]:
    environ["txgreenwsgi.sleep"](5)
    return _answers(environ, start)


def _reads(environ: Environ, start: Start) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    return _answers(environ, start)


def _writes(_: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", [])
    while True:
        write(bytes(100_000))


def _yields(_: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [])
    while True:
        yield bytes(100_000)


def _fails(_: Environ, start: Start) -> Iterable[bytes]:
    raise ValueError("as it should")


#: Events, with the bytes sent and the application; all end within ten seconds.
ENDS: dict[str, tuple[bytes, Callable[[Environ, Start], Iterable[bytes]]]] = {
    "it is answered": (GET, _answers),
    "its client leaves while it sleeps": (GET, _sleeps),
    "its client leaves while it reads": (POST, _reads),
    "its client leaves while it writes": (GET, _writes),
    "its client leaves while it is iterated": (GET, _yields),
    "the application fails": (GET, _fails),
    "it is refused": (b"what?\r\n\r\n", _answers),
}


def _connections() -> int:
    """Return the number of connections, uncollected ones included."""
    return sum(type(found) is H1Channel for found in gc.get_objects())


class GarbageTests(LeakCheckMixin, SynchronousTestCase):
    """Requests without the garbage collector."""

    def setUp(self) -> None:
        """Disable the collector."""
        super().setUp()
        gc.collect()  # objects of other tests
        gc.disable()
        self.addCleanup(gc.enable)

    def test_connections(self) -> None:
        """At any end of a request, its connection and environ are freed at once."""
        for end, (data, app) in ENDS.items():
            for settings in ({}, {"on_disconnect": "cancel"}, {"request_timeout": 3}):
                environs: list[Any] = []

                def remember(
                    environ: Environ,
                    start: Start,
                    app: Any = app,
                    environs: list[Any] = environs,
                ) -> Any:
                    environ["mark"] = mark = Mark()
                    environs.append(weakref.ref(mark))
                    del mark
                    return app(environ, start)

                server = self.serve(remember, **settings)
                client = server.connect(room=300_000)
                client.send(data)
                before = _connections() - 1
                client.channel = None
                if "request_timeout" not in settings:
                    client.disconnect()
                server.advance(10)
                client.disconnect()
                server.advance(10)
                self.flushLoggedErrors(ValueError)
                self.assertEqual(_connections(), before, (end, settings))
                for environ in environs:
                    self.assertIsNone(environ(), (end, settings))
