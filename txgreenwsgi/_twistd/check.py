"""`--check`: report which drivers of a loaded application block.

It inspects the imported modules, and knows the common drivers. It reports other
extension modules that open connections as unknown. It must never call a driver.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

from txgreenwsgi.green.patched import is_patched

from .check_django import django_findings, load_views
from .extensions import connecting_packages
from .findings import (
    BLOCKS,
    GREEN,
    HARMLESS,
    IN_C,
    OFFLOADED,
    ON_SOCKETS,
    UNKNOWN,
    WARNING,
    Finding,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "BLOCKS",
    "GREEN",
    "OFFLOADED",
    "UNKNOWN",
    "WARNING",
    "Finding",
    "examine",
    "report",
]

_AUTO = "or --threads-for auto, the default: requests that it delays run in threads"

_RIVALS = ("gevent", "eventlet")


def _offloaded(offload: Iterable[str], package: str) -> Finding | None:
    """Return the finding for a package with off-loaded functions; else None."""
    names = [name for name in offload if name.startswith(package + ".")]
    if not names:
        return None
    return Finding(
        package, OFFLOADED, f"only {', '.join(names)}; its other calls block"
    )


def _blocking(name: str, remedy: str) -> Finding:
    """Return the finding for a driver whose calls block."""
    return Finding(name, BLOCKS, remedy, blocks_calls=True)


def _is_disguised(name: str) -> bool:
    """Return whether another module is installed under this name."""
    module = sys.modules.get(name)
    return getattr(module, "__name__", name) != name


def _drivers(offload: Iterable[str]) -> Iterable[Finding]:
    offload = list(offload)
    for name in ON_SOCKETS:
        if name in sys.modules:
            if is_patched("socket"):
                yield Finding(name, GREEN)
            else:
                yield _offloaded(offload, name) or _blocking(
                    name, "patch socket and ssl: --patch all"
                )
    for name, remedy in IN_C.items():
        if name in sys.modules and not _is_disguised(name):
            yield _offloaded(offload, name) or _blocking(name, remedy)
    for name, examine_driver in _SPECIAL.items():
        module = sys.modules.get(name)
        if module is not None:
            found = examine_driver(module)
            if found.verdict in (GREEN, OFFLOADED):
                yield found
            else:
                yield _offloaded(offload, name) or found


def _psycopg2(module: object) -> Finding:
    extensions = sys.modules.get("psycopg2.extensions")
    if extensions is not None and extensions.get_wait_callback() is not None:
        return Finding("psycopg2", GREEN)
    return _blocking(
        "psycopg2",
        "patch sockets (--patch all), or call txgreenwsgi.monkey.patch_psycopg2() at "
        "startup",
    )


def _psycopg(module: object) -> Finding:
    waiting = sys.modules.get("psycopg.waiting")
    waits_by: object = getattr(waiting, "wait", None)
    if getattr(waits_by, "__module__", "") == "txgreenwsgi.green.drivers" or (
        getattr(waits_by, "__name__", "wait_c") != "wait_c" and is_patched("select")
    ):
        return Finding("psycopg", GREEN)
    return _blocking(
        "psycopg",
        "patch sockets (--patch all), or set the environment variable "
        "PSYCOPG_WAIT_FUNC to wait_poll and patch select",
    )


def _oracledb(module: object) -> Finding:
    is_thin = getattr(module, "is_thin_mode", None)
    if is_thin is not None and not is_thin():
        return _blocking(
            "oracledb", "remove init_oracle_client(), to use the thin mode"
        )
    if is_patched("socket"):
        return Finding("oracledb", GREEN)
    return _blocking("oracledb", "patch socket and ssl: --patch all")


def _sqlite3(module: object) -> Finding:
    green = sys.modules.get("txgreenwsgi.green.sqlite3")
    if is_patched("heavy"):
        return Finding("sqlite3", OFFLOADED, "by --offload heavy")
    users = sorted(_users_of(module))
    if green is not None and not users:
        return Finding("sqlite3", GREEN, "through txgreenwsgi.green.sqlite3")
    where = f" (in {', '.join(users)})" if users else ""
    return _blocking(
        "sqlite3",
        "each query blocks: give --offload heavy, or import "
        f"txgreenwsgi.green.sqlite3 instead{where}",
    )


def _users_of(module: object) -> Iterable[str]:
    """Yield the modules outside the standard library that use `module`."""
    named = {id(module)}
    for part in ("connect", "Connection", "dbapi2"):
        if hasattr(module, part):
            named.add(id(getattr(module, part)))
    for name, other in list(sys.modules.items()):
        top = name.partition(".")[0]
        # `django_findings` reports Django's backends, from the settings.
        if top in sys.stdlib_module_names or top in ("txgreenwsgi", "django"):
            continue
        held = getattr(other, "__dict__", {})
        if any(id(value) in named for value in list(held.values())):
            yield name


def _uvloop(module: object) -> Finding:
    reactor = sys.modules.get("twisted.internet.reactor")
    loop: object = getattr(reactor, "_asyncioEventloop", None)
    if type(loop).__module__.partition(".")[0] == "uvloop":
        return Finding("uvloop", GREEN, "the reactor runs on it")
    return _blocking(
        "uvloop",
        "an event loop of uvloop waits in C: remove uvloop.run() and "
        "uvloop.install(), so that asyncio.run() uses the loop of asyncio",
    )


_SPECIAL: dict[str, Callable[[object], Finding]] = {
    "oracledb": _oracledb,
    "psycopg2": _psycopg2,
    "psycopg": _psycopg,
    "sqlite3": _sqlite3,
    "uvloop": _uvloop,
}


def _unknown(offload: Iterable[str]) -> Iterable[Finding]:
    """Yield the packages that connect in C and that no other finding covers."""
    offload = list(offload)
    judged = {
        name.partition(".")[0].lstrip("_")
        for name in (*ON_SOCKETS, *IN_C, *_SPECIAL, *HARMLESS)
    }
    for package, path in connecting_packages().items():
        if package.lstrip("_") not in judged:
            yield _offloaded(offload, package) or Finding(
                package,
                UNKNOWN,
                f"it can open connections in C ({path}), and would block while it "
                "waits for them: call it in a request while others run, or --offload "
                "its calls",
                blocks_calls=True,
            )


def _rivals() -> Iterable[Finding]:
    for name in _RIVALS:
        monkey = sys.modules.get(f"{name}.monkey")
        if monkey is not None and getattr(monkey, "saved", None):
            yield Finding(
                name, BLOCKS, "it has patched the standard library: remove that call"
            )


def _early() -> Iterable[Finding]:
    monkey = sys.modules.get("txgreenwsgi.monkey")
    if monkey is None:
        return
    for module, names in monkey.early_importers().items():
        yield Finding(
            module,
            BLOCKS,
            f"it bound {', '.join(names)} before the library was patched: import it "
            "after patching, or start with python -m txgreenwsgi.patched",
        )
    for each in monkey.early_objects():
        yield Finding(
            each.name,
            WARNING,
            f"a {each.kind} created before the library was patched: "
            + (
                "all requests share it; "
                if each.kind == "local"
                else "a request that waits for it blocks all others; "
            )
            + "create it later, or start with python -m txgreenwsgi.patched",
        )


def _thread_locals() -> Iterable[Finding]:
    monkey = sys.modules.get("txgreenwsgi.monkey")
    real: type = _thread._local
    if monkey is not None:
        real = monkey.original("_thread", "_local")
    # Twisted and its dependencies use theirs outside requests.
    ours = ("attr", "greenlet", "twisted", "txgreenwsgi", "zope")
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ours:
            continue
        if not hasattr(module, "__dict__"):
            continue
        for attribute, value in list(vars(module).items()):
            # Not isinstance, which uses `__class__`: a proxy may forward it.
            if issubclass(type(value), real):
                yield Finding(
                    f"{name}.{attribute}",
                    WARNING,
                    "a threading.local shared by all requests: patch thread before "
                    "its creation (--patch all), or use a contextvar",
                )


def examine(offload: Iterable[str] = ()) -> list[Finding]:
    """Return the findings for all imported modules, the worst first. Never parks.

    For a Django project, first imports the modules that its first request imports.

    Args:
        offload: the functions named by `--offload`.
    """
    findings: list[Finding] = load_views()
    for find in (_rivals, _early, _thread_locals):
        findings.extend(find())
    findings.extend(django_findings(is_patched("socket"), is_patched("threading")))
    offload = list(offload)
    findings.extend(_drivers(offload))
    findings.extend(_unknown(offload))
    order = {BLOCKS: 0, WARNING: 1, UNKNOWN: 2, OFFLOADED: 3, GREEN: 4}
    return sorted(set(findings), key=lambda found: (order[found.verdict], found.name))


def report(findings: list[Finding]) -> tuple[str, int]:
    """Return the findings as text, and the exit status: 1 if a driver blocks."""
    lines = []
    for found in findings:
        lines.append(f"{found.verdict:<10} {found.name}")
        if found.remedy:
            lines.append(f"{'':<10}   {found.remedy}")
        if found.blocks_calls:
            lines.append(f"{'':<10}   {_AUTO}")
    blocking = sum(found.verdict == BLOCKS for found in findings)
    unknown = sum(found.verdict == UNKNOWN for found in findings)
    solved = sum(found.blocks_calls for found in findings)
    lines.append(
        f"{blocking} of {len(findings)} would block the reactor"
        + (f", {unknown} may" if unknown else "")
        + (f"; --threads-for auto solves {solved} of these" if solved else "")
        if findings
        else "no blocking driver is loaded, as far as known"
    )
    return "\n".join(lines) + "\n", 1 if blocking else 0
