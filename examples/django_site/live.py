"""The live page: new posts as server-sent events, for any number of readers.

With PostgreSQL they arrive by NOTIFY from all processes. With SQLite, which serves one
process, they are passed from task to task.

A reader costs one task that waits for a Deferred: no thread and no database connection.
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
#: Interval of comments sent without news, so that proxies keep the connection and
#: disconnected readers are detected.
HEARTBEAT_SECONDS = 15.0
#: Maximum number of missed posts sent to a reader that reconnects.
MAX_MISSED = 50

feed: Feed[dict[str, Any]] = Feed()


def _news(post: Post) -> dict[str, Any]:
    return {
        "id": post.pk,
        "title": post.title,
        "author": post.author.get_username(),
        "url": post.get_absolute_url(),
    }


def announce(post: Post) -> None:
    """Announce `post` to all readers when the transaction is committed.

    Call in the transaction that creates it: after a rollback nothing is announced.
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
    from .listening import Listener  # needs psycopg, which SQLite does not

    return Listener(CHANNEL, feed)


@lru_cache(maxsize=1)
def _close_feed_at_shutdown() -> None:
    """End the streams at shutdown, instead of delaying it."""
    from twisted.internet import reactor

    trigger: Any = reactor
    trigger.addSystemEventTrigger("before", "shutdown", feed.close)


def _event(news: dict[str, Any]) -> str:
    return f"id: {news['id']}\ndata: {json.dumps(news)}\n\n"


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the page with the newest posts."""
    posts = Post.objects.select_related("author")[:10]
    return render(request, "board/live.html", {"posts": posts})


@never_cache
@require_GET
def events(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Stream each new post as an event until the reader disconnects. Parks."""
    if "txgreenwsgi.wait" not in request.META:
        return HttpResponse("this page needs txgreenwsgi\n", status=501)
    # Sent by a browser that reconnects.
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
        # Later posts are in the queue; these are the earlier ones.
        sent = set()
        if last is not None:
            missed = Post.objects.select_related("author").filter(id__gt=last)
            for post in reversed(missed[:MAX_MISSED]):
                sent.add(post.pk)
                yield _event(_news(post))
        # Otherwise each reader would keep a database connection, and ten readers would
        # occupy the whole pool.
        close_old_connections()
        while True:
            try:
                news = wait(queue.get(), timeout=HEARTBEAT_SECONDS)
            except TimedOut:
                yield ": nothing new\n\n"
                continue
            if news is None:
                return
            if news["id"] not in sent:
                yield _event(news)
