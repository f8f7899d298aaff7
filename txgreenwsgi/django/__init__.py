"""Django support: database backends with a connection pool, and `manage.py rungreen`.

    INSTALLED_APPS = [..., "txgreenwsgi.django"]
    DATABASES = {
        "default": {
            "ENGINE": "txgreenwsgi.django.backends.postgresql",
            "OPTIONS": {"green_pool": {"max_size": 20}},
            ...
        }
    }

It knows Django. It must never know requests: `txgreenwsgi.isolation` keeps Django's
state per task, including that of Django's own backends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgreenwsgi.pools import PoolStatistics

__all__ = ["pool_statistics"]


def pool_statistics() -> dict[str, PoolStatistics]:
    """Return the statistics of each database's pool, by alias. Never parks.

    Databases that no task has used yet are omitted.
    """
    # Imported here, because Django imports this package before it is set up.
    from .pooled import statistics

    return statistics()
