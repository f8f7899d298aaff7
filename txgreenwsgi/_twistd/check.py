"""`--check`: what of a loaded application is green, off-loaded, or blocks.

It looks at what was imported, and knows the drivers that people use. It must
never call them.
"""

from __future__ import annotations

import _thread
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["BLOCKS", "GREEN", "WARNING", "Finding", "examine", "report"]

GREEN, OFFLOADED, BLOCKS, WARNING = "green", "off-loaded", "BLOCKS", "warning"


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing that is loaded.

    Attributes:
        name: a module, or a setting.
        verdict: GREEN, OFFLOADED, BLOCKS or WARNING.
        remedy: what to do about it; "" for nothing.
    """

    name: str
    verdict: str
    remedy: str = ""


# Python code on sockets: green when these are.
_ON_SOCKETS = (
    "aiosmtplib",
    "boto3",
    "botocore",
    "clickhouse_driver",
    "dns",
    "elasticsearch",
    "httplib2",
    "httpx",
    "kafka",
    "kazoo",
    "kombu",
    "ldap3",
    "paramiko",
    "pg8000",
    "pika",
    "pymemcache",
    "pymongo",
    "pymysql",
    "pytds",
    "redis",
    "requests",
    "rethinkdb",
    "stripe",
    "thriftpy2",
    "urllib3",
    "zeep",
)

# C code that waits by itself: module -> what to do instead.
_IN_C = {
    "MySQLdb": "use PyMySQL (pymysql.install_as_MySQLdb()), or --offload its calls",
    "_mysql_connector": "connect with use_pure=True, or use PyMySQL",
    "cx_Oracle": "use python-oracledb in its thin mode, or --offload its calls",
    "pyodbc": "--offload its calls, for instance --offload pyodbc.connect",
    "pymssql": "use python-tds, or --offload its calls",
    "pylibmc": "use pymemcache",
    "ldap": "use ldap3, or --offload its calls",
    "pycurl": "use requests or urllib3",
    "grpc": "--offload the calls of its stubs",
    "confluent_kafka": "use kafka-python, or --offload poll and flush",
    "lmdb": "--offload its transactions",
    "cassandra.io.libevreactor": "use cassandra.io.asyncorereactor",
    "zmq": "wait for a socket's FD by txgreenwsgi.wait_readable, or --offload",
}
_RIVALS = ("gevent", "eventlet")


def _is_patched(module: str) -> bool:
    monkey: Any = sys.modules.get("txgreenwsgi.monkey")
    return monkey is not None and bool(monkey.is_patched(module))


def _offloaded_names(offload: Iterable[str], package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in offload)


def _drivers(offload: Iterable[str]) -> Iterable[Finding]:
    offload = list(offload)
    for name in _ON_SOCKETS:
        if name in sys.modules:
            if _is_patched("socket"):
                yield Finding(name, GREEN)
            else:
                yield Finding(name, BLOCKS, "patch socket and ssl: --patch all")
    for name, remedy in _IN_C.items():
        if name in sys.modules:
            if _offloaded_names(offload, name):
                yield Finding(name, OFFLOADED)
            else:
                yield Finding(name, BLOCKS, remedy)
    for name, look in _SPECIAL.items():
        module = sys.modules.get(name)
        if module is not None:
            if _offloaded_names(offload, name):
                yield Finding(name, OFFLOADED)
            else:
                yield look(module)


def _psycopg2(module: Any) -> Finding:
    if module.extensions.get_wait_callback() is not None:
        return Finding("psycopg2", GREEN)
    return Finding(
        "psycopg2", BLOCKS, "call txgreenwsgi.monkey.patch_psycopg2() at start-up"
    )


def _psycopg(module: Any) -> Finding:
    waits_by = getattr(module.waiting.wait, "__name__", "")
    if waits_by != "wait_c" and _is_patched("select"):
        return Finding("psycopg", GREEN)
    return Finding(
        "psycopg",
        BLOCKS,
        "patch select before it is imported (--patch all), or set the environment "
        "variable PSYCOPG_WAIT_FUNC to wait_poll",
    )


def _sqlite3(module: Any) -> Finding:
    return Finding(
        "sqlite3",
        BLOCKS,
        "each query blocks while it runs: keep them short, or --offload what runs "
        "them, with check_same_thread=False",
    )


_SPECIAL: dict[str, Callable[[Any], Finding]] = {
    "psycopg2": _psycopg2,
    "psycopg": _psycopg,
    "sqlite3": _sqlite3,
}


def _rivals() -> Iterable[Finding]:
    for name in _RIVALS:
        monkey: Any = sys.modules.get(f"{name}.monkey")
        if monkey is not None and getattr(monkey, "saved", None):
            yield Finding(name, BLOCKS, "it has patched the library: do not let it")


def _early() -> Iterable[Finding]:
    monkey: Any = sys.modules.get("txgreenwsgi.monkey")
    if monkey is None:
        return
    for module, names in monkey.early_importers().items():
        yield Finding(
            module,
            BLOCKS,
            f"it bound {', '.join(names)} before the library was patched: import it "
            "afterwards",
        )


def _thread_locals() -> Iterable[Finding]:
    monkey: Any = sys.modules.get("txgreenwsgi.monkey")
    real: Any = _thread._local
    if monkey is not None:
        real = monkey.original("_thread", "_local")
    # What Twisted brings along is used outside requests.
    ours = ("attr", "greenlet", "twisted", "txgreenwsgi", "zope")
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ours:
            continue
        if not hasattr(module, "__dict__"):
            continue
        for attribute, value in list(vars(module).items()):
            # Not isinstance, which asks the object: it may be a proxy.
            if issubclass(type(value), real):
                yield Finding(
                    f"{name}.{attribute}",
                    WARNING,
                    "a threading.local that all requests share: patch thread before "
                    "it is made (--patch all), or use a contextvar",
                )


def _django() -> Iterable[Finding]:
    django: Any = sys.modules.get("django.conf")
    if django is None or not django.settings.configured:
        return
    for alias, database in django.settings.DATABASES.items():
        setting = f"DATABASES[{alias!r}]"
        if database.get("CONN_MAX_AGE"):
            yield Finding(
                f"{setting}['CONN_MAX_AGE']",
                WARNING,
                "each request has connections of its own, so none is used again: "
                "set it to 0, or use the backend's pool",
            )
        if database.get("ENGINE") == "django.db.backends.sqlite3":
            yield Finding(
                setting, WARNING, "SQLite blocks while it works: not for production"
            )
    if not _is_patched("threading"):
        yield Finding(
            "django.db.connections",
            BLOCKS,
            "requests would share connections and transactions: --patch all",
        )


def examine(offload: Iterable[str] = ()) -> list[Finding]:
    """What there is to say of all that is imported now. Never parks.

    Args:
        offload: what `--offload` named.
    """
    findings: list[Finding] = []
    for look in (_rivals, _early, _thread_locals, _django):
        findings.extend(look())
    findings.extend(_drivers(offload))
    order = {BLOCKS: 0, WARNING: 1, OFFLOADED: 2, GREEN: 3}
    return sorted(set(findings), key=lambda found: (order[found.verdict], found.name))


def report(findings: list[Finding]) -> tuple[str, int]:
    """The findings in words, and the exit status: 1 if something blocks."""
    lines = []
    for found in findings:
        lines.append(f"{found.verdict:<10} {found.name}")
        if found.remedy:
            lines.append(f"{'':<10}   {found.remedy}")
    blocking = sum(found.verdict == BLOCKS for found in findings)
    lines.append(
        f"{blocking} of {len(findings)} would block the reactor"
        if findings
        else "nothing that blocks is known to be loaded"
    )
    return "\n".join(lines) + "\n", 1 if blocking else 0
