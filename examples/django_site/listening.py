"""LISTEN in PostgreSQL for as long as anybody in this process wants to hear.

It knows psycopg 3 and a feed. It must never use one of Django's connections,
which are for requests, and few.
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
    """Notifications of one channel, sent to a feed.

    One connection serves all who listen, and there is none while nobody does.
    When it is lost the feed is closed: what was said meanwhile cannot be had
    again, so whoever listened must ask the tables, and subscribe anew.

    Args:
        channel: what NOTIFY names.
        feed: is given each payload, which is JSON.
    """

    def __init__(self, channel: str, feed: Feed[Any]) -> None:
        self._channel = channel
        self._feed = feed
        self._listeners = 0
        self._task: Task[None] | None = None
        #: Of the task, whether it has succeeded in listening.
        self._ready: Deferred[bool] = Deferred()

    @contextmanager
    def listening(self, database: Mapping[str, Any]) -> Iterator[None]:
        """Hear all that is committed during the `with` block. May park.

        Args:
            database: Django's settings of it.
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
            # Nobody's any more, if the last has left; who comes then has another.
            if self._ready is ready and self._listeners:
                self._feed.close()
            if not ready.called:
                ready.callback(False)  # those who wait find their feed closed


def _after(deferred: Deferred[bool]) -> Deferred[bool]:
    """One that fires with it: a wait that is given up cancels what it waited on."""
    own: Deferred[bool] = Deferred()

    def fired(result: bool) -> bool:
        own.callback(result)
        return result

    deferred.addCallback(fired)
    return own
