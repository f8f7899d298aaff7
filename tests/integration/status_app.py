"""The application of the status page's tests: requests that wait, block and fail.

Paths below /flask and /django are those of an application of each.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path
from flask import Flask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

flask_app = Flask(__name__)


@flask_app.get("/flask/<int:number>")
def flask_view(number: int) -> str:
    """Fail; Flask answers 500."""
    raise LookupError(f"no flask object {number}")


def django_view(request: object, number: int) -> None:
    """Fail; Django answers 500."""
    raise ArithmeticError(f"no django object {number}")


urlpatterns = [path("django/<int:number>", django_view)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
django.setup()
django_app: Any = get_wsgi_application()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer; the path selects what happens before."""
    _, action, *arguments = environ["PATH_INFO"].split("/")
    if action == "flask":
        return flask_app(environ, start_response)
    if action == "django":
        result: Iterable[bytes] = django_app(environ, start_response)
        return result
    if action == "wait":
        time.sleep(60)
    elif action == "busy":
        end = time.perf_counter() + float(arguments[0])
        while time.perf_counter() < end:
            pass
    elif action == "fail":
        raise ZeroDivisionError("division in the view")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]
