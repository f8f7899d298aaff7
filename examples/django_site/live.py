"""The live page: new posts as server-sent events, to any number of readers.

On PostgreSQL they come by NOTIFY, from whichever process wrote them. On SQLite,
where there is one process, they go from task to task.

A reader costs a task that waits for a Deferred: no thread, and no connection to
the database.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from django.db import close_old_connections, connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from txgreenwsgi import TimedOut, wait

from .feed import Feed
from .models import Post

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

    from .listening import Listener

CHANNEL = "board_posts"
#: After so long something is sent even if nothing has happened, so that proxies
#: keep the connection, and a reader who has gone is noticed.
HEARTBEAT_SECONDS = 15.0
#: How far back a reader is brought up to date.
MOST_MISSED = 50

feed: Feed[dict[str, Any]] = Feed()


def _news(post: Post) -> dict[str, Any]:
    return {
        "id": post.pk,
        "title": post.title,
        "author": post.author.get_username(),
        "url": post.get_absolute_url(),
    }


def announce(post: Post) -> None:
    """Tell all readers of `post` once the transaction is committed.

    Call in the transaction that makes it: if it fails nothing is told.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_notify(%s, %s)", [CHANNEL, json.dumps(_news(post))]
            )
    else:
        transaction.on_commit(partial(feed.send, _news(post)))


@lru_cache(maxsize=1)
def _listener() -> Listener:
    from .listening import Listener  # needs psycopg, which SQLite does without

    return Listener(CHANNEL, feed)


@lru_cache(maxsize=1)
def _close_feed_at_shutdown() -> None:
    """Let the streams end when the server stops, instead of holding it up."""
    from twisted.internet import reactor

    trigger: Any = reactor
    trigger.addSystemEventTrigger("before", "shutdown", feed.close)


def _event(news: dict[str, Any]) -> str:
    return f"id: {news['id']}\ndata: {json.dumps(news)}\n\n"


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The page, with what is newest at the moment."""
    posts = Post.objects.select_related("author")[:10]
    return render(request, "board/live.html", {"posts": posts})


@never_cache
@require_GET
def events(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Each new post as an event, for as long as the reader stays. Parks."""
    if "txgreenwsgi.wait" not in request.META:
        return HttpResponse("this page needs txgreenwsgi\n", status=501)
    # A browser whose connection broke says what it has seen.
    last = request.headers.get("Last-Event-ID", "")
    return StreamingHttpResponse(
        _stream(int(last) if last.isdecimal() else None),
        content_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


def _stream(last: int | None) -> Iterator[str]:
    _close_feed_at_shutdown()
    with feed.subscription() as queue, ExitStack() as stack:
        if connection.vendor == "postgresql":
            stack.enter_context(_listener().listening(connection.settings_dict))
        yield "retry: 2000\n\n"
        # What is written from here on is in the queue; this is what was before.
        told = set()
        if last is not None:
            missed = Post.objects.select_related("author").filter(id__gt=last)
            for post in reversed(missed[:MOST_MISSED]):
                told.add(post.pk)
                yield _event(_news(post))
        # Else this request would keep a connection for as long as it lasts, and
        # ten readers all that there are.
        close_old_connections()
        while True:
            try:
                news = wait(queue.get(), timeout=HEARTBEAT_SECONDS)
            except TimedOut:
                yield ": nothing new\n\n"
                continue
            if news is None:
                return
            if news["id"] not in told:
                yield _event(news)
