"""The WSGI application of the guest book; makes its table when it is first loaded.

It knows Django only, so any WSGI server may load it.
"""

from __future__ import annotations

import os

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_project.settings")
application = get_wsgi_application()

# An example should run at once. A real site migrates when it is deployed.
call_command("migrate", verbosity=0, interactive=False)
connections.close_all()
