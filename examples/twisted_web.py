"""WSGI applications among the resources of twisted.web.

The resource tree::

    /               a WSGI application, for all paths without another resource
    /clock          a resource of twisted.web
    /flask/...      a second WSGI application, below a prefix

`twisted_web.tac` in this directory serves it. This file knows twisted.web and
`GreenWSGIResource`. It must never know the port.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from examples import flask_app
from txgreenwsgi import GreenWSGIResource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.web.iweb import IRequest


def where_am_i(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Respond with SCRIPT_NAME and PATH_INFO. Never parks."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    script_name, path_info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    return [f"SCRIPT_NAME={script_name!r} PATH_INFO={path_info!r}\n".encode()]


class Clock(Resource):
    """An ordinary resource of twisted.web: a clock."""

    isLeaf = True  # noqa: N815 (twisted.web's name)

    def render_GET(self, request: IRequest) -> bytes:
        """Return the time in UTC."""
        return time.strftime("%H:%M:%S\n", time.gmtime()).encode("ascii")


def make_root() -> Resource:
    """Return the tree. Paths without a child go to the application of the root."""
    root = GreenWSGIResource(where_am_i)
    root.putChild(b"clock", Clock())
    root.putChild(b"flask", GreenWSGIResource(flask_app.app))
    return root
