"""Serves what Werkzeug's tests start a development server for.

Takes the words that their `live_apps/run.py` takes, a name and JSON, and stands in
its place. It must never know what is tested.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txgreenwsgi import service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["main"]


def _endpoint(said: dict[str, Any]) -> str:
    host = said.get("hostname", "127.0.0.1")
    if host.startswith("unix://"):
        return f"unix:{host.removeprefix('unix://')}"
    place = f"{said['port']}:interface={host}"
    tls = said.get("ssl_context")
    if tls is None:
        return f"tcp:{place}"
    if isinstance(tls, str):  # "adhoc" or "custom"
        serving: Any = import_module("werkzeug.serving")
        tls = serving.make_ssl_devcert(str(Path(tempfile.mkdtemp(), "dev")))
    certificate, key = tls
    return f"ssl:{place}:privateKey={key}:certKey={certificate}"


def main() -> None:
    """Serve until a signal comes."""
    from twisted.internet import reactor

    turning: Any = reactor
    tested: WSGIApplication = import_module(f"{sys.argv[1]}_app").app

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ensure":
            start("200 OK", [("Content-Length", "0")])
            return []
        return tested(environ, start)

    service(app, [_endpoint(json.loads(sys.argv[2]))]).startService()
    turning.run()


if __name__ == "__main__":
    main()
