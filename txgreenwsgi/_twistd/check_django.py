"""`--check`: what of Django's settings suits greenlets, and what does not.

It knows Django's settings by name, and what this package offers in their place. It
must never import Django, though it has Django import the project's views, nor open a
connection.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .findings import BLOCKS, GREEN, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["django_findings", "load_views"]

_OURS = "txgreenwsgi.django.backends."
_THEIRS = "django.db.backends."


def django_findings(sockets_are_green: bool, threads_are_green: bool) -> list[Finding]:
    """What there is to say of the Django project that is loaded, if one is.

    Args:
        sockets_are_green: are they patched?
        threads_are_green: is `threading`?
    """
    settings = _settings()
    if settings is None:
        return []
    return [
        *_connections(threads_are_green),
        *_databases(settings, sockets_are_green),
        *_caches(settings, sockets_are_green),
        *_others(settings, sockets_are_green),
    ]


def _settings() -> Any:
    """Those of the Django project that is loaded; None if there is none."""
    conf: Any = sys.modules.get("django.conf")
    return conf.settings if conf is not None and conf.settings.configured else None


def load_views() -> list[Finding]:
    """Have the loaded Django project import its views, with the drivers they use.

    Django itself does so at its first request.

    Returns:
        What went wrong, if anything did.
    """
    urls: Any = sys.modules.get("django.urls")
    if urls is None or _settings() is None:
        return []
    try:
        _ = urls.get_resolver().url_patterns
    except Exception as error:
        return [
            Finding(
                "ROOT_URLCONF",
                WARNING,
                f"the views cannot be imported, so nothing is said of what they use: "
                f"{type(error).__name__}: {error}",
            )
        ]
    return []


def _connections(threads_are_green: bool) -> Iterable[Finding]:
    """Has each task its own connections, and its own transactions?"""
    handlers = {
        "django.db.connections": getattr(
            sys.modules.get("django.db"), "connections", None
        ),
        "django.core.cache.caches": getattr(
            sys.modules.get("django.core.cache"), "caches", None
        ),
    }
    for name, handler in handlers.items():
        kept = getattr(handler, "_connections", None)
        if kept is None:
            continue
        if threads_are_green or type(kept).__module__ == "txgreenwsgi.isolation":
            yield Finding(name, GREEN)
        else:
            yield Finding(
                name,
                BLOCKS,
                "requests would share connections and transactions: serve it by the "
                "command, which isolates them, or patch threads (--patch all)",
            )


def _databases(settings: Any, sockets_are_green: bool) -> Iterable[Finding]:
    for alias, database in settings.DATABASES.items():
        setting = f"DATABASES[{alias!r}]"
        engine = str(database.get("ENGINE", ""))
        yield _engine(setting, engine, sockets_are_green)
        pooled = engine.startswith(_OURS)
        if database.get("CONN_MAX_AGE", 0) != 0 and not pooled:
            yield Finding(
                f"{setting}['CONN_MAX_AGE']",
                WARNING,
                "each request has connections of its own, so none is used again: set "
                f"it to 0, or use an ENGINE with a pool{_instead(engine)}",
            )


def _instead(engine: str) -> str:
    """Which of our engines to use in place of one of Django's."""
    kind = engine.removeprefix(_THEIRS)
    if engine.startswith(_THEIRS) and kind in ("postgresql", "mysql", "sqlite3"):
        return f", {_OURS}{kind}"
    return ""


def _engine(setting: str, engine: str, sockets_are_green: bool) -> Finding:
    name = f"{setting}['ENGINE']"
    if engine == _THEIRS + "sqlite3":
        return Finding(
            name,
            BLOCKS,
            f"SQLite blocks while it works: use {_OURS}sqlite3, where each "
            "connection has a thread of its own",
        )
    if engine == _OURS + "sqlite3":
        return Finding(name, GREEN, "each connection works in a thread of its own")
    if engine == _THEIRS + "oracle":
        return Finding(
            name, WARNING, "green in the thin mode of python-oracledb, else it blocks"
        )
    if engine == _THEIRS + "mysql" and not _mysql_is_python():
        return Finding(
            name,
            BLOCKS,
            f"mysqlclient waits in C: use {_OURS}mysql, which uses PyMySQL, or call "
            "pymysql.install_as_MySQLdb() in the settings",
        )
    if engine.startswith((_OURS, _THEIRS)) and not engine.endswith(".dummy"):
        if sockets_are_green:
            return Finding(name, GREEN)
        return Finding(
            name, BLOCKS, "its driver needs green sockets: --patch socket, or all"
        )
    if engine.endswith(".dummy") or not engine:
        return Finding(name, GREEN, "no database")
    return Finding(
        name, WARNING, f"{engine!r} is not known here: see what its driver waits by"
    )


def _mysql_is_python() -> bool:
    """Is what calls itself MySQLdb in truth PyMySQL?"""
    disguised = sys.modules.get("MySQLdb")
    return disguised is not None and disguised is sys.modules.get("pymysql")


#: Where caches wait: the end of a BACKEND's name -> (verdict, remedy); None for
#: sockets.
_CACHES: Mapping[str, tuple[str, str] | None] = {
    "PyLibMCCache": (BLOCKS, "pylibmc waits in C: use PyMemcacheCache"),
    "MemcachedCache": (BLOCKS, "python-memcached is not supported: PyMemcacheCache"),
    "FileBasedCache": (
        WARNING,
        "files block for as long as the disk takes: use Redis or Memcached",
    ),
    "PyMemcacheCache": None,
    "RedisCache": None,
}


def _caches(settings: Any, sockets_are_green: bool) -> Iterable[Finding]:
    for alias, cache in settings.CACHES.items():
        name = f"CACHES[{alias!r}]['BACKEND']"
        kind = str(cache.get("BACKEND", "")).rpartition(".")[2]
        if kind not in _CACHES:
            continue
        known = _CACHES[kind]
        if known is not None:
            yield Finding(name, *known)
        elif sockets_are_green:
            yield Finding(name, GREEN)
        else:
            yield Finding(
                name, BLOCKS, "it needs green sockets: --patch socket, or all"
            )


def _others(settings: Any, sockets_are_green: bool) -> Iterable[Finding]:
    session = settings.SESSION_ENGINE
    uses_sessions = any(
        name.endswith(".SessionMiddleware") for name in settings.MIDDLEWARE
    )
    if uses_sessions and session == "django.contrib.sessions.backends.file":
        yield Finding(
            "SESSION_ENGINE",
            WARNING,
            "files block for as long as the disk takes: use the cache or the database",
        )
    backend = settings.EMAIL_BACKEND
    if backend == "django.core.mail.backends.smtp.EmailBackend" and (
        not sockets_are_green
    ):
        yield Finding(
            "EMAIL_BACKEND",
            WARNING,
            "sending mail blocks until the mail server has answered: --patch socket, "
            "or all",
        )
