"""The site's settings, with the driver and the pool from `BENCHMARK_DATABASE`.

Its form is DRIVER+POOL. The driver is psycopg or psycopg2. The pool is `green` (of
txgreenwsgi's backend), `pool` (Django's, with psycopg_pool), `geventpool`
(django-db-geventpool), `thread` (one persistent connection per thread) or `closed`
(a new connection for each request).
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("DJANGO_SITE_SECRET_KEY", "the same for all servers")

from examples.django_site.settings import *  # noqa: F403
from examples.django_site.settings import DATABASES, INSTALLED_APPS

_way = os.environ.get("BENCHMARK_DATABASE", "psycopg+thread")
_driver, _, _pool = _way.partition("+")
if _driver == "psycopg2":
    # Django prefers psycopg 3 if it can be imported.
    sys.modules["psycopg"] = None  # type: ignore[assignment]

_most = int(os.environ.get("DJANGO_SITE_CONNECTIONS", "10"))
_default: dict[str, Any] = DATABASES["default"]
# Only geventpool checks a connection before each use; the others are alike.
_default["CONN_HEALTH_CHECKS"] = False
if _pool != "green":
    INSTALLED_APPS.remove("txgreenwsgi.django")
    _default["ENGINE"] = "django.db.backends.postgresql"
    _default["OPTIONS"] = {}
if _pool == "pool":
    _default["OPTIONS"] = {"pool": {"min_size": _most, "max_size": _most}}
if _pool == "geventpool":
    _kind = "psycopg2" if _driver == "psycopg2" else "psycopg3"
    _default["ENGINE"] = f"django_db_geventpool.backends.postgresql_{_kind}"
    _default["OPTIONS"] = {"MAX_CONNS": _most, "REUSE_CONNS": _most}
if _pool == "thread":
    _default["CONN_MAX_AGE"] = None

ROOT_URLCONF = "benchmarks.database_site.urls"
