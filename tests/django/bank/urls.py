"""The URLs of the bank."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path(prefix + name, getattr(views, name))
    for prefix in ("", "threads/")
    for name in (
        *("prepare", "slow", "move", "sums", "listing", "pool", "state"),
        *("later", "later_stream", "spend", "visit", "depth"),
    )
]
