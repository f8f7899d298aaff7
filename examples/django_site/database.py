"""From one variable of the environment to Django's setting of a database.

It knows URLs and the names of Django's backends. It must never connect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["database_from"]


def database_from(url: str, default: Path, connections: int) -> dict[str, Any]:
    """The entry of DATABASES that a URL stands for.

    Args:
        url: "postgresql://user:password@host:port/name"; "" for SQLite.
        default: SQLite's file.
        connections: how many a process may have open at once.

    Raises:
        ValueError: it is another kind of URL, or names no database.
    """
    if not url:
        return {
            "ENGINE": "txgreenwsgi.django.backends.sqlite3",
            "NAME": default,
            "OPTIONS": {
                # How long a writer waits for another, in seconds.
                "timeout": 20,
                # Else one that reads first and then writes is refused at once
                # when another was faster, instead of waiting for it.
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL",
            },
        }
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("postgresql", "postgres") or not name:
        raise ValueError(
            f"DJANGO_SITE_DATABASE={url!r}: give postgresql://user:password@host:"
            "port/name, or nothing for SQLite"
        )
    return {
        "ENGINE": "txgreenwsgi.django.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": parts.port or "",
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"green_pool": {"max_size": connections}},
    }
