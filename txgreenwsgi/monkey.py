"""Patch the standard library in place, so that code you did not write is green.

    from txgreenwsgi import monkey
    monkey.patch_all()

or, for a whole program that then runs in a task: `python -m txgreenwsgi.monkey
script.py args`. Call it first of all, after Twisted's reactor is chosen: what a
module has bound before (`from time import sleep`) stays as it was, and such
modules are named in one warning.

In the reactor greenlet, in real threads and in the children of a fork, all that
is patched does what the original does, so Twisted is unharmed. It knows the
modules of `green`. It must never wait.
"""

from __future__ import annotations

import _thread
import importlib
import os
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

# What runs in the reactor greenlet and in Twisted's threads must have bound the
# originals before anything is patched.
import twisted.internet.endpoints
import twisted.internet.reactor
import twisted.python.threadpool  # noqa: F401
from twisted.python import threadable

from .green import _locks, drivers, patched
from .green import _thread as green_thread
from .green._mirror import rebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "MODULES",
    "early_importers",
    "is_patched",
    "original",
    "patch_all",
    "patch_os",
    "patch_psycopg2",
    "patch_queue",
    "patch_select",
    "patch_selectors",
    "patch_signal",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_thread",
    "patch_time",
]

# (module, name) -> what it was.
_originals: dict[tuple[str, str], Any] = {}
_patched = patched.record.modules
_missing = object()


def _replace(module: Any, name: str, value: Any) -> None:
    was = getattr(module, name, _missing)
    if was is value:
        return
    if was is not _missing:
        _originals.setdefault((module.__name__, name), was)
    setattr(module, name, value)


def is_patched(module: str) -> bool:
    """Has `module` ("socket", "threading" ...) been patched here?"""
    return module in _patched


def original(module: str, name: str) -> Any:
    """What `module.name` was before it was patched; what it is, if it was not.

    Raises:
        AttributeError: there is no such name.
    """
    was = _originals.get((module, name), _missing)
    if was is _missing:
        return getattr(importlib.import_module(module), name)
    return was


def patch_time() -> None:
    """`time.sleep` parks the task."""
    import time

    from .green import time as green

    if "time" not in _patched:
        _patched.add("time")
        _replace(time, "sleep", green.sleep)


def patch_os() -> None:
    """`os.waitpid`, `os.read`, `os.write` and their like park the task.

    `os.close` tells tasks that wait on what it closes.
    """
    from .green import os as green

    if "os" not in _patched:
        _patched.add("os")
        for name, value in green.REPLACED.items():
            _replace(os, name, value)


def patch_thread() -> None:
    """Threads begun in a task are tasks; locks are green; locals are for each task."""
    import threading

    from .green import threading as green

    if "threading" in _patched:
        return
    _patched.update(("threading", "_thread"))
    before = dict(vars(threading))
    for name, value in vars(green_thread).items():
        if not name.startswith("__") and getattr(_thread, name, value) is not value:
            _replace(_thread, name, value)
    green.rebuild(vars(threading))
    for name, value in before.items():
        if vars(threading).get(name) is not value:
            _originals.setdefault(("threading", name), value)
    # Twisted asks which thread this is, and means the real one.
    threadable.getThreadID = _locks.thread_ident
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is not None:
        # Held while a thread is started, which parks.
        _replace(futures, "_global_shutdown_lock", _locks.Lock())
    _patch_semaphores()


def _patch_semaphores() -> None:
    try:
        from .green import _semaphores
    except ImportError:
        return  # this Python has no multiprocessing
    _replace(sys.modules["_multiprocessing"], "SemLock", _semaphores.SemLock)


class _GreenQueues(MetaPathFinder, Loader):
    """Has every new copy of the C module `_queue` bring the green class."""

    def __init__(self, simple_queue: Any, empty: Any) -> None:
        self._simple_queue = simple_queue
        self._empty = empty

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return ModuleSpec(name, self) if name == "_queue" else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        module.SimpleQueue = self._simple_queue
        module.Empty = self._empty


def patch_queue() -> None:
    """Queues park. Those of one thread and one task are green by `patch_thread`."""
    import queue

    from .green import queue as green

    if "queue" not in _patched:
        patch_thread()
        _patched.add("queue")
        _replace(queue, "SimpleQueue", green.SimpleQueue)
        # What is reloaded, or imported afresh, takes it from there.
        sys.meta_path.insert(0, _GreenQueues(green.SimpleQueue, queue.Empty))
        if "_queue" in sys.modules:
            _replace(sys.modules["_queue"], "SimpleQueue", green.SimpleQueue)


def patch_select() -> None:
    """`select`, `poll` and `epoll` park."""
    import select

    from .green import select as green

    if "select" not in _patched:
        _patched.add("select")
        for name in ("select", "poll", "epoll"):
            if hasattr(select, name):
                _replace(select, name, getattr(green, name))
        # psycopg 3 would wait in C; this has it wait by `select`.
        os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_poll")


def patch_selectors() -> None:
    """Selectors park, also the classes that were imported before."""
    import selectors

    from .green import select as green

    if "selectors" in _patched:
        return
    patch_select()
    _patched.add("selectors")
    selectors.SelectSelector._select = staticmethod(green.select)  # type: ignore[attr-defined]
    for name, polling in (("PollSelector", "poll"), ("EpollSelector", "epoll")):
        if hasattr(selectors, name) and hasattr(green, polling):
            made_by = staticmethod(getattr(green, polling))
            getattr(selectors, name)._selector_cls = made_by


