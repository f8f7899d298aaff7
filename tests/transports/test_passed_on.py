"""Requests that another resource of twisted.web passes on, and late reads of bodies."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.util import DeferredResource

from txgreenwsgi import RequestTimeout

from .harness import TEXT, WEB, Cases, WebTransport, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.web.server import Request

    from .harness import Environ, Start


class _Gate(Resource):
    """Passes each request on to what its Deferred fires with."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[IResource]] = []

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return a resource that waits."""
        waiting: Deferred[IResource] = Deferred()
        self.waiting.append(waiting)
        resource: IResource = DeferredResource(waiting)
        return resource


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the body."""
    start("200 OK", TEXT)
    return [environ["wsgi.input"].read()]


class PassedOnCases(Cases):
    """An application behind a `DeferredResource`, as twisted.web's guards use it."""

    def test_passed_on(self) -> None:
        """The request is answered once it is passed on."""
        server = self.serve(hello)
        assert isinstance(server, WebTransport)
        gate = _Gate()
        server.serve_tree(gate)
        reply = server.begin("POST", "/a", body=b"abc")
        gate.waiting[0].callback(server.resource)
        server.settle()
        self.assert_complete(reply, b"abc")

    def test_client_left(self) -> None:
        """A request whose client left before is no request of the application."""
        server = self.serve(hello)
        assert isinstance(server, WebTransport)
        gate = _Gate()
        server.serve_tree(gate)
        reply = server.begin("POST", "/a", body=b"abc")
        server.disconnect(reply)
        gate.waiting[0].callback(server.resource)
        server.settle()
        self.assertEqual(server.app.environs, [])
        self.assertEqual(self.records, [])
        self.assertEqual(self.errors(), [])


class ReleaseCases(Cases):
    """Requests of twisted.web that have ended."""

    def test_request_is_released(self) -> None:
        """Neither a request nor its body waits for the garbage collector."""
        server = self.serve(hello)
        assert isinstance(server, WebTransport)
        references: list[weakref.ref[Request]] = []
        render = server.resource.render

        def rendered(request: Request) -> int:
            references.append(weakref.ref(request))
            return render(request)

        self.patch(server.resource, "render", rendered)
        gc.disable()
        self.addCleanup(gc.enable)
        reply = server.begin("POST", "/a", body=b"abc")
        self.assert_complete(reply, b"abc")
        server.disconnect(reply)
        server.app.environs.clear()
        server.app.tasks.clear()
        self.assertEqual([each() for each in references], [None])


class LateReadCases(Cases):
    """Reads of the request body after request_timeout."""

    def test_read_after_the_timeout(self) -> None:
        """A read raises RequestTimeout, as the wait did."""
        noticed: list[type[BaseException]] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            for function in (
                lambda: environ["txgreenwsgi.sleep"](9),
                environ["wsgi.input"].read,
            ):
                try:
                    function()
                except Exception as error:  # noqa: PERF203
                    noticed.append(type(error))
            environ["wsgi.input"].read()
            raise AssertionError("the request was over")

        server = self.serve(app, request_timeout=2)
        reply = server.begin("POST", body=b"abc")
        server.advance(3)
        self.assert_complete(reply, status=504)
        self.assertEqual(noticed, [RequestTimeout] * 2)
        self.assertEqual(self.outcomes(), [(504, "timeout")])
        self.assertEqual(self.errors(), [])


globals().update(on_every_transport(PassedOnCases, ReleaseCases, only=WEB))
globals().update(on_every_transport(LateReadCases))
