"""WSGI applications among the resources of twisted.web.

The tree that is served::

    /               a WSGI application: whatever is nobody else's
    /clock          a resource of twisted.web, beside it
    /flask/...      a second WSGI application, below a prefix of its own

`twisted_web.tac` beside this file serves it. This file knows twisted.web and
`GreenWSGIResource`; it must never know which port is listened on.
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
    """Tell which part of the path led here, and which part is left. Never parks."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    script_name, path_info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    return [f"SCRIPT_NAME={script_name!r} PATH_INFO={path_info!r}\n".encode()]


class Clock(Resource):
    """An ordinary resource of twisted.web: it tells the time."""

    isLeaf = True  # noqa: N815 (a name of twisted.web's)

    def render_GET(self, request: IRequest) -> bytes:
        """Tell the time in UTC."""
        return time.strftime("%H:%M:%S\n", time.gmtime()).encode("ascii")


def make_root() -> Resource:
    """Build the tree: what is no child of the root goes to its application."""
    root = GreenWSGIResource(where_am_i)
    root.putChild(b"clock", Clock())
    root.putChild(b"flask", GreenWSGIResource(flask_app.app))
    return root
