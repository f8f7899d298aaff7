"""The Django application: `"txgreenwsgi.django"` in INSTALLED_APPS.

It knows how Django registers checks. It must never open a connection.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

__all__ = ["GreenConfig"]


class GreenConfig(AppConfig):
    """App config with `manage.py rungreen` and the check of OPTIONS["green_pool"]."""

    name = "txgreenwsgi.django"
    label = "txgreenwsgi"
    verbose_name = "txgreenwsgi"

    def ready(self) -> None:
        """Register the check for `manage.py check`."""
        checks.register(check_pools, checks.Tags.compatibility)


def check_pools(app_configs: object, **kwargs: object) -> list[checks.CheckMessage]:
    """Return an error for each database whose `green_pool` is invalid."""
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
                    f"DATABASES[{alias!r}] has OPTIONS['green_pool'], which its ENGINE "
                    f"{database.get('ENGINE')!r} does not support",
                    hint="Use an ENGINE of txgreenwsgi.django.backends, or remove "
                    "'green_pool'.",
                    id="txgreenwsgi.E002",
                )
            )
    return found
