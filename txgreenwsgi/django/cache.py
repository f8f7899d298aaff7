"""Django's Redis cache with one connection pool shared by all tasks.

    CACHES = {"default": {"BACKEND": "txgreenwsgi.django.cache.RedisCache", ...}}

Django creates a cache object, with its own connection pool, for each thread. Here that
would be one per request, each with a new connection. The client of redis-py and its
pool are safe to share, so all cache objects share them.

It knows Django's backend. It must never know tasks.
"""

from __future__ import annotations

from typing import Any

from django.core.cache.backends import redis

__all__ = ["RedisCache"]

_clients: dict[str, object] = {}


class RedisCache(redis.RedisCache):
    """Django's backend; caches with the same LOCATION and OPTIONS share a client.

    Limit the number of connections in OPTIONS: `{"max_connections": 20, "pool_class":
    "redis.BlockingConnectionPool"}`.
    """

    @property
    def _cache(self) -> Any:
        key = repr((self._servers, sorted(self._options.items(), key=repr)))
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = self._class(self._servers, **self._options)
        return client
