"""Django on txgreenwsgi: database backends with a pool, and `manage.py rungreen`.

    INSTALLED_APPS = [..., "txgreenwsgi.django"]
    DATABASES = {
        "default": {
            "ENGINE": "txgreenwsgi.django.backends.postgresql",
            "OPTIONS": {"green_pool": {"max_size": 20}},
            ...
        }
    }

It knows Django. It must never know requests: what is kept for each task is seen
to in `txgreenwsgi.isolation`, for Django's own backends as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgreenwsgi.pools import PoolStatistics

__all__ = ["pool_statistics"]


def pool_statistics() -> dict[str, PoolStatistics]:
    """What the pool of each database does now and has done, by the alias.

    A database is missing as long as no task has used it. Never parks.
    """
    # Late: an application's package is imported before Django is set up.
    from .pooled import statistics

    return statistics()
