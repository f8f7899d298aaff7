"""Patch the standard library in place, to make third-party code cooperative.

    from txgreenwsgi import monkey
    monkey.patch_all()

or, to run a whole program in a task: `python -m txgreenwsgi.monkey script.py args`.
Patch before any other import. Names that a module has bound already (`from time import
sleep`) are rebound, and free locks and queues are replaced; one warning lists the
modules that keep originals, and another one the objects. The reactor may be installed
before or afterwards.

In the reactor greenlet, in real threads and in the child of a fork, patched functions
behave as the originals, so Twisted is not affected. This module knows the modules of
`green`. It must never park.
"""

from __future__ import annotations

import _thread
import gc
import importlib
import os
import sys
import warnings
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

# Code that runs in the reactor greenlet and in Twisted's threads must bind the
# originals before they are patched. No reactor is installed.
import twisted.internet.asyncioreactor
import twisted.internet.default
import twisted.internet.endpoints
import twisted.internet.pollreactor
import twisted.internet.selectreactor
import twisted.python.threadpool  # noqa: F401
from twisted.python import threadable

# The module, not its names: as `__main__`, this module would bind originals itself.
from ._parking import real_threads
from ._parking.locks import Lock
from ._switching.asyncio_state import set_generator_hooks
from ._switching.forks import call_or_end_child
from .green import drivers, patched
from .green import thread as green_thread
from .green.early import EarlyObject, replace_early_objects
from .green.mirror import rebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "MODULES",
    "early_importers",
    "early_objects",
    "is_patched",
    "original",
    "patch_all",
    "patch_heavy",
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

# The originals, by (module, name).
_originals: dict[tuple[str, str], object] = {}
_early_objects: set[EarlyObject] = set()
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
    """Return whether `module` ("socket", "threading" etc.) has been patched."""
    return module in _patched


def original(module: str, name: str) -> Any:
    """Return the original `module.name`, or the current value if it is not patched.

    Raises:
        AttributeError: the module has no such name.
    """
    was = _originals.get((module, name), _missing)
    if was is _missing:
        return getattr(importlib.import_module(module), name)
    return was


def patch_time() -> None:
    """Patch `time`: `sleep` parks the task."""
    import time

    from .green import time as green

    if "time" not in _patched:
        _patched.add("time")
        _replace(time, "sleep", green.sleep)


def patch_os() -> None:
    """Patch `os` and `fcntl`: functions that wait for a descriptor park the task.

    These are `waitpid`, `read`, `write`, `flock` and their variants, and `open` of a
    FIFO. `close` wakes the tasks that wait for the descriptor.
    """
    import fcntl

    from .green import fcntl as green_fcntl
    from .green import os as green

    if "os" not in _patched:
        _patched.update(("os", "fcntl"))
        for name, value in green.REPLACED.items():
            _replace(os, name, value)
        for name, value in green_fcntl.REPLACED.items():
            _replace(fcntl, name, value)


def patch_thread() -> None:
    """Patch `threading`: threads started in a task are tasks, locals are per task."""
    import threading

    from .green import exits
    from .green import threading as green

    if "threading" in _patched:
        return
    _patched.update(("threading", "_thread"))
    # Event loops in several tasks, as in several threads.
    _replace(sys, "set_asyncgen_hooks", set_generator_hooks)
    before = dict(vars(threading))
    for name, value in green_thread.REPLACED.items():
        _replace(_thread, name, value)
    green.rebuild(vars(threading))
    exits.install()
    for name, value in before.items():
        if vars(threading).get(name) is not value:
            _originals.setdefault(("threading", name), value)
    green_thread.make_join_green()
    # Twisted needs the ident of the real thread.
    threadable.getThreadID = real_threads.thread_ident
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is not None:
        # Held while a thread is started, which parks.
        _replace(futures, "_global_shutdown_lock", Lock())
    _patch_executor()
    _patch_semaphores()


def _patch_executor() -> None:
    """Let the child of a fork exit with the call of an executor that made it."""
    from concurrent.futures import ThreadPoolExecutor

    submit: Any = ThreadPoolExecutor.submit

    @wraps(submit)
    def guarded_submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, call_or_end_child, fn, *args, **kwargs)

    setattr(ThreadPoolExecutor, "submit", guarded_submit)  # noqa: B010 - a method


def _patch_semaphores() -> None:
    try:
        from .green import semaphores
    except ImportError:
        return  # this Python has no multiprocessing
    _replace(sys.modules["_multiprocessing"], "SemLock", semaphores.SemLock)


class _GreenQueueImporter(MetaPathFinder, Loader):
    """An importer that puts the green class into each new import of `_queue`."""

    def __init__(self, simple_queue: type, empty: type[Exception]) -> None:
        self._simple_queue = simple_queue
        self._empty = empty

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == "_queue" else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        module.SimpleQueue = self._simple_queue
        module.Empty = self._empty


