"""A replacement for the development server that Werkzeug's tests start.

It replaces their `live_apps/run.py` and takes the same arguments, a name and JSON.
It must never know the tests.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from txgreenwsgi import service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from twisted.internet.interfaces import IReactorCore

__all__ = ["main"]


def _endpoint(options: dict[str, Any]) -> str:
    host = options.get("hostname", "127.0.0.1")
    if host.startswith("unix://"):
        return f"unix:{host.removeprefix('unix://')}"
    place = f"{options['port']}:interface={host}"
    tls = options.get("ssl_context")
    if tls is None:
        return f"tcp:{place}"
    if isinstance(tls, str):  # "adhoc" or "custom"
        serving: Any = import_module("werkzeug.serving")
        tls = serving.make_ssl_devcert(str(Path(tempfile.mkdtemp(), "dev")))
    certificate, key = tls
    return f"ssl:{place}:privateKey={key}:certKey={certificate}"


def main() -> None:
    """Serve until a signal arrives."""
    from twisted.internet import reactor

    tested: WSGIApplication = import_module(f"{sys.argv[1]}_app").app

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ensure":
            start("200 OK", [("Content-Length", "0")])
            return []
        return tested(environ, start)

    service(app, [_endpoint(json.loads(sys.argv[2]))]).startService()
    cast("IReactorCore", reactor).run()


if __name__ == "__main__":
    main()
