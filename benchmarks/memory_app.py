"""An application that loads the usual libraries, for `benchmarks.memory`."""

from __future__ import annotations

import django.contrib.admin  # noqa: F401
import requests  # noqa: F401
import sqlalchemy.orm  # noqa: F401
from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> str:
    """Return a short text."""
    return "Hello\n"
