"""The Django application: `"txgreenwsgi.django"` in INSTALLED_APPS.

It knows how Django registers checks. It must never open a connection.
"""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

__all__ = ["GreenConfig"]


class GreenConfig(AppConfig):
    """Brings `manage.py rungreen`, and looks at OPTIONS["green_pool"]."""

    name = "txgreenwsgi.django"
    label = "txgreenwsgi"
    verbose_name = "txgreenwsgi"

    def ready(self) -> None:
        """Have `manage.py check` tell of what cannot be."""
        checks.register(check_pools, checks.Tags.compatibility)


def check_pools(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """One error for each database whose `green_pool` makes no sense."""
    from .pool_options import PoolOptions

    found: list[checks.CheckMessage] = []
    for alias, database in settings.DATABASES.items():
        options = database.get("OPTIONS") or {}
        try:
            PoolOptions.of(alias, options)
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="txgreenwsgi.E001"))
        if "green_pool" in options and not str(database.get("ENGINE")).startswith(
            "txgreenwsgi.django.backends."
        ):
            found.append(
                checks.Error(
                    f"DATABASES[{alias!r}] has OPTIONS['green_pool'], and the ENGINE "
                    f"{database.get('ENGINE')!r}, which does not know it",
                    hint="Give one of txgreenwsgi.django.backends, or take it out.",
                    id="txgreenwsgi.E002",
                )
            )
    return found
