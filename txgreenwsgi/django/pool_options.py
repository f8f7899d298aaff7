"""OPTIONS["green_pool"] of a database, read and judged.

It knows which keys there are and what they may be. It must never know databases.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY", "PoolOptions"]

KEY = "green_pool"


@dataclass(frozen=True)
class PoolOptions:
    """How many connections a process may have to one database, and for how long.

    Attributes:
        max_size: connections that may be open at any moment.
        wait_timeout: seconds that a task waits for one; None for no limit.
        max_age: seconds after which one is not used again; None for no limit.
        max_idle: seconds without use after which one is closed; None for no limit.
    """

    max_size: int = 10
    wait_timeout: float | None = 30.0
    max_age: float | None = 3600.0
    max_idle: float | None = 600.0

    @classmethod
    def of(cls, alias: str, options: Mapping[str, Any]) -> PoolOptions | None:
        """Those of the database `alias`, whose OPTIONS are given; None: no pool.

        Raises:
            ImproperlyConfigured: a key does not exist or has a value it cannot have.
        """
        given = options.get(KEY, True)
        if given is None or given is False:
            return None
        if options.get("pool"):
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]['OPTIONS'] has both 'pool', which is Django's, "
                f"and '{KEY}': give one of them, or '{KEY}': False"
            )
        if given is True:
            return cls()
        where = f"DATABASES[{alias!r}]['OPTIONS']['{KEY}']"
        if not isinstance(given, dict):
            raise ImproperlyConfigured(
                f"{where} is {given!r}: give a dictionary with some of {_names()}, "
                "or False for no pool"
            )
        for key, value in given.items():
            if key not in {field.name for field in fields(cls)}:
                raise ImproperlyConfigured(
                    f"{where} has no key {key!r}: there are {_names()}"
                )
            _judge(f"{where}[{key!r}]", key, value)
        return cls(**given)


def _names() -> str:
    return ", ".join(field.name for field in fields(PoolOptions))


def _judge(where: str, key: str, value: object) -> None:
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
