"""The WSGI application of the guest book; creates its table when it is imported.

It knows Django only, so it runs on any WSGI server.
"""

from __future__ import annotations

import os

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_project.settings")
application = get_wsgi_application()

# So that the example runs at once. A real site migrates at deployment.
call_command("migrate", verbosity=0, interactive=False)
connections.close_all()
