"""An application inside twisted.web: a resource beside others.

A drop-in for `twisted.web.wsgi.WSGIResource` without its thread pool. The
requests are parsed, and their bodies buffered, by twisted.web, HTTP/2 included;
what is ours is the application's side: it runs in a task, it may wait for
anything, and `write` parks while the client is behind.

This file knows twisted.web. It must never know our own channel.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ._http.fields import join_fields, variable_name
from ._http.framing import has_no_body
from ._http.head import Malformed
from ._server.body import after_the_end
from ._server.output import TransportOutput
from ._server.site import GreenSite
from ._server.unpatched import log_if_unpatched
from ._switching.errors import Cancelled, ClientDisconnected, RequestTimeout
from ._switching.greenlets import SLICE_SECONDS, Task
from ._switching.waiting import sleep
from ._wsgi.application_check import checked_application
from ._wsgi.errors import Errors
from ._wsgi.gateway import serve
from ._wsgi.input import Input
from .origins import take_turn

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.server import Request

    from ._http.writer import ResponseHead
    from ._wsgi.files import FileWrapper
    from ._wsgi.gateway import Application

__all__ = ["GreenWSGIResource"]

_log = Logger()

_READ_BYTES = 65536


class GreenWSGIResource(Resource):
    """Serves a WSGI application at a place in a tree of resources.

    It may be the root and have children: `putChild` gives them their names, and
    everything else goes to the application.

    Args:
        application: the WSGI callable.
        reactor: the installed one by default.
        settings: see `txgreenwsgi.settings`; those about connections and
            requests' sizes are twisted.web's business here and have no effect.
    """

    def __init__(
        self, application: Application, *, reactor: Any = None, **settings: Any
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        checked_application(application)
        # For what requests share: settings, environ, places, the table.
        self.site = GreenSite(application, reactor=reactor, **settings)
        self._leaf = _Leaf(self)
        self._stops_with_reactor = False

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The application, for a name that no child has."""
        assert request.prepath is not None
        assert request.postpath is not None
        request.prepath.pop()
        request.postpath.insert(0, path)
        return self._leaf

    def render(self, request: Request) -> int:
        """Begin the request's task. Called by twisted.web."""
        site = self.site
        if not self._stops_with_reactor:
            # twisted.web drops its requests when the reactor stops.
            self._stops_with_reactor = True
            log_if_unpatched()
            if IReactorCore.providedBy(site.reactor):
                site.reactor.addSystemEventTrigger("before", "shutdown", site.stop)
        exchange = ResourceExchange(site, request)
        if site.pool.take():
            exchange.begin_task()
        elif not site.pool.queue(exchange.begin_task):
            exchange.refuse()
        return NOT_DONE_YET


@implementer(IResource)
class _Leaf:
    """The application for all paths below; twisted.web looks no further."""

    isLeaf = True

    def __init__(self, resource: GreenWSGIResource) -> None:
        self._resource = resource

    def render(self, request: Request) -> int:
        return self._resource.render(request)

    def getChildWithDefault(self, name: bytes, request: Request) -> IResource:
        raise AssertionError("a leaf has no children")

    def putChild(self, path: bytes, child: IResource) -> None:
        raise AssertionError("children belong to the GreenWSGIResource")


