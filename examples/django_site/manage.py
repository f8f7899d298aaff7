#!/usr/bin/env python
"""Django's command line for this site: `python examples/django_site/manage.py`.

It knows where the checkout is, so that it runs from anywhere. It must never
import a part of the site before Django has been told which settings to use.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command that the words of the command line name."""
    # Python has put this folder first, where `tests` would be ours and not yours.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
