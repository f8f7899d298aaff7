"""`--check`: report which Django settings block, or do not suit greenlets.

It knows Django's settings by name, and the replacements in this package. It must
never open a connection or import Django itself; it only makes a loaded Django import
the project's views.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from txgreenwsgi.green.patched import is_patched

from .findings import BLOCKS, GREEN, OFFLOADED, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["django_findings", "load_views"]

_OURS = "txgreenwsgi.django.backends."
_THEIRS = "django.db.backends."


def django_findings(sockets_are_green: bool, threads_are_green: bool) -> list[Finding]:
    """Return the findings for the loaded Django project; [] if there is none.

    Args:
        sockets_are_green: True if `socket` is patched.
        threads_are_green: True if `threading` is patched.
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
    """Return the settings of the loaded Django project; None if there is none."""
    conf: Any = sys.modules.get("django.conf")
    return conf.settings if conf is not None and conf.settings.configured else None


def load_views() -> list[Finding]:
    """Make the loaded Django project import its views, and so their drivers.

    Django imports them at its first request.

    Returns:
        A warning if the import fails, otherwise nothing.
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
                "the views cannot be imported, so their drivers are not checked: "
                f"{type(error).__name__}: {error}",
            )
        ]
    return []


def _connections(threads_are_green: bool) -> Iterable[Finding]:
    """Check that each task has its own connections and transactions."""
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
                "requests share connections and transactions: serve it with this "
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
                "each request has its own connections, and none is reused: set it to "
                f"0, or use an ENGINE with a pool{_instead(engine)}",
            )


def _instead(engine: str) -> str:
    """Return a hint with our replacement for an engine; "" if there is none."""
    kind = engine.removeprefix(_THEIRS)
    if engine.startswith(_THEIRS) and kind in ("postgresql", "mysql", "sqlite3"):
        return f", {_OURS}{kind}"
    return ""


def _engine(setting: str, engine: str, sockets_are_green: bool) -> Finding:
    name = f"{setting}['ENGINE']"
    if engine == _THEIRS + "sqlite3":
        if is_patched("heavy"):
            return Finding(name, OFFLOADED, "by --offload heavy")
        return Finding(
            name,
            BLOCKS,
            f"SQLite blocks: use {_OURS}sqlite3, where each connection has its own "
            "thread, or give --offload heavy",
            blocks_calls=True,
        )
    if engine == _OURS + "sqlite3":
        return Finding(name, GREEN, "each connection has its own thread")
    if engine == _THEIRS + "oracle":
        return Finding(name, WARNING, "green in the thin mode of python-oracledb only")
    if engine == _THEIRS + "mysql" and not _mysql_is_python():
        return Finding(
            name,
            BLOCKS,
            f"mysqlclient blocks in C: use {_OURS}mysql, which uses PyMySQL, or call "
            "pymysql.install_as_MySQLdb() in the settings",
            blocks_calls=True,
        )
    if engine.startswith((_OURS, _THEIRS)) and not engine.endswith(".dummy"):
        if sockets_are_green:
            return Finding(name, GREEN)
        return Finding(
            name,
            BLOCKS,
            "its driver needs green sockets: --patch socket or all",
            blocks_calls=True,
        )
    if engine.endswith(".dummy") or not engine:
        return Finding(name, GREEN, "no database")
    return Finding(name, WARNING, f"{engine!r} is unknown: check how its driver waits")


def _mysql_is_python() -> bool:
    """Return whether PyMySQL is installed under the name MySQLdb."""
    disguised = sys.modules.get("MySQLdb")
    return disguised is not None and disguised is sys.modules.get("pymysql")


#: Cache backends: the last part of BACKEND -> (verdict, remedy); None for backends
#: that wait on sockets.
_CACHES: Mapping[str, tuple[str, str] | None] = {
    "PyLibMCCache": (BLOCKS, "pylibmc blocks in C: use PyMemcacheCache"),
    "MemcachedCache": (BLOCKS, "python-memcached blocks: use PyMemcacheCache"),
    "FileBasedCache": (
        WARNING,
        "file access blocks: use Redis or Memcached",
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
            yield Finding(name, *known, blocks_calls=True)
        elif sockets_are_green:
            yield Finding(name, GREEN)
        else:
            yield Finding(
                name,
                BLOCKS,
                "it needs green sockets: --patch socket or all",
                blocks_calls=True,
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
            "file access blocks: use the cache or the database",
            blocks_calls=True,
        )
    backend = settings.EMAIL_BACKEND
    if backend == "django.core.mail.backends.smtp.EmailBackend" and (
        not sockets_are_green
    ):
        yield Finding(
            "EMAIL_BACKEND",
            WARNING,
            "sending mail blocks until the mail server replies: --patch socket or all",
            blocks_calls=True,
        )
