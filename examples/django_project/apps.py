"""The guest book as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class GuestBook(AppConfig):
    """The configuration, with the fixed label `guestbook`."""

    name = "examples.django_project"
    label = "guestbook"
