"""What libraries keep for each thread, kept for each task.

All tasks run in one thread. Django keeps its database connections in an asgiref
`Local` that goes by the thread, so two requests would share one connection and
each other's transaction, and its check against just that compares the numbers of
threads. `isolate_loaded()` gives each task its own, whether the standard library
is patched or not, and has what a task still holds closed in that task before it
ends. Real threads and the reactor greenlet see what they always saw.

It knows Django's handlers of connections and asgiref's locals by name. It must
never import either, nor keep anybody from importing them later.
"""

from __future__ import annotations

import _thread
import sys
import threading
from importlib.abc import MetaPathFinder
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from .green._locals import local
from .green._locks import _real_rlock, get_ident
from .green._place import here, main_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from ._switching.greenlets import Task

__all__ = ["isolate_loaded"]

_log = Logger()

_own = object.__getattribute__
_set_own = object.__setattr__


class _TaskLocal:
    """An asgiref `Local` that has a namespace for each task.

    Its values are connections. Those that are left in a task's namespace are
    closed in that task before it ends: nobody else could use them.

    Args:
        elsewhere: the `Local` that is used outside tasks.
    """

    __slots__ = ("_elsewhere", "_of_task")

    def __init__(self, elsewhere: Any) -> None:
        _set_own(self, "_elsewhere", elsewhere)
        _set_own(self, "_of_task", {})

    def __getattr__(self, name: str) -> Any:
        task = here()
        if task is None or task is main_task():
            return getattr(_own(self, "_elsewhere"), name)
        try:
            return _own(self, "_of_task")[task][name]
        except KeyError:
            # Django asks before it makes one, several times for each request.
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        task = here()
        if task is None or task is main_task():
            setattr(_own(self, "_elsewhere"), name, value)
            return
        of_task: dict[Task[Any], dict[str, Any]] = _own(self, "_of_task")
        namespace = of_task.get(task)
        if namespace is None:
            namespace = of_task[task] = {}

            def end() -> None:
                # First forgotten: what closes one may ask for it anew.
                _close_all(of_task.pop(task))

            task.call_before_end(end)
        namespace[name] = value

    def __delattr__(self, name: str) -> None:
        task = here()
        if task is None or task is main_task():
            delattr(_own(self, "_elsewhere"), name)
            return
        try:
            del _own(self, "_of_task")[task][name]
        except KeyError:
            raise AttributeError(name) from None


class _Locals:
    """Makes what Django takes for an asgiref `Local`, which `plain` makes."""

    def __init__(self, plain: Callable[[bool], Any]) -> None:
        self._plain = plain

    def __call__(self, thread_critical: bool = False) -> _TaskLocal:
        return _TaskLocal(self._plain(thread_critical))


def _close_all(namespace: dict[str, Any]) -> None:
    """Close the connections that a task which ends has opened. In that task."""
    ident = get_ident()
    for alias, connection in namespace.items():
        if getattr(connection, "_thread_ident", ident) != ident:
            continue  # another's, that was lent to this task
        try:
            if hasattr(connection, "close_for_good"):
                # Ours, where a mere `close()` keeps a database that is in memory.
                connection.close_for_good()
            elif hasattr(connection, "close"):
                connection.close()
        except Exception:
            _log.failure(
                "{alias}: the connection of a task that ended could not be closed",
                alias=repr(alias),
            )


def _isolate_handlers(module: Any) -> None:
    """`django.utils.connection`: what keeps connections, keeps them for each task."""
    if not isinstance(module.Local, _Locals):
        module.Local = _Locals(module.Local)
    # Those that were made before: what the main thread has put in, it keeps.
    for name, handler_name in (
        ("django.db", "connections"),
        ("django.core.cache", "caches"),
    ):
        handler = getattr(sys.modules.get(name), handler_name, None)
        if handler is not None and not isinstance(handler._connections, _TaskLocal):
            handler._connections = _TaskLocal(handler._connections)


def _isolate_checks(module: Any) -> None:
    """`django.db.backends.base.base`: a connection knows the task it belongs to."""
    module._thread = _like(_thread, get_ident=get_ident)


def _isolate_locals(module: Any) -> None:
    """`asgiref.local`: what goes by the thread goes by the task, from now on."""
    module.threading = _like(
        threading,
        local=local,
        current_thread=_current_thread,
        # No task parks where asgiref holds one, and Django asks it some twenty times
        # for each page: in C this takes a tenth.
        RLock=_real_rlock,
    )


class _StandIn:
    """What attributes of a thread are set on, for a task."""


_stand_ins: WeakKeyDictionary[Task[Any], _StandIn] = WeakKeyDictionary()


def _current_thread() -> object:
    """The thread, or what stands for it in a task (asgiref up to 3.7.0 asks)."""
    task = here()
    if task is None or task is main_task():
        return threading.current_thread()
    found = _stand_ins.get(task)
    if found is None:
        found = _stand_ins[task] = _StandIn()
    return found


def _like(module: ModuleType, **replaced: object) -> SimpleNamespace:
    return SimpleNamespace(**(vars(module) | replaced))


_TREATMENTS: dict[str, Callable[[Any], None]] = {
    "asgiref.local": _isolate_locals,
    "django.utils.connection": _isolate_handlers,
    "django.db.backends.base.base": _isolate_checks,
}


class _Watch(MetaPathFinder):
    """Has the modules of `_TREATMENTS` treated as soon as they are imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        treat = _TREATMENTS.get(name)
        if treat is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec: ModuleSpec | None = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _treat_after(spec.loader, treat)
                return spec
        return None


def _treat_after(loader: Any, treat: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        treat(module)

    # On this one loader: it remains what it is to those who ask it for sources.
    loader.exec_module = exec_module


_watch = _Watch()


def isolate_loaded() -> None:
    """Give each task its own of what Django keeps for each thread. Never parks.

    It sees to what is loaded now and to what is imported from now on; a second
    call does nothing. Call from the main thread, before the first request.
    """
    if _watch in sys.meta_path:
        return
    sys.meta_path.insert(0, _watch)
    for name, treat in _TREATMENTS.items():
        module = sys.modules.get(name)
        if module is not None:
            treat(module)