def patch_queue() -> None:
    """Patch `queue`: `SimpleQueue` parks; `patch_thread` makes other queues park."""
    import queue

    from .green import queue as green

    if "queue" not in _patched:
        patch_thread()
        _patched.add("queue")
        _replace(queue, "SimpleQueue", green.SimpleQueue)
        # For modules that are reloaded or imported again.
        sys.meta_path.insert(0, _GreenQueueImporter(green.SimpleQueue, queue.Empty))
        if "_queue" in sys.modules:
            _replace(sys.modules["_queue"], "SimpleQueue", green.SimpleQueue)


def patch_select() -> None:
    """Patch `select`: `select`, `poll` and `epoll` park the task."""
    import select

    from .green import select as green

    if "select" not in _patched:
        _patched.add("select")
        for name in ("select", "poll", "epoll"):
            if hasattr(select, name):
                _replace(select, name, getattr(green, name))
        # Makes psycopg 3 wait with `select.poll` instead of in C.
        os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_poll")


def patch_selectors() -> None:
    """Patch `selectors`: all selectors park, including classes imported before."""
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
    """Keep the original sockets in Twisted, which never blocks on them."""
    kept = ModuleType("socket", socket.__doc__)
    kept.__dict__.update(vars(socket))
    for name, module in list(sys.modules.items()):
        if name.startswith("twisted.") and getattr(module, "socket", None) is socket:
            vars(module)["socket"] = kept
    # An original socket accepts original sockets.
    plain = socket.socket
    plain.accept = rebound(plain.accept, kept.__dict__)


def patch_socket() -> None:
    """Patch `socket`: sockets park, and names are resolved in threads."""
    import socket

    from .green import socket as green

    if "socket" not in _patched:
        patch_selectors()
        _patched.add("socket")
        _keep_for_twisted(socket)
        for name, value in green.REPLACED.items():
            _replace(socket, name, value)
        # C drivers that have a hook, including those imported later.
        drivers.watch_imports()


def patch_ssl() -> None:
    """Patch `ssl`: TLS sockets park."""
    import ssl

    from .green import ssl as green

    if "ssl" not in _patched:
        patch_socket()
        _patched.add("ssl")
        green.patch_context()
        for name, value in green.REPLACED.items():
            _replace(ssl, name, value)


def patch_subprocess() -> None:
    """Patch `subprocess`: waiting for processes and their output parks."""
    import _posixsubprocess
    import subprocess

    from .green import subprocess as green

    if "subprocess" not in _patched:
        patch_selectors()
        _patched.add("subprocess")
        for name, value in green.REPLACED.items():
            _replace(subprocess, name, value)
        for name, value in green.REPLACED_IN_C.items():
            _replace(_posixsubprocess, name, value)


def patch_signal() -> None:
    """Patch `signal`: exceptions of handlers are raised in the main task."""
    import signal

    from .green import signal as green

    if "signal" not in _patched:
        _patched.add("signal")
        for name, value in green.REPLACED.items():
            _replace(signal, name, value)


def patch_psycopg2() -> None:
    """Make psycopg2, which waits in C, park. `patch_socket` includes this."""
    drivers.make_psycopg2_green()


def patch_heavy(*, warn: bool = True) -> None:
    """Make heavy calls run in threads while the task waits. Not part of `patch_all`.

    These are SQLite's, Pillow's, password hashes (PBKDF2, scrypt, bcrypt, Argon2),
    the compression of large data, and `os.fsync`. Calls with little work stay direct.
    Libraries that are imported later are included. Call from the main thread, outside
    tasks, before the application is imported.

    Args:
        warn: warn about modules that bound originals earlier.
    """
    from .green import heavy

    if "heavy" not in _patched:
        _patched.add("heavy")
        early = early_importers()
        for name, replaced in heavy.replacements().items():
            module = importlib.import_module(name)
            for attribute, value in replaced.items():
                _replace(module, attribute, value)
        heavy.watch_libraries()
        _rebind_modules()
        if warn and early_importers() != early:
            _warn_of_leftovers()


#: The functions that `patch_all` calls, in this order.
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
    """Patch the standard library in place; skip modules that are already patched.

    Call from the main thread, outside tasks.

    Args:
        only: names from `MODULES`; all by default. An empty list patches nothing, and
            suppresses the warning of embedded servers.
        warn: warn about modules and objects that keep blocking.

    Raises:
        ValueError: `only` contains a name that is not in `MODULES`.
    """
    names = list(MODULES) if only is None else list(only)
    for name in names:
        if name not in MODULES:
            raise ValueError(
                f"cannot patch {name!r}, which is not one of the supported modules: "
                f"give some of {', '.join(MODULES)}"
            )
    patched.choose()
    before = set(_patched)
    for name in MODULES:
        if name in names:
            MODULES[name]()
    if _patched != before:
        _rebind_modules()
        _early_objects.update(replace_early_objects(_patched, _NEED_ORIGINALS))
    if warn:
        _warn_of_leftovers()


