"""Runs servers that have no suitable command of their own.

`python -m benchmarks.serve SERVER MODULE:APP PORT [CERTIFICATE KEY]`. All servers
have the same configuration: no access log, a long listen backlog, no limit on
connections, a long keep-alive.

Servers are imported by name, so that none of them need be installed to type-check
or import this file.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import canned

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

BACKLOG = 1024
MOST_CONNECTIONS = 20_000
KEEP_ALIVE_SECONDS = 120


def _load(spec: str) -> WSGIApplication:
    module, _, name = spec.partition(":")
    app: WSGIApplication = getattr(import_module(module), name)
    return app


def _gevent(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    import_module("gevent.monkey").patch_all()
    tls = {} if certificate is None else {"certfile": certificate, "keyfile": key}
    pywsgi = import_module("gevent.pywsgi")
    pywsgi.WSGIServer(
        ("127.0.0.1", port), _load(spec), backlog=BACKLOG, log=None, **tls
    ).serve_forever()


def _eventlet(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    eventlet = import_module("eventlet")
    eventlet.monkey_patch()
    listener = eventlet.listen(("127.0.0.1", port), backlog=BACKLOG)
    if certificate is not None:
        listener = eventlet.wrap_ssl(
            listener, certfile=certificate, keyfile=key, server_side=True
        )
    import_module("eventlet.wsgi").server(
        listener,
        _load(spec),
        max_size=MOST_CONNECTIONS,
        log_output=False,
        debug=False,
        socket_timeout=KEEP_ALIVE_SECONDS,
    )


def _bjoern(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    import_module("bjoern").run(_load(spec), "127.0.0.1", port, listen_backlog=BACKLOG)


def _freastal(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    tls = {} if certificate is None else {"certfile": certificate, "keyfile": key}
    import_module("freastal").serve(_load(spec), host="127.0.0.1", port=port, **tls)


def _waitress(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    import_module("waitress").serve(
        _load(spec),
        host="127.0.0.1",
        port=port,
        backlog=BACKLOG,
        connection_limit=MOST_CONNECTIONS,
        channel_timeout=KEEP_ALIVE_SECONDS,
        asyncore_use_poll=True,  # select() is limited to 1024 descriptors
        _quiet=True,
    )


def _twist_web(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    """Serve like `twist web --wsgi`, without its access log."""
    from twisted.internet import reactor as installed
    from twisted.web import server, tap

    def log_nothing(self: object, request: object) -> None:
        """Write no access log; Site writes one even without a file."""

    server.Site.log = log_nothing  # type: ignore[method-assign]
    where = f"{port}:interface=127.0.0.1:backlog={BACKLOG}"
    if certificate is None:
        listen = f"tcp:{where}"
    else:
        listen = f"ssl:{where}:privateKey={key}:certKey={certificate}"
    options: Any = tap.Options()
    options.parseOptions(["--listen", listen, "--wsgi", spec.replace(":", ".")])
    service: Any = tap.makeService(options)
    service.privilegedStartService()
    service.startService()
    reactor: Any = installed
    reactor.run()


def _epoll(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    canned.serve_by_epoll(port)


def _twisted(spec: str, port: int, certificate: str | None, key: str | None) -> None:
    canned.serve_by_twisted(port, certificate, key)


SERVERS: dict[str, Callable[[str, int, str | None, str | None], None]] = {
    "bjoern": _bjoern,
    "epoll": _epoll,
    "eventlet": _eventlet,
    "freastal": _freastal,
    "gevent": _gevent,
    "twist-web": _twist_web,
    "twisted": _twisted,
    "waitress": _waitress,
}


def main(arguments: list[str]) -> None:
    """Run the server named in the arguments until the process ends."""
    name, spec, port, *tls = arguments
    certificate, key = tls or (None, None)
    SERVERS[name](spec, int(port), certificate, key)


if __name__ == "__main__":
    main(sys.argv[1:])
