"""The site's one Django application."""

from __future__ import annotations

from django.apps import AppConfig


class Board(AppConfig):
    """Names the application `board`, wherever its package lives."""

    name = "examples.django_site"
    label = "board"