def _warn_of_leftovers() -> None:
    """Warn about what was imported or created earlier and keeps blocking."""
    names = [
        f"{module} ({', '.join(names)})"
        for module, names in sorted(early_importers().items())
    ]
    objects = [f"{each.name} ({each.kind})" for each in early_objects()]
    for leftovers, problem in (
        (
            names,
            "these modules were imported before the standard library was patched and "
            "keep functions or classes that block",
        ),
        (
            objects,
            "these objects were created before the standard library was patched; a "
            "task that waits for one blocks all tasks, and a local is shared by them",
        ),
    ):
        if leftovers:
            warnings.warn(
                f"{problem}: {'; '.join(leftovers)}. Patch first, then import: see "
                '"python -m txgreenwsgi.patched"',
                RuntimeWarning,
                stacklevel=3,
            )


def _originals_by_id() -> dict[int, tuple[str, str]]:
    return {
        id(was): key
        for key, was in _originals.items()
        if callable(was) and not key[1].startswith("__")
    }


def _bound_originals(
    module: ModuleType, by_id: dict[int, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """Return the names in `module` that are bound to originals of patched names."""
    found = {}
    for name, value in list(vars(module).items()):
        key = by_id.get(id(value))
        if key is not None:
            found[name] = key
    return found


def _has_subclass(module: ModuleType, original: object) -> bool:
    """Return whether `module` contains a subclass of `original`.

    Its methods may call `original` by its name.
    """
    return isinstance(original, type) and any(
        issubclass(type(value), type)
        and value is not original
        and original in value.__mro__
        for value in list(vars(module).values())
    )


def _rebind_modules() -> None:
    """Rebind originals that modules have imported by name to their replacements."""
    patched = {module for module, _ in _originals}
    by_id = _originals_by_id()
    for name, module in list(sys.modules.items()):
        if (
            name in patched
            or name.partition(".")[0] in _NEED_ORIGINALS
            or not issubclass(type(module), ModuleType)
        ):
            continue
        for bound, (source, attribute) in _bound_originals(module, by_id).items():
            if not _has_subclass(module, vars(module)[bound]):
                vars(module)[bound] = getattr(sys.modules[source], attribute)
    # Default values of parameters: def retry(sleep=time.sleep).
    for function in gc.get_objects():
        if type(function) is not FunctionType or not function.__defaults__:
            continue
        if not by_id.keys().isdisjoint(map(id, function.__defaults__)):
            module_name = str(function.__module__)
            if (
                module_name not in patched
                and module_name.partition(".")[0] not in _NEED_ORIGINALS
            ):
                function.__defaults__ = tuple(
                    _replacement(value, by_id) for value in function.__defaults__
                )


def _replacement(value: object, by_id: dict[int, tuple[str, str]]) -> object:
    key = by_id.get(id(value))
    return value if key is None else getattr(sys.modules[key[0]], key[1])


def early_importers() -> dict[str, list[str]]:
    """Return the modules that still have originals bound, and those names.

    `patch_all` rebinds the names that modules have imported earlier, except for a class
    that the module derives from. Packages that need the originals, such as Twisted, are
    excluded.
    """
    found = {}
    by_id = _originals_by_id()
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in _NEED_ORIGINALS:
            continue
        if not hasattr(module, "__dict__"):
            continue
        bound = _bound_originals(module, by_id)
        if bound:
            found[name] = sorted(bound)
    return found


def early_objects() -> list[EarlyObject]:
    """Return the objects that were created before patching and keep blocking.

    `patch_all` replaces original locks, queues, sockets and thread-locals that are free
    and whose references are all known. The others are listed here, except for those of
    the standard library and of packages that need the originals.
    """
    return sorted(_early_objects)


# Packages that need the originals.
_NEED_ORIGINALS = frozenset(
    (
        "attr",
        "automat",
        "constantly",
        "eventlet",
        "gevent",
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
            raise SystemExit("txgreenwsgi.monkey: -m needs a module name")
        sys.argv = list(arguments[1:])
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def run(main: Callable[..., object], *args: Any) -> int:
    """Run `main(*args)` as a program, in a task that stands for the main thread.

    Call from the main thread, outside tasks, after patching. Returns when `main` and
    its non-daemon threads have ended.

    Args:
        main: the program.
        args: its arguments.

    Returns:
        The exit status: 0, the status of a SystemExit, or 1 after another exception,
        whose traceback is printed.
    """
    from .green import program

    return program.run(main, *args)


if __name__ == "__main__":
    # Use the imported module, not `__main__`: other code sees its state.
    from txgreenwsgi import monkey

    monkey.patch_all()
    raise SystemExit(monkey.run(_run_script, sys.argv[1:]))
