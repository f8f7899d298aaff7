"""Django's Redis cache, whose connections all tasks share.

    CACHES = {"default": {"BACKEND": "txgreenwsgi.django.cache.RedisCache", ...}}

Django makes a cache object for each thread, and with it a pool of connections;
here that would be one for each request, with a connection made anew. What is below
a cache object, redis-py's client and its pool, may be shared, and is.

It knows Django's backend. It must never know tasks.
"""

from __future__ import annotations

from typing import Any

from django.core.cache.backends import redis

__all__ = ["RedisCache"]

_clients: dict[str, Any] = {}


class RedisCache(redis.RedisCache):
    """Django's, in which all with the same LOCATION and OPTIONS have one client.

    How many connections there may be, OPTIONS say: `{"max_connections": 20,
    "pool_class": "redis.BlockingConnectionPool"}`.
    """

    @property
    def _cache(self) -> Any:
        key = repr((self._servers, sorted(self._options.items(), key=repr)))
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = self._class(self._servers, **self._options)
        return client
