"""LISTEN in PostgreSQL while this process has subscribers.

It knows psycopg 3 and a feed. It must never use Django's connections, which are
reserved for requests.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from twisted.internet.defer import Deferred

from txgreenwsgi import Task, spawn, wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .feed import Feed

__all__ = ["Listener"]


class Listener:
    """Publishes the notifications of one channel to a feed.

    One connection serves all subscribers, and there is none without subscribers. If it
    is lost, the feed is closed: notifications are lost meanwhile, so the subscribers
    must query the tables and subscribe again.

    Args:
        channel: the channel of NOTIFY.
        feed: receives each payload, decoded from JSON.
    """

    def __init__(self, channel: str, feed: Feed[Any]) -> None:
        self._channel = channel
        self._feed = feed
        self._listeners = 0
        self._task: Task[None] | None = None
        # Fires with True when the task listens, with False if it failed.
        self._ready: Deferred[bool] = Deferred()

    @contextmanager
    def listening(self, database: Mapping[str, Any]) -> Iterator[None]:
        """Publish all notifications committed during the block. May park.

        Args:
            database: Django's settings of the database.
        """
        self._listeners += 1
        try:
            if self._task is None or self._task.done:
                self._ready = Deferred()
                self._task = spawn(self._listen, self._ready, database)
            wait(_after(self._ready))
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    def _listen(self, ready: Deferred[bool], database: Mapping[str, Any]) -> None:
        try:
            with psycopg.connect(
                dbname=database["NAME"],
                user=database["USER"] or None,
                password=database["PASSWORD"] or None,
                host=database["HOST"] or None,
                port=database["PORT"] or None,
                autocommit=True,
            ) as connection:
                connection.execute(f'LISTEN "{self._channel}"')
                ready.callback(True)
                for notification in connection.notifies():
                    self._feed.send(json.loads(notification.payload))
        finally:
            # Skipped if the last subscriber has left: later ones use a new task.
            if self._ready is ready and self._listeners:
                self._feed.close()
            if not ready.called:
                ready.callback(False)  # waiters find the feed closed


def _after(deferred: Deferred[bool]) -> Deferred[bool]:
    """Return a Deferred that follows another one and may be cancelled separately."""
    own: Deferred[bool] = Deferred()

    def fired(result: bool) -> bool:
        own.callback(result)
        return result

    deferred.addCallback(fired)
    return own
