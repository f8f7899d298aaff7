"""The WSGI application of the bank."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.bank.settings")
application = get_wsgi_application()
