"""An application that imports the reactor at module level."""

from __future__ import annotations

from twisted.internet import reactor

from .gunicorn_app import app

__all__ = ["app", "reactor"]
