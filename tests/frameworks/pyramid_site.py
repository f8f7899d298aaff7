"""A Pyramid application that reads its thread-locals before and after a wait.

It knows Pyramid; it must never know how it is served.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from txgreenwsgi import sleep

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Pyramid has no annotations.
_config: Any = import_module("pyramid.config")
_threadlocal: Any = import_module("pyramid.threadlocal")


def view(request: Any) -> dict[str, object]:
    """Return the values of the thread-locals after a wait.

    Libraries without access to the request read it from there: the registry's
    settings, the renderer's globals, `request.session`.
    """
    sleep(float(request.params["seconds"]))
    found = _threadlocal.get_current_request()
    return {
        "asked": request.params["name"],
        "found": None if found is None else found.params["name"],
        "registry": _threadlocal.get_current_registry().settings.get("site"),
    }


def nested(request: Any) -> dict[str, object]:
    """Invoke a subrequest, which pushes and pops a request; both wait."""
    name = request.params["name"]
    path = f"/view?name=sub-{name}&seconds={request.params['seconds']}"
    inner = request.invoke_subrequest(request.blank(path)).json_body
    found = _threadlocal.get_current_request()
    return {"inner": inner, "found": found.params["name"]}


def make_app() -> WSGIApplication:
    """Return the application."""
    with _config.Configurator(settings={"site": "ours"}) as config:
        for route in (view, nested):
            config.add_route(route.__name__, f"/{route.__name__}")
            config.add_view(route, route_name=route.__name__, renderer="json")
        app: WSGIApplication = config.make_wsgi_app()
    return app


app = make_app()
