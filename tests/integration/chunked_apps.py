"""The same view in several frameworks: the request body, its length and a form field.

Each application answers with the length of the body it sees, CONTENT_LENGTH, and the
SHA-256 of the body; `/form` with the form field `title` and the size of `file`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import bottle
import django
import flask
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from pyramid.config import Configurator
from pyramid.response import Response

__all__ = [
    "bottle_app",
    "cgi_app",
    "django_app",
    "flask_app",
    "pyramid_app",
    "urlpatterns",
    "wrapped_django_app",
]


def summary(body: bytes, length: str | None) -> str:
    """Return the text of a response."""
    return f"{len(body)} {length} {hashlib.sha256(body).hexdigest()}"


def _django_body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(summary(request.body, request.META.get("CONTENT_LENGTH")))


def _django_form(request: HttpRequest) -> HttpResponse:
    file = request.FILES.get("file")
    return HttpResponse(f"{request.POST.get('title')} {file.size if file else None}")


urlpatterns = [path("", _django_body), path("form", _django_form)]

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    MIDDLEWARE=[],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not secret",
)
django.setup(set_prefix=False)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - needs the settings

django_app: Any = get_wsgi_application()


def wrapped_django_app(environ: dict[str, Any], start_response: Any) -> Any:
    """Call Django through middleware that the server cannot see through."""
    return django_app(environ, start_response)


flask_app: Any = flask.Flask(__name__)


@flask_app.post("/")
def _flask_body() -> str:
    request = flask.request
    return summary(request.get_data(), request.environ.get("CONTENT_LENGTH"))


@flask_app.post("/form")
def _flask_form() -> str:
    file = flask.request.files["file"]
    return f"{flask.request.form['title']} {len(file.read())}"


bottle_app: Any = bottle.Bottle()
bottle.BaseRequest.MEMFILE_MAX = 10_000_000


@bottle_app.post("/")
def _bottle_body() -> str:
    request = bottle.request
    return summary(request.body.read(), request.environ.get("CONTENT_LENGTH"))


@bottle_app.post("/form")
def _bottle_form() -> str:
    file = bottle.request.files["file"]
    return f"{bottle.request.forms['title']} {len(file.file.read())}"


def _pyramid_body(request: Any) -> Response:
    return Response(summary(request.body, request.environ.get("CONTENT_LENGTH")))


def _pyramid_form(request: Any) -> Response:
    file = request.POST["file"]
    return Response(f"{request.POST['title']} {len(file.file.read())}")


def _made_with_pyramid() -> Any:
    with Configurator() as config:
        config.add_route("body", "/")
        config.add_route("form", "/form")
        config.add_view(_pyramid_body, route_name="body")
        config.add_view(_pyramid_form, route_name="form")
    return config.make_wsgi_app()


pyramid_app: Any = _made_with_pyramid()


def cgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Read CONTENT_LENGTH bytes, as a CGI program does."""
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(length or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [summary(body, length).encode()]
