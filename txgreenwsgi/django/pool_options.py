"""Parse and validate OPTIONS["green_pool"] of a database.

It knows the keys and their valid values. It must never know databases.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY", "PoolOptions"]

KEY = "green_pool"


@dataclass(frozen=True)
class PoolOptions:
    """The limits of one database's connection pool in one process.

    Attributes:
        max_size: maximum number of open connections.
        wait_timeout: seconds that a task waits for a connection; None for no limit.
        max_age: age in seconds after which a connection is not reused; None for no
            limit.
        max_idle: seconds without use after which a connection is closed; None for no
            limit.
    """

    max_size: int = 10
    wait_timeout: float | None = 30.0
    max_age: float | None = 3600.0
    max_idle: float | None = 600.0

    @classmethod
    def of(cls, alias: str, options: Mapping[str, object]) -> PoolOptions | None:
        """Parse the OPTIONS of a database.

        Args:
            alias: the alias of the database, for messages.
            options: its OPTIONS.

        Returns:
            None if the database has no pool.

        Raises:
            ImproperlyConfigured: a key is unknown or has an invalid value.
        """
        given = options.get(KEY, True)
        if given is None or given is False:
            return None
        if options.get("pool"):
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]['OPTIONS'] has both Django's 'pool' and "
                f"'{KEY}': remove one of them, or set '{KEY}': False"
            )
        if given is True:
            return cls()
        where = f"DATABASES[{alias!r}]['OPTIONS']['{KEY}']"
        if not isinstance(given, dict):
            raise ImproperlyConfigured(
                f"{where} is {given!r}: give a dictionary with some of the keys "
                f"{_names()}, or False for no pool"
            )
        for key, value in given.items():
            if key not in {field.name for field in fields(cls)}:
                raise ImproperlyConfigured(
                    f"{where} has the unknown key {key!r}: use {_names()}"
                )
            _require_valid(f"{where}[{key!r}]", key, value)
        return cls(**given)


def _names() -> str:
    return ", ".join(field.name for field in fields(PoolOptions))


def _require_valid(where: str, key: str, value: object) -> None:
    if key == "max_size":
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ImproperlyConfigured(
                f"{where} is {value!r}: give a whole number of connections, at least 1"
            )
    elif value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0
    ):
        raise ImproperlyConfigured(
            f"{where} is {value!r}: give a number of seconds >= 0, or None for no limit"
        )
