"""A server in its own process, for tests that send it SIGTERM.

    python -m tests.transports.sigterm_program resource|resources|service|tls

It prints its port, then the path of each request when the application is called.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.application.service import Application, IService
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.certificate import TLS_OPTIONS
from txgreenwsgi import GreenWSGIResource, service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Sleep for `seconds`, then answer with `size` bytes."""
    query = parse_qs(environ["QUERY_STRING"])
    print(environ["SCRIPT_NAME"] + environ["PATH_INFO"], flush=True)
    environ["txgreenwsgi.sleep"](float(query["seconds"][0]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * int(query["size"][0])]


def main(kind: str) -> None:
    """Serve until SIGTERM."""
    loop: Any = reactor
    if kind == "service":
        made = service(app, [TCP4ServerEndpoint(loop, 0, interface="127.0.0.1")])
        parent: Any = Application("test")
        made.setServiceParent(parent)
        running: Any = IService(parent)
        running.startService()
        loop.addSystemEventTrigger("before", "shutdown", running.stopService)
        [port] = made.ports
    else:
        root: Resource = GreenWSGIResource(app)
        if kind == "resources":
            root = Resource()
            root.putChild(b"one", GreenWSGIResource(app))
            root.putChild(b"two", GreenWSGIResource(app))
        if kind == "tls":
            # twisted.web negotiates HTTP/2 with clients that offer it.
            site: Any = Site(root)
            port = loop.listenSSL(0, site, TLS_OPTIONS, interface="127.0.0.1")
        else:
            port = loop.listenTCP(0, Site(root), interface="127.0.0.1")
    address: Any = port.getHost()
    print(address.port, flush=True)
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1])
