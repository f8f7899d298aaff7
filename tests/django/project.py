"""A Django project in this process, on an SQLite file, for unit tests.

Its views wait by `txgreenwsgi.sleep`, on the clock of the test. Nothing is patched.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

from txgreenwsgi import isolation, sleep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

FOLDER = Path(tempfile.mkdtemp(prefix="green-django-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

if not settings.configured:
    settings.configure(
        SECRET_KEY="nothing is signed here",
        ALLOWED_HOSTS=["localhost", "127.0.0.1", "testserver", "memory"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "txgreenwsgi.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MESSAGE_STORAGE="django.contrib.messages.storage.cookie.CookieStorage",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": FOLDER / "default.sqlite3",
            },
            "pooled": {
                "ENGINE": "tests.django.plain",
                "NAME": FOLDER / "pooled.sqlite3",
                "OPTIONS": {"green_pool": {"max_size": 2, "wait_timeout": 5}},
            },
        },
        USE_TZ=True,
        TIME_ZONE="UTC",
        LANGUAGES=[("en", "English"), ("de", "German"), ("fr", "French")],
        FILE_UPLOAD_TEMP_DIR=str(FOLDER),
    )
    django.setup()
isolation.isolate_loaded()

from django.contrib import messages  # noqa: E402 - needs django.setup()
from django.contrib.messages import get_messages  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django.urls import (  # noqa: E402
    get_script_prefix,
    get_urlconf,
    set_urlconf,
)
from django.utils import timezone, translation  # noqa: E402

ZONES = ("Europe/Berlin", "Asia/Tokyo", "America/New_York", "UTC")


def count_transactions(request: HttpRequest) -> HttpResponse:
    """Sleep in a transaction, and return the transaction state around it."""
    before = connection.in_atomic_block
    with transaction.atomic():
        sleep(1)
        inside = connection.in_atomic_block, len(connection.atomic_blocks)
    return JsonResponse([before, *inside, connection.in_atomic_block], safe=False)


def mine(request: HttpRequest) -> HttpResponse:
    """Set Django's per-thread state, sleep, and return that state."""
    number = int(request.GET["number"])
    translation.activate(("en", "de", "fr")[number % 3])
    timezone.activate(ZONES[number % 4])
    set_urlconf(f"urlconf{number}")
    messages.info(request, f"message {number}")
    cache = caches["default"]
    connection.force_debug_cursor = bool(number % 2)
    sleep(1 + number % 5)
    return JsonResponse(
        {
            "language": translation.get_language(),
            "yes": translation.gettext("Yes"),
            "zone": timezone.get_current_timezone_name(),
            "urlconf": get_urlconf(),
            "prefix": get_script_prefix(),
            "messages": [str(each) for each in get_messages(request)],
            "same_cache": cache is caches["default"],
            "debug": connection.force_debug_cursor,
        }
    )


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Keep a transaction open while the response is streamed."""

    def blocks() -> Iterator[str]:
        with transaction.atomic():
            for _ in range(3):
                sleep(1)
                yield f"{connection.in_atomic_block}\n"

    return StreamingHttpResponse(blocks())


def hold(request: HttpRequest) -> HttpResponse:
    """Keep a transaction open for 100 seconds."""
    with transaction.atomic():
        held.append(connection.connection)
        sleep(100)
    return HttpResponse("done")


def stay(request: HttpRequest) -> HttpResponse:
    """Open a connection, then raise SystemExit."""
    connection.ensure_connection()
    held.append(connection.connection)
    raise SystemExit("a view that ends the program")


#: The connections of `hold` and `stay`.
held: list[Any] = []

urlpatterns = [
    path("transactions", count_transactions),
    path("mine", mine),
    path("stream", stream),
    path("hold", hold),
    path("stay", stay),
    path("more/", include("tests.django.uploads")),
]

application = get_wsgi_application()

__all__ = ["application", "caches", "connection", "connections", "held", "transaction"]
