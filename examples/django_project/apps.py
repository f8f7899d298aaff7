"""The guest book as a Django application."""

from __future__ import annotations

from django.apps import AppConfig


class GuestBook(AppConfig):
    """Names the application `guestbook`, wherever its package lives."""

    name = "examples.django_project"
    label = "guestbook"
