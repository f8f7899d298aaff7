"""`--check`: what of a loaded application is green, off-loaded, or blocks.

It looks at what was imported, and knows the drivers that people use. It must
never call them.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING, Any

from .check_django import django_findings, load_views
from .findings import BLOCKS, GREEN, IN_C, OFFLOADED, ON_SOCKETS, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["BLOCKS", "GREEN", "OFFLOADED", "WARNING", "Finding", "examine", "report"]

_RIVALS = ("gevent", "eventlet")


def _is_patched(module: str) -> bool:
    monkey: Any = sys.modules.get("txgreenwsgi.monkey")
    return monkey is not None and bool(monkey.is_patched(module))


def _offloaded(offload: Iterable[str], package: str) -> Finding | None:
    """The finding for a package of which something is off-loaded."""
    names = [name for name in offload if name.startswith(package + ".")]
    if not names:
        return None
    return Finding(
        package, OFFLOADED, f"only {', '.join(names)}: what else it calls blocks"
    )


def _is_disguised(name: str) -> bool:
    """Is the module something else, that was installed under this name?"""
    module: Any = sys.modules.get(name)
    return getattr(module, "__name__", name) != name


def _drivers(offload: Iterable[str]) -> Iterable[Finding]:
    offload = list(offload)
    for name in ON_SOCKETS:
        if name in sys.modules:
            if _is_patched("socket"):
                yield Finding(name, GREEN)
            else:
                yield _offloaded(offload, name) or Finding(
                    name, BLOCKS, "patch socket and ssl: --patch all"
                )
    for name, remedy in IN_C.items():
        if name in sys.modules and not _is_disguised(name):
            yield _offloaded(offload, name) or Finding(name, BLOCKS, remedy)
    for name, look in _SPECIAL.items():
        module = sys.modules.get(name)
        if module is not None:
            found = look(module)
            if found.verdict == GREEN:
                yield found
            else:
                yield _offloaded(offload, name) or found


def _psycopg2(module: Any) -> Finding:
    extensions: Any = sys.modules.get("psycopg2.extensions")
    if extensions is not None and extensions.get_wait_callback() is not None:
        return Finding("psycopg2", GREEN)
    return Finding(
        "psycopg2",
        BLOCKS,
        "patch sockets (--patch all), or call txgreenwsgi.monkey.patch_psycopg2() at "
        "start-up",
    )


def _psycopg(module: Any) -> Finding:
    waiting: Any = sys.modules.get("psycopg.waiting")
    waits_by: Any = getattr(waiting, "wait", None)
    if getattr(waits_by, "__module__", "") == "txgreenwsgi.green.drivers" or (
        getattr(waits_by, "__name__", "wait_c") != "wait_c" and _is_patched("select")
    ):
        return Finding("psycopg", GREEN)
    return Finding(
        "psycopg",
        BLOCKS,
        "patch sockets (--patch all), or set the environment variable "
        "PSYCOPG_WAIT_FUNC to wait_poll and patch select",
    )


def _oracledb(module: Any) -> Finding:
    is_thin: Any = getattr(module, "is_thin_mode", None)
    if is_thin is not None and not is_thin():
        return Finding(
            "oracledb", BLOCKS, "do without init_oracle_client(), for its thin mode"
        )
    if _is_patched("socket"):
        return Finding("oracledb", GREEN)
    return Finding("oracledb", BLOCKS, "patch socket and ssl: --patch all")


def _sqlite3(module: Any) -> Finding:
    green: Any = sys.modules.get("txgreenwsgi.green.sqlite3")
    users = sorted(_users_of(module))
    if green is not None and not users:
        return Finding("sqlite3", GREEN, "by txgreenwsgi.green.sqlite3")
    told = f" (in {', '.join(users)})" if users else ""
    return Finding(
        "sqlite3",
        BLOCKS,
        f"each query blocks while it runs: import txgreenwsgi.green.sqlite3{told} "
        "in its place",
    )


def _users_of(module: Any) -> Iterable[str]:
    """The modules outside the standard library that have `module`, or a part of it."""
    named = {id(module)}
    for part in ("connect", "Connection", "dbapi2"):
        if hasattr(module, part):
            named.add(id(getattr(module, part)))
    for name, other in list(sys.modules.items()):
        top = name.partition(".")[0]
        # Django's backends are judged by the settings that choose them.
        if top in sys.stdlib_module_names or top in ("txgreenwsgi", "django"):
            continue
        held = getattr(other, "__dict__", {})
        if any(id(value) in named for value in list(held.values())):
            yield name


_SPECIAL: dict[str, Callable[[Any], Finding]] = {
    "oracledb": _oracledb,
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


def examine(offload: Iterable[str] = ()) -> list[Finding]:
    """What there is to say of all that is imported now. Never parks.

    Of a Django project, also of what its first request would import.

    Args:
        offload: what `--offload` named.
    """
    findings: list[Finding] = load_views()
    for look in (_rivals, _early, _thread_locals):
        findings.extend(look())
    findings.extend(django_findings(_is_patched("socket"), _is_patched("threading")))
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
