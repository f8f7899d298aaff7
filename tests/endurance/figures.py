"""Figures measured by tests, for the documentation.

Written as one JSON object per line to the file named by TXGREENWSGI_FIGURES;
discarded if it is not set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["note"]


def note(name: str, **figures: object) -> None:
    """Append the figures of a test under a name."""
    path = os.environ.get("TXGREENWSGI_FIGURES", "")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, **figures}) + "\n")
