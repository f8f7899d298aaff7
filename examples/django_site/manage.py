#!/usr/bin/env python
"""Django's command line for this site: `python examples/django_site/manage.py`.

It knows the path of the checkout, so it runs from any directory. It must never import
the site before the settings module is set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command given on the command line."""
    # Python has put this directory first, whose `tests` would hide other packages.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
