"""A Django project in one file, with a view that renders a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.shortcuts import render
from django.urls import path

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from django.http import HttpRequest, HttpResponse

_TEMPLATE = """<!doctype html>
<html lang="en"><title>{{ title }}</title>
<h1>{{ title }}</h1>
<table>
{% for row in rows %}<tr><td>{{ row.number }}<td>{{ row.name|title }}
{% endfor %}</table>
</html>
"""

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="nothing here is signed",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [
                            (
                                "django.template.loaders.locmem.Loader",
                                {"rows.html": _TEMPLATE},
                            )
                        ],
                    )
                ]
            },
        }
    ],
)


def index(request: HttpRequest) -> HttpResponse:
    """Render a table of twenty rows."""
    rows = [{"number": number, "name": f"row <{number}>"} for number in range(20)]
    page: HttpResponse = render(
        request, "rows.html", {"title": "Rows & columns", "rows": rows}
    )
    return page


urlpatterns = [path("", index)]
app: WSGIApplication = get_wsgi_application()