class ResourceExchange:
    """One request of twisted.web and its response; what the gateway calls a sink."""

    def __init__(self, site: GreenSite, request: Request) -> None:
        self._site = site
        self._request = request
        self.request_id = site.next_request_id()
        self.started = site.reactor.seconds()
        self.task: Task[None] | None = None
        self.iterating = False
        self.bodiless = False
        self.cut: BaseException | None = None
        self._code = 0
        self._left: int | None = None
        self._unread = False  # whether some of the body was, when it ended
        self._output: Any = None
        self._deadline: IDelayedCall | None = None
        site.exchanges.add(self)  # type: ignore[arg-type]
        request.notifyFinish().addErrback(self._client_lost)

    # What the table of requests asks.

    @property
    def head(self) -> ResourceExchange:
        """For `GreenSite.requests`, which knows requests by their heads."""
        return self

    @property
    def method(self) -> str:
        """Such as "GET"."""
        return str(self._request.method.decode("latin-1"))

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return str(self._request.uri.partition(b"?")[0].decode("latin-1"))

    def __repr__(self) -> str:
        return f"{self.method} {self.path} (request {self.request_id})"

    # Its life.

    def begin_task(self) -> None:
        """Run the application at the reactor's next turn. A place is taken for it."""
        site = self._site
        if self.cut is not None:
            self._ended()
            return
        self.task = task = Task(
            site.hub, self._run, (), None, site.context.copy(), "request"
        )
        task.call_at_end(self._ended)
        self.set_request_timeout(site.settings.request_timeout or None)
        site.hub.spawn(task)

    def refuse(self) -> None:
        """There is no place, and none in the queue."""
        self._site.forget(self)
        request = self._request
        request.setHeader(b"retry-after", b"1")
        self._answer(503, b"Service Unavailable", "too many requests at once\n")

    def _ended(self) -> None:
        cut = self.cut
        if cut is not None:
            # Without the frames it came through, which lead back to here.
            self.cut = type(cut)(*cut.args)
        self._site.forget(self)
        self.set_request_timeout(None)
        begin = self._site.pool.give_back()
        if begin is not None:
            self._site.hub.at_next_turn(begin)

    def _client_lost(self, _: Failure) -> None:
        self._end_early(
            ClientDisconnected("the client has closed the connection"),
            self._site.settings.on_disconnect == "cancel",
        )

    def cancel(self) -> None:
        """The server stops and has waited long enough."""
        error = Cancelled("the server is stopping")
        if self.cut is not None and self.task is not None:
            self.task.interrupt(error)  # it goes on without its client
        else:
            self._end_early(error, True)

    def _end_early(self, error: BaseException, every_wait: bool) -> None:
        if self.cut is not None:
            return
        self.cut = error
        output = self._output
        if output is not None and output.waiting is not None:
            output.waiting.abandon(error)
        elif self.task is not None and (every_wait or self.iterating):
            self.task.interrupt(error)

    def set_request_timeout(self, seconds: float | None) -> None:
        """Give this request `seconds` from now; None for as long as it takes."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = (
            None
            if seconds is None
            else self._site.reactor.callLater(seconds, self._time_out, seconds)
        )

    def _time_out(self, seconds: float) -> None:
        _log.warn(
            "{request} timed out after {seconds:g} seconds",
            request=self,
            seconds=seconds,
        )
        if self._code:
            self._abort()
        else:
            self._answer(504, b"Gateway Timeout", "Gateway Timeout\n")
        self._end_early(
            RequestTimeout(f"the request took longer than {seconds:g} seconds"), True
        )

    def _run(self) -> None:
        try:
            serve(self._site.application, self._environ(), self)
        except BaseException as error:  # SystemExit too: it is only a request
            self._failed(error)
            if self.task is not None and self.task.dying:
                raise

    def _failed(self, error: BaseException) -> None:
        gone = self.cut is not None and isinstance(
            error, (type(self.cut), ClientDisconnected, RequestTimeout, Cancelled)
        )
        if not gone and not isinstance(error, Malformed):
            _log.failure("{request} failed", failure=Failure(error), request=self)
        request = self._request
        if request._disconnected or request.finished:
            return
        if self._code:
            self._abort()
        elif isinstance(error, Malformed):
            self._answer(error.status, b"Bad Request", f"{error.reason}\n")
        elif isinstance(self.cut, Cancelled):
            self._answer(503, b"Service Unavailable", "Service Unavailable\n")
        else:
            text = "Internal Server Error\n"
            if self._site.settings.display_tracebacks:
                text += "\n" + "".join(traceback.format_exception(error))
            self._answer(500, b"Internal Server Error", text)

    def _abort(self) -> None:
        """Cut the connection, so that the client sees that something is missing."""
        channel: Any = self._request.channel
        if channel is None:
            return
        if self._output is not None:
            self._output.detach()
        if isinstance(channel, HTTPChannel):
            transport: Any = channel.transport
            transport.abortConnection()
        else:  # HTTP/2: the stream alone
            channel.abortConnection()

    def _answer(self, code: int, reason: bytes, text: str) -> None:
        request = self._request
        body = text.encode("utf-8", "replace")
        self._code = code
        request.setResponseCode(code, reason)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        self._finish_request()

    def _finish_request(self) -> None:
        if self._output is not None:
            self._output.detach()
        content = self._request.content
        self._unread = content is not None and bool(content.read(1))
        self._request.finish()  # which forgets the body

    # What the application sees.

    def _environ(self) -> dict[str, Any]:
        request = self._request
        environ = self._site.environ.copy()
        environ.update(
            join_fields(
                (key, value.decode("latin-1"))
                for name, values in request.requestHeaders.getAllRawHeaders()
                if (key := variable_name(name.decode("latin-1")))
                for value in values
            )
        )
        environ["REQUEST_METHOD"] = self.method
        environ["SCRIPT_NAME"] = _joined(request.prepath)
        environ["PATH_INFO"] = _joined(request.postpath)
        target = request.uri.decode("latin-1")
        environ["QUERY_STRING"] = target.partition("?")[2]
        environ["RAW_URI"] = environ["REQUEST_URI"] = target
        # HTTP/2 comes here as HTTP/2; what applications know is HTTP/1.1 at most.
        environ["SERVER_PROTOCOL"] = request.clientproto.decode("latin-1")
        scheme = self._site.settings.url_scheme or (
            "https" if request.isSecure() else "http"
        )
        environ["wsgi.url_scheme"] = scheme
        host = request.getHost()
        if isinstance(host, (IPv4Address, IPv6Address)):
            environ["SERVER_PORT"] = str(host.port)
            name = request.getRequestHostname().decode("latin-1") or host.host
        else:
            environ["SERVER_PORT"] = "443" if scheme == "https" else "80"
            name = "localhost"
        environ["SERVER_NAME"] = name
        peer = request.getClientAddress()
        known = isinstance(peer, (IPv4Address, IPv6Address))
        environ["REMOTE_ADDR"] = peer.host if known else ""
        environ["REMOTE_PORT"] = str(peer.port) if known else ""
        environ["wsgi.input"] = Input(self)
        environ["wsgi.errors"] = Errors(self.request_id)
        environ["txgreenwsgi.request_id"] = self.request_id
        environ["txgreenwsgi.client_disconnected"] = self.client_disconnected
        environ["waitress.client_disconnected"] = self.client_disconnected
        environ["txgreenwsgi.set_request_timeout"] = self.set_request_timeout
        return environ

    def client_disconnected(self) -> bool:
        """Whether the client is known to be gone. Never parks."""
        return bool(self._request._disconnected)

    def receive(self, wanted: int = 0) -> bytes:
        """The next piece of the body, which twisted.web has read whole."""
        if self.cut is not None:
            raise self.cut
        if self._unread:
            raise after_the_end()
        content = self._request.content
        piece: bytes = b"" if content is None else content.read(_READ_BYTES)
        return piece

    def reader_turn(self) -> None:
        """Park for a turn. May park."""
        if self.cut is not None:
            raise self.cut
        sleep(0)

    # What the gateway writes.

    def begin_iteration(self) -> None:
        """The application's iterable is asked for blocks from here on."""
        if self.cut is not None:
            raise self.cut
        self.iterating = True

    def end_iteration(self) -> None:
        """`close()` is called next: what was to end the iteration is not for it."""
        self.iterating = False
        if self.task is not None and isinstance(self.cut, ClientDisconnected):
            self.task.withdraw(self.cut)

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Send the head and the first block. May park."""
        if self.cut is not None:
            raise self.cut
        request = self._request
        self._code = head.code
        self.bodiless = has_no_body(self.method, head.code)
        request.setResponseCode(head.code, head.reason)
        headers = request.responseHeaders
        given = head.fields()
        for name, _ in given:
            headers.removeHeader(name)  # twisted.web's defaults: Server, Date
        for name, value in given:
            headers.addRawHeader(name, value)
        for name_, value_ in self._site.settings.add_header:
            if not headers.hasHeader(name_):
                headers.addRawHeader(name_, value_)
        self._left = head.content_length
        if self._left is None and length is not None and not self.bodiless:
            self._left = length
            headers.setRawHeaders(b"content-length", [b"%d" % length])
        self._output = TransportOutput(request, self._abort)
        if self.bodiless:
            request.write(b"")
        elif block:
            self._send(block)
            if self._left != 0:
                self._handed_over()

    def write(self, block: bytes) -> None:
        """Send a further block. Parks while the client is behind."""
        if self.cut is not None:
            raise self.cut
        if not self.bodiless:
            self._send(block)
            self._handed_over()

    def _send(self, block: bytes) -> None:
        if self._left is not None:
            if len(block) > self._left:
                _log.error(
                    "{request}: the body is longer than its Content-Length; it was "
                    "cut there",
                    request=self,
                )
                block = block[: self._left]
            self._left -= len(block)
        if block:
            self._output.send(block)

    def _handed_over(self) -> None:
        self._output.hand_over()
        hub = self._site.hub
        if hub.reactor.seconds() - hub.resumed_at > SLICE_SECONDS:
            sleep(0)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """twisted.web has no way to send a file by the kernel."""
        return False

    def turn(self) -> None:
        """The application yielded b"": wait for what it asked for. May park."""
        if self.cut is not None:
            raise self.cut
        take_turn()

    def finish(self) -> None:
        """The body is complete."""
        if self.cut is not None:
            raise self.cut
        if self._left and not self.bodiless:
            _log.error(
                "{request}: the body ended {left} bytes before its Content-Length; "
                "the connection is closed",
                request=self,
                left=self._left,
            )
            self._abort()
            return
        self._finish_request()


def _joined(segments: list[bytes] | None) -> str:
    return "".join("/" + segment.decode("latin-1") for segment in segments or [])
