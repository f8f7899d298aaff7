"""Servers of many protocols that delay each answer for the time asked for.

    python -m tests.integration.slow_servers FOLDER MEMCACHED_PORT

They are Twisted's servers, in one process: SMTP, FTP, XML-RPC, HTTP, HTTPS and DNS, and
a delaying proxy in front of memcached. A question contains a number and the delay in
seconds; the answer is the number. Not a test module: the tests of clients start it.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet import endpoints, ssl, task
from twisted.internet.protocol import Factory
from twisted.mail.smtp import SMTP, SMTPServerError
from twisted.names import dns, server
from twisted.protocols import basic, ftp, portforward
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.xmlrpc import XMLRPC
from zope.interface import implementer

from .processes import CHECKOUT, LOOPBACK
from .test_endpoints import write_certificate

if TYPE_CHECKING:
    from types import TracebackType

    from twisted.internet.defer import Deferred

__all__ = ["SlowServers"]


def _clock() -> Any:
    from twisted.internet import reactor

    return reactor


def _split(words: bytes | str) -> tuple[str, float]:
    """Return the number and the seconds of, for example, "17-0.5"."""
    text = words.decode("ascii") if isinstance(words, bytes) else words
    number, _, seconds = text.partition("-")
    return number, float(seconds)


class _Page(Resource):
    """Answer `/NUMBER-SECONDS` with the number after that many seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.isLeaf = True

    def render_GET(self, request: Any) -> Any:
        number, seconds = _split(request.path.lstrip(b"/"))

        def answer() -> None:
            request.write(number.encode())
            request.finish()

        call = _clock().callLater(seconds, answer)
        gone = request.notifyFinish()
        gone.addErrback(lambda _: call.active() and call.cancel())
        return NOT_DONE_YET


class _Procedures(XMLRPC):
    """The procedure `echo`."""

    def xmlrpc_echo(self, number: int, seconds: float) -> Deferred[int]:
        return task.deferLater(_clock(), seconds, lambda: number)


class _Mail(SMTP):
    """Refuse each recipient `NUMBER-SECONDS@...` with the number as the reason."""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        number, seconds = _split(user.dest.local)

        def refuse() -> None:
            raise SMTPServerError(550, number)

        return task.deferLater(_clock(), seconds, refuse)


@implementer(ftp.IReadFile)
class _File:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def send(self, consumer: Any) -> Deferred[Any]:
        # A client that has disconnected meanwhile is no error.
        sending = basic.FileSender().beginFileTransfer(io.BytesIO(self._data), consumer)
        sent: Deferred[Any] = sending.addErrback(lambda _: None)
        return sent


class _Shell(ftp.FTPAnonymousShell):
    """File `NUMBER-SECONDS` contains the number and opens after that many seconds."""

    def openForReading(self, path: list[str]) -> Deferred[_File]:
        number, seconds = _split(path[-1])
        return task.deferLater(_clock(), seconds, _File, number.encode())


@implementer(IRealm)
class _Realm:
    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        return ftp.IFTPShell, _Shell(None), lambda: None


class _Names:
    """`NUMBER-SECONDS.slow` has the number as its TXT record, after the delay."""

    def query(self, query: Any, timeout: Any = None) -> Deferred[Any]:
        name = query.name.name
        number, seconds = _split(name.removesuffix(b".slow"))
        text = dns.RRHeader(
            name, dns.TXT, payload=dns.Record_TXT(number.encode()), ttl=0
        )
        return task.deferLater(_clock(), seconds, lambda: ([text], [], []))


class _SlowCache(portforward.ProxyServer):
    """A proxy that delays `get NUMBER-SECONDS` by that many seconds."""

    def dataReceived(self, data: bytes) -> None:
        asked = re.match(rb"get \d+-([\d.]+)\r\n", data)
        _clock().callLater(float(asked[1]) if asked else 0.0, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self.peer is not None:
            super().dataReceived(data)


class _SlowCaches(portforward.ProxyFactory):
    protocol = _SlowCache


def _serve(folder: Path, memcached: int) -> None:
    reactor = _clock()
    certificate, key = write_certificate(folder)
    context = ssl.DefaultOpenSSLContextFactory(str(key), str(certificate))
    pages = Site(_Page())
    names = server.DNSServerFactory(clients=[_Names()])
    files = ftp.FTPFactory(Portal(_Realm(), [AllowAnonymousAccess()]))
    files.timeOut = None  # type: ignore[assignment]
    services = {
        "http": reactor.listenTCP(0, pages, 1024, LOOPBACK),
        "https": reactor.listenSSL(0, pages, context, 1024, LOOPBACK),
        "xmlrpc": reactor.listenTCP(0, Site(_Procedures()), 1024, LOOPBACK),
        "smtp": reactor.listenTCP(0, Factory.forProtocol(_Mail), 1024, LOOPBACK),
        "ftp": reactor.listenTCP(0, files, 1024, LOOPBACK),
        "memcached": reactor.listenTCP(
            0, _SlowCaches(LOOPBACK, memcached), 1024, LOOPBACK
        ),
        "dns": reactor.listenUDP(0, dns.DNSDatagramProtocol(names), LOOPBACK),
    }
    ports: dict[str, Any] = {
        name: listening.getHost().port for name, listening in services.items()
    }
    ports["certificate"] = str(certificate)
    reactor.callWhenRunning(print, json.dumps(ports), flush=True)
    # The parent holds the other end: its end of file stops this process.
    endpoints.StandardIOEndpoint(reactor).listen(Factory.forProtocol(_Parent))
    reactor.run()


class _Parent(basic.LineReceiver):
    def connectionLost(self, reason: Any = None) -> None:
        _clock().stop()


class SlowServers:
    """The process with all of these servers; use as a context manager.

    Attributes:
        ports: protocol -> port on the loopback interface; "certificate" -> path
            of the file with which a client verifies the HTTPS server.

    Args:
        folder: where it may write files.
        memcached: port of the memcached to delay; 0 for none.
    """

    def __init__(self, folder: Path, memcached: int = 0) -> None:
        self._folder = folder
        self._memcached = memcached
        self.ports: dict[str, Any] = {}

    def __enter__(self) -> SlowServers:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._folder), str(self._memcached)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.ports = json.loads(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
