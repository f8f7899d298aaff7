"""The site's settings, with what `BENCHMARK_DATABASE` says of its connections.

It is DRIVER+KEPT. The driver is psycopg or psycopg2; connections are kept by
`green` (the pool of txgreenwsgi's backend), `pool` (Django's, of psycopg_pool),
`geventpool` (django-db-geventpool) or `thread` (one for each thread, for ever), or
not at all: `closed`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("DJANGO_SITE_SECRET_KEY", "the same for all that are compared")

from examples.django_site.settings import *  # noqa: F403
from examples.django_site.settings import DATABASES, INSTALLED_APPS

_way = os.environ.get("BENCHMARK_DATABASE", "psycopg+thread")
_driver, _, _kept = _way.partition("+")
if _driver == "psycopg2":
    # Django takes psycopg 3 wherever it can be imported.
    sys.modules["psycopg"] = None  # type: ignore[assignment]

_most = int(os.environ.get("DJANGO_SITE_CONNECTIONS", "10"))
_default: dict[str, Any] = DATABASES["default"]
# None but geventpool looks whether a connection is alive before it is used.
_default["CONN_HEALTH_CHECKS"] = False
if _kept != "green":
    INSTALLED_APPS.remove("txgreenwsgi.django")
    _default["ENGINE"] = "django.db.backends.postgresql"
    _default["OPTIONS"] = {}
if _kept == "pool":
    _default["OPTIONS"] = {"pool": {"min_size": _most, "max_size": _most}}
if _kept == "geventpool":
    _kind = "psycopg2" if _driver == "psycopg2" else "psycopg3"
    _default["ENGINE"] = f"django_db_geventpool.backends.postgresql_{_kind}"
    _default["OPTIONS"] = {"MAX_CONNS": _most, "REUSE_CONNS": _most}
if _kept == "thread":
    _default["CONN_MAX_AGE"] = None

ROOT_URLCONF = "benchmarks.database_site.urls"