def _keep_for_twisted(socket: Any) -> None:
    """Let Twisted's own sockets stay what they are: it never waits on them."""
    kept = ModuleType("socket", socket.__doc__)
    kept.__dict__.update(vars(socket))
    for name, module in list(sys.modules.items()):
        if name.startswith("twisted.") and getattr(module, "socket", None) is socket:
            vars(module)["socket"] = kept
    # What an original socket accepts is an original socket.
    plain = socket.socket
    plain.accept = rebound(plain.accept, kept.__dict__)


def patch_socket() -> None:
    """Sockets park, and names are looked up in threads."""
    import socket

    from .green import socket as green

    if "socket" not in _patched:
        patch_selectors()
        _patched.add("socket")
        _keep_for_twisted(socket)
        for name, value in green.REPLACED.items():
            _replace(socket, name, value)
        # Drivers in C that have a hook, whenever they are imported.
        drivers.watch_imports()


def patch_ssl() -> None:
    """TLS sockets park."""
    import ssl

    from .green import ssl as green

    if "ssl" not in _patched:
        patch_socket()
        _patched.add("ssl")
        for name, value in green.REPLACED.items():
            _replace(ssl, name, value)


def patch_subprocess() -> None:
    """Waiting for processes, and for what they write, parks."""
    import subprocess

    from .green import subprocess as green

    if "subprocess" not in _patched:
        patch_selectors()
        _patched.add("subprocess")
        for name, value in green.REPLACED.items():
            _replace(subprocess, name, value)


def patch_signal() -> None:
    """What a signal's handler raises is raised in the task that is the main thread."""
    import signal

    from .green import signal as green

    if "signal" not in _patched:
        _patched.add("signal")
        for name, value in green.REPLACED.items():
            _replace(signal, name, value)


def patch_psycopg2() -> None:
    """psycopg2, whose C code waits by itself, parks. `patch_socket` sees to it, too."""
    drivers.make_psycopg2_green()


#: What `patch_all` patches, in the order in which it does.
MODULES: dict[str, Callable[[], None]] = {
    "time": patch_time,
    "os": patch_os,
    "thread": patch_thread,
    "queue": patch_queue,
    "select": patch_select,
    "selectors": patch_selectors,
    "socket": patch_socket,
    "ssl": patch_ssl,
    "subprocess": patch_subprocess,
    "signal": patch_signal,
}


def patch_all(only: Iterable[str] | None = None, *, warn: bool = True) -> None:
    """Patch the standard library in place; what was patched before is left alone.

    Call from the main thread, outside tasks.

    Args:
        only: some of `MODULES`; all by default. An empty list patches nothing, and
            keeps embedded servers from logging that nothing is patched.
        warn: tell of modules that have bound originals before.

    Raises:
        ValueError: `only` has a name that is not in `MODULES`.
    """
    names = list(MODULES) if only is None else list(only)
    for name in names:
        if name not in MODULES:
            raise ValueError(
                f"there is nothing called {name!r} to patch: give some of "
                f"{', '.join(MODULES)}"
            )
    patched.choose()
    for name in MODULES:
        if name in names:
            MODULES[name]()
    _refresh_standard_modules()
    early = early_importers() if warn else {}
    if early:
        told = "; ".join(
            f"{module} ({', '.join(names)})" for module, names in sorted(early.items())
        )
        warnings.warn(
            "these modules were imported before the standard library was patched "
            f"and keep what blocks: {told}. Patch first, import them afterwards",
            RuntimeWarning,
            stacklevel=2,
        )


def _bound_originals(module: Any) -> dict[str, tuple[str, str]]:
    """The names in `module` that are originals of what was patched."""
    by_id = {
        id(was): key
        for key, was in _originals.items()
        if callable(was) and not key[1].startswith("__")
    }
    found = {}
    for name, value in list(vars(module).items()):
        key = by_id.get(id(value))
        if key is not None:
            found[name] = key
    return found


def _refresh_standard_modules() -> None:
    """Standard modules that bound an original get what has replaced it."""
    patched = {module for module, _ in _originals}
    for name, module in list(sys.modules.items()):
        if (
            name.partition(".")[0] in sys.stdlib_module_names
            and name not in patched
            and hasattr(module, "__dict__")
        ):
            for bound, (source, attribute) in _bound_originals(module).items():
                if module is not sys.modules.get("__main__"):
                    setattr(module, bound, getattr(sys.modules[source], attribute))


def early_importers() -> dict[str, list[str]]:
    """The modules that bound originals too early, and the names that they have.

    Twisted and this package do so on purpose.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in _MEANT_TO_BLOCK:
            continue
        if not hasattr(module, "__dict__"):
            continue
        bound = _bound_originals(module)
        if bound:
            found[name] = sorted(bound)
    return found


# They bind originals, and need them.
_MEANT_TO_BLOCK = frozenset(
    (
        "automat",
        "constantly",
        "greenlet",
        "incremental",
        "twisted",
        "txgreenwsgi",
        "zope",
    )
)


def _run_script(arguments: Sequence[str]) -> None:
    import runpy

    if not arguments:
        raise SystemExit(
            "usage: python -m txgreenwsgi.monkey [-m MODULE | FILE] [ARG ...]"
        )
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise SystemExit("txgreenwsgi.monkey: -m needs the name of a module")
        sys.argv = list(arguments[1:])
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def run(main: Callable[..., object], *args: Any) -> int:
    """Run `main(*args)` as a program: in a task that is the main thread.

    Call from the main thread, outside tasks; returns when `main` has, and its
    threads that are no daemons. The library should have been patched.

    Returns:
        The exit status: 0, or that of a SystemExit, or 1 after an exception,
        whose traceback was printed.
    """
    from .green import program

    return program.run(main, *args)


if __name__ == "__main__":
    # The module that others import is the one to patch.
    from txgreenwsgi import monkey

    monkey.patch_all()
    raise SystemExit(monkey.run(monkey._run_script, sys.argv[1:]))
