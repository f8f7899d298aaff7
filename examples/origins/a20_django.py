"""Django: fifty concurrent slow views, and isolated transactions.

"With greenlets [it] should be possible to 'magically' transform blocking
applications like Django to non blocking." The views are ordinary and synchronous.
Their blocking calls park the request, and other requests run.

Django keeps one database connection per thread. Here one thread runs all requests,
and the server gives each request its own connections, so that no request runs inside
the transaction of another. The backend keeps them in a pool, and each SQLite
connection has its own thread, so a writer that waits for a lock blocks no other
request.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a20_django:app
    curl 'http://localhost:8080/slow?seconds=1'
    curl 'http://localhost:8080/write?text=kept'
    curl 'http://localhost:8080/write?text=lost&fail=1&seconds=1' &
    curl http://localhost:8080/notes

The views know Django and `time.sleep`. Only the settings refer to txgreenwsgi.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

# The database is empty at each start, unless NOTES_DATABASE names a file.
DATABASE = os.environ.get("NOTES_DATABASE") or str(
    Path(tempfile.mkdtemp(prefix="notes-")) / "notes.sqlite3"
)

if not settings.configured:
    settings.configure(
        SECRET_KEY="nothing is signed here",
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {
                "ENGINE": "txgreenwsgi.django.backends.sqlite3",
                "NAME": DATABASE,
                "OPTIONS": {
                    # Seconds that a writer waits for the lock of another.
                    "timeout": 20,
                    # A slow view holds a connection for its whole duration.
                    "green_pool": {"max_size": 64},
                },
            }
        },
    )
    django.setup()


class RolledBack(Exception):
    """Raised to roll back a transaction."""


def seconds_of(request: HttpRequest) -> float:
    """Return the number of seconds in the query, at most ten."""
    return min(float(request.GET.get("seconds", "0")), 10.0)


def count() -> int:
    """Return the number of notes that are visible to this request."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM note")
        found: int = cursor.fetchone()[0]
        return found


def slow(request: HttpRequest) -> HttpResponse:
    """Sleep within a transaction. Parks."""
    with transaction.atomic():
        before = count()
        time.sleep(seconds_of(request))
        return JsonResponse({"before": before, "after": count()})


def write(request: HttpRequest) -> HttpResponse:
    """Write a note, sleep, then commit it, or roll back with `fail`. Parks."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO note VALUES (%s)", [request.GET["text"]])
            time.sleep(seconds_of(request))
            seen = count()
            if "fail" in request.GET:
                raise RolledBack
    except RolledBack:
        return JsonResponse({"seen": seen, "kept": False})
    return JsonResponse({"seen": seen, "kept": True})


def notes(request: HttpRequest) -> HttpResponse:
    """Return all notes, and whether this request is in a transaction."""
    inside = connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM note ORDER BY rowid")
        texts = [text for (text,) in cursor.fetchall()]
    return JsonResponse({"notes": texts, "in_a_transaction": inside})


urlpatterns = [path("slow", slow), path("write", write), path("notes", notes)]

with connection.cursor() as _cursor:
    # Otherwise a writer would wait for all readers, and the process with it.
    _cursor.execute("PRAGMA journal_mode=WAL")
    _cursor.execute("CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)")
connections.close_all()

app = get_wsgi_application()
