"""Django, fifty slow views at once, and transactions that know nothing of each other.

"With greenlets [it] should be possible to 'magically' transform blocking
applications like Django to non blocking." The views are ordinary and synchronous;
where they would block they wait, and the others go on.

Django keeps a database connection for each thread. Here one thread runs all
requests, and the server gives each of them connections of its own, so that none finds
itself inside the transaction of another. The backend keeps them in a pool, and each
SQLite connection has a thread: a writer that waits for another keeps nobody else.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a20_django:app
    curl 'http://localhost:8080/slow?seconds=1'
    curl 'http://localhost:8080/write?text=kept'
    curl 'http://localhost:8080/write?text=lost&fail=1&seconds=1' &
    curl http://localhost:8080/notes

The views know Django and `time.sleep`. That they may wait, only the settings tell.
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

# Every start begins with an empty database, unless NOTES_DATABASE names a file.
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
                    # How long a writer waits for others, in seconds.
                    "timeout": 20,
                    # Each slow view holds one for as long as it is slow.
                    "green_pool": {"max_size": 64},
                },
            }
        },
    )
    django.setup()


class RolledBack(Exception):
    """What was written is not to be kept."""


def seconds_of(request: HttpRequest) -> float:
    """Give the query's number of seconds, at most ten."""
    return min(float(request.GET.get("seconds", "0")), 10.0)


def count() -> int:
    """Give the number of notes that this request can see."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM note")
        found: int = cursor.fetchone()[0]
        return found


def slow(request: HttpRequest) -> HttpResponse:
    """Be slow in the midst of a transaction. Parks."""
    with transaction.atomic():
        before = count()
        time.sleep(seconds_of(request))
        return JsonResponse({"before": before, "after": count()})


def write(request: HttpRequest) -> HttpResponse:
    """Write a note, be slow, then keep it, or not if the query says `fail`. Parks."""
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
    """Tell what is there, and whether this request is in a transaction."""
    inside = connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM note ORDER BY rowid")
        texts = [text for (text,) in cursor.fetchall()]
    return JsonResponse({"notes": texts, "in_a_transaction": inside})


urlpatterns = [path("slow", slow), path("write", write), path("notes", notes)]

with connection.cursor() as _cursor:
    # Else a writer would wait for all readers, and the process with it.
    _cursor.execute("PRAGMA journal_mode=WAL")
    _cursor.execute("CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)")
connections.close_all()

app = get_wsgi_application()
