"""The site's WSGI application."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from django.core.wsgi import get_wsgi_application

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.database_site.settings"
if "gevent.monkey" in sys.modules and "psycopg2+" in os.environ["BENCHMARK_DATABASE"]:
    # psycopg2 waits in C and would block all greenlets; psycogreen makes it wait
    # through gevent.
    import_module("psycogreen.gevent").patch_psycopg()

application: WSGIApplication = get_wsgi_application()
