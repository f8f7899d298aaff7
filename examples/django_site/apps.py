"""The Django application of the site."""

from __future__ import annotations

from django.apps import AppConfig


class Board(AppConfig):
    """The configuration, with the fixed label `board`."""

    name = "examples.django_site"
    label = "board"
