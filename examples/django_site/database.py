"""Convert a database URL to an entry of Django's DATABASES.

It knows URLs and the names of Django's backends. It must never connect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["database_from"]


def database_from(url: str, default: Path, connections: int) -> dict[str, Any]:
    """Return the entry of DATABASES for a URL.

    Args:
        url: "postgresql://user:password@host:port/name"; "" for SQLite.
        default: the file of SQLite.
        connections: maximum number of open connections per process.

    Raises:
        ValueError: the scheme is not supported, or the name is missing.
    """
    if not url:
        return {
            "ENGINE": "txgreenwsgi.django.backends.sqlite3",
            "NAME": default,
            "OPTIONS": {
                # Seconds that a writer waits for another one.
                "timeout": 20,
                # Without this, a transaction that reads first and then writes fails
                # at once if another one wrote meanwhile, instead of waiting.
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL",
            },
        }
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("postgresql", "postgres") or not name:
        raise ValueError(
            f"DJANGO_SITE_DATABASE={url!r} is not supported: use "
            "postgresql://user:password@host:port/name, or unset it for SQLite"
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
