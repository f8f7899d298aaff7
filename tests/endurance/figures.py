"""The figures that tests have seen, for the documentation.

Written as one JSON object a line to the file that TXGREENWSGI_FIGURES names, and
nowhere without it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["note"]


def note(name: str, **figures: object) -> None:
    """Write down what a test has seen, under a name."""
    path = os.environ.get("TXGREENWSGI_FIGURES", "")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, **figures}) + "\n")
