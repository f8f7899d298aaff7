"""Adaptation of Django and asgiref: state per task, and complete request bodies.

All tasks run in one thread. Django keeps its database connections in an asgiref `Local`
keyed by the thread, so two requests would share a connection and its transaction, and
Django's check against sharing compares thread idents. `isolate_loaded()` gives each
task its own connections, whether or not the standard library is patched, and closes
leftover connections in the task before it ends. Real threads and the reactor greenlet
are not affected.

Django reads CONTENT_LENGTH bytes of a request body and ignores
`wsgi.input_terminated`, so a body without a length would appear empty.
`isolate_loaded()` lets its request class ask the server for the complete body.

It knows Django's connection handlers and request class and asgiref's locals by name. It
must never import Django or asgiref, or prevent their later import.
"""

from __future__ import annotations

import _thread
import sys
import threading
from functools import wraps
from importlib.abc import MetaPathFinder
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from ._parking.locks import get_ident
from ._parking.real_threads import real_rlock
from ._parking.task_local import local
from ._parking.waits import main_task
from ._switching.running import current_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from _typeshed.wsgi import WSGIEnvironment

    from ._switching.greenlets import Task

__all__ = ["isolate_loaded"]

_log = Logger()

_get_own = object.__getattribute__
_set_own = object.__setattr__


class _TaskLocal:
    """An asgiref `Local` with one namespace per task; its values are connections.

    Connections left in the namespace of a task are closed in that task before it ends,
    because no other task can use them.

    Args:
        outside_tasks: the `Local` to use outside tasks.
    """

    __slots__ = ("_of_task", "_outside_tasks")

    def __init__(self, outside_tasks: object) -> None:
        _set_own(self, "_outside_tasks", outside_tasks)
        _set_own(self, "_of_task", {})

    def __getattr__(self, name: str) -> Any:
        task = current_task()
        if task is None or task is main_task():
            return getattr(_get_own(self, "_outside_tasks"), name)
        try:
            return _get_own(self, "_of_task")[task][name]
        except KeyError:
            # Hot path: Django looks for a connection several times per request.
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        task = current_task()
        if task is None or task is main_task():
            setattr(_get_own(self, "_outside_tasks"), name, value)
            return
        of_task: dict[Task[object], dict[str, object]] = _get_own(self, "_of_task")
        namespace = of_task.get(task)
        if namespace is None:
            namespace = of_task[task] = {}

            def end() -> None:
                # Removed first: code that closes a connection may look it up again.
                _close_all(of_task.pop(task))

            task.call_before_end(end)
        namespace[name] = value

    def __delattr__(self, name: str) -> None:
        task = current_task()
        if task is None or task is main_task():
            delattr(_get_own(self, "_outside_tasks"), name)
            return
        try:
            del _get_own(self, "_of_task")[task][name]
        except KeyError:
            raise AttributeError(name) from None


class _LocalFactory:
    """A replacement in Django for the class `Local` of asgiref.

    Args:
        original: the class `Local`.
    """

    def __init__(self, original: Callable[[bool], object]) -> None:
        self._original = original

    def __call__(self, thread_critical: bool = False) -> _TaskLocal:
        return _TaskLocal(self._original(thread_critical))


def is_isolated(handler: Any) -> bool:
    """Return whether a connection handler of Django has one namespace per task."""
    return isinstance(handler._connections, _TaskLocal)


def namespace_count(handler: Any) -> int:
    """Return the number of tasks with connections in a handler. For leak checks."""
    return len(_get_own(handler._connections, "_of_task"))


def _close_all(namespace: dict[str, object]) -> None:
    """Close the connections of an ending task. Call from that task."""
    ident = get_ident()
    for alias, connection in namespace.items():
        if getattr(connection, "_thread_ident", ident) != ident:
            continue  # opened by another task and lent to this one
        try:
            if hasattr(connection, "close_for_good"):
                # A pooled backend, whose `close()` keeps an in-memory database open.
                connection.close_for_good()
            elif hasattr(connection, "close"):
                connection.close()
        except Exception:
            _log.failure(
                "closing a connection at the end of its task failed: {alias}",
                alias=repr(alias),
            )


def _isolate_handlers(module: Any) -> None:
    """Patch `django.utils.connection`: connection handlers keep state per task."""
    if not isinstance(module.Local, _LocalFactory):
        module.Local = _LocalFactory(module.Local)
    # Existing handlers; they keep the connections of the main thread.
    for name, handler_name in (
        ("django.db", "connections"),
        ("django.core.cache", "caches"),
    ):
        handler = getattr(sys.modules.get(name), handler_name, None)
        if handler is not None and not is_isolated(handler):
            handler._connections = _TaskLocal(handler._connections)


def _isolate_checks(module: Any) -> None:
    """Patch `django.db.backends.base.base`: connections belong to a task."""
    module._thread = _copy_of(_thread, get_ident=get_ident)


def _isolate_locals(module: Any) -> None:
    """Patch `asgiref.local`: state per thread becomes state per task."""
    module.threading = _copy_of(
        threading,
        local=local,
        current_thread=_current_thread,
        # The original lock is safe, because no task parks while asgiref holds it.
        # Django takes it about twenty times per page, and the original, in C, needs a
        # tenth of the time.
        RLock=real_rlock,
    )


class _ThreadStandIn:
    """A per-task holder of attributes that libraries set on the current thread."""


_stand_ins: WeakKeyDictionary[Task[object], _ThreadStandIn] = WeakKeyDictionary()


def _current_thread() -> object:
    """Return the thread, or its stand-in in a task. Used by asgiref up to 3.7.0."""
    task = current_task()
    if task is None or task is main_task():
        return threading.current_thread()
    found = _stand_ins.get(task)
    if found is None:
        found = _stand_ins[task] = _ThreadStandIn()
    return found


def _buffer_bodies(module: Any) -> None:
    """Patch `django.core.handlers.wsgi`: a request asks for its complete body."""
    request_class = module.WSGIRequest
    initialize = request_class.__init__

    @wraps(initialize)
    def __init__(self: Any, environ: WSGIEnvironment) -> None:  # noqa: N807
        buffer_input = environ.get("txgreenwsgi.buffer_input")
        if buffer_input is not None:
            buffer_input(environ)
        initialize(self, environ)

    request_class.__init__ = __init__


def _copy_of(module: ModuleType, **replaced: object) -> SimpleNamespace:
    return SimpleNamespace(**(vars(module) | replaced))


_PATCHES: dict[str, Callable[[Any], None]] = {
    "asgiref.local": _isolate_locals,
    "django.core.handlers.wsgi": _buffer_bodies,
    "django.utils.connection": _isolate_handlers,
    "django.db.backends.base.base": _isolate_checks,
}


class _PatchingFinder(MetaPathFinder):
    """An import hook that applies `_PATCHES` to modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        patch = _PATCHES.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec: ModuleSpec | None = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _patch_after_exec(spec.loader, patch)
                return spec
        return None


def _patch_after_exec(loader: Any, patch: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        patch(module)

    # Set on this instance, so that the loader keeps its type and its other methods.
    loader.exec_module = exec_module


_finder = _PatchingFinder()


def isolate_loaded() -> None:
    """Keep Django's per-thread state per task, and its bodies complete. Never parks.

    Patches the modules that are loaded now and those imported later; a second call is a
    no-op. Call from the main thread, before the first request.
    """
    if _finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _finder)
    for name, patch in _PATCHES.items():
        module = sys.modules.get(name)
        if module is not None:
            patch(module)
