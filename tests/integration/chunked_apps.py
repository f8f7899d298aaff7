"""The same view in several frameworks: the request body, its length and a form field.

Each application answers with the length of the body it sees, CONTENT_LENGTH, and the
SHA-256 of the body; `/form` with the form field `title` and the size of `file`.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

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

# Without types, or with untyped decorators.
bottle: Any = import_module("bottle")
flask: Any = import_module("flask")
pyramid_config: Any = import_module("pyramid.config")
pyramid_response: Any = import_module("pyramid.response")

from django.core.wsgi import get_wsgi_application  # noqa: E402 - needs the settings

django_app: Any = get_wsgi_application()


def wrapped_django_app(environ: dict[str, Any], start_response: Any) -> Any:
    """Call Django through middleware that the server cannot see through."""
    return django_app(environ, start_response)


def _flask_body() -> str:
    request = flask.request
    return summary(request.get_data(), request.environ.get("CONTENT_LENGTH"))


def _flask_form() -> str:
    file = flask.request.files["file"]
    return f"{flask.request.form['title']} {len(file.read())}"


flask_app: Any = flask.Flask(__name__)
flask_app.add_url_rule("/", view_func=_flask_body, methods=["POST"])
flask_app.add_url_rule("/form", view_func=_flask_form, methods=["POST"])


def _bottle_body() -> str:
    request = bottle.request
    return summary(request.body.read(), request.environ.get("CONTENT_LENGTH"))


def _bottle_form() -> str:
    file = bottle.request.files["file"]
    return f"{bottle.request.forms['title']} {len(file.file.read())}"


bottle_app: Any = bottle.Bottle()
bottle_app.route("/", "POST", _bottle_body)
bottle_app.route("/form", "POST", _bottle_form)
bottle.BaseRequest.MEMFILE_MAX = 10_000_000


def _pyramid_body(request: Any) -> Any:
    return pyramid_response.Response(
        summary(request.body, request.environ.get("CONTENT_LENGTH"))
    )


def _pyramid_form(request: Any) -> Any:
    file = request.POST["file"]
    return pyramid_response.Response(f"{request.POST['title']} {len(file.file.read())}")


def _made_with_pyramid() -> Any:
    with pyramid_config.Configurator() as config:
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
