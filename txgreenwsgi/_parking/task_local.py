"""`threading.local` with one namespace per task.

Threads, and the main task (which stands for the main thread), have the namespaces of
the original class. The namespace of any other task is dropped when the task ends, in
the reactor greenlet, so finalizers of its values cannot park.

It knows tasks. It must never park.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.running import current_task

from .real_threads import real_local
from .waits import main_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["local", "local_count"]


class _ThreadNamespace(real_local):
    """An instance of the original class, with one namespace per thread."""

    def __init__(self) -> None:  # called once in each thread
        self.namespace: dict[str, Any] | None = None


class _Namespaces:
    """All namespaces of one `local` object.

    Attributes:
        begin: runs the `__init__` of a subclass in a new namespace, or None.
        of_thread: the namespaces of threads.
        of_task: the namespaces of tasks, by the task's id.
    """

    __slots__ = ("__weakref__", "begin", "of_task", "of_thread")

    def __init__(self, begin: Callable[[object], None] | None) -> None:
        self.begin = begin
        self.of_thread = _ThreadNamespace()
        self.of_task: dict[int, dict[str, object]] = {}

    def find(self) -> tuple[dict[str, object], bool]:
        """Return the namespace of the current task or thread, and whether it is new."""
        task = current_task()
        if task is None or task is main_task():
            mine = self.of_thread.namespace
            if mine is not None:
                return mine, False
            mine = self.of_thread.namespace = {}
            return mine, True
        found = self.of_task.get(id(task))
        if found is not None:
            return found, False
        found = self.of_task[id(task)] = {}
        used = _used_by.get(id(task))
        if used is None:
            used = _used_by[id(task)] = weakref.WeakSet()
            task.call_at_end(partial(_forget, id(task)))
        used.add(self)
        return found, True


# The `local` objects that each task has used, by the task's id. A long-lived task may
# use many short-lived ones: it has a single end callback for all of them, and dead
# objects leave the weak set.
_used_by: dict[int, weakref.WeakSet[_Namespaces]] = {}


def local_count(task: Task[object]) -> int | None:
    """Return the number of live `local` objects with a namespace for `task`.

    None if the task has ended or has used none. For tests of memory use.
    """
    used = _used_by.get(id(task))
    return None if used is None else len(used)


def _forget(task_id: int) -> None:
    for namespaces in _used_by.pop(task_id):
        namespaces.of_task.pop(task_id, None)


_own = object.__getattribute__
_MISSING = object()


def _namespace(owner: local) -> dict[str, object]:
    namespaces: _Namespaces = _own(owner, "_txgreenwsgi_namespaces")
    namespace, new = namespaces.find()
    if new and namespaces.begin is not None:
        namespaces.begin(owner)
    return namespace


def _in_class(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        found = base.__dict__.get(name, _MISSING)
        if found is not _MISSING:
            return found
    return _MISSING


def _is_data(attribute: object) -> bool:
    kind = type(attribute)
    return hasattr(kind, "__set__") or hasattr(kind, "__delete__")


class local:  # noqa: N801 - the name in the standard library
    """An object whose attributes are separate in each task and each thread.

    The `__init__` of a subclass is called again, with the original arguments, at the
    first use in each task or thread; all of them share its `__slots__`.
    """

    __slots__ = ("__weakref__", "_txgreenwsgi_namespaces")
    _txgreenwsgi_namespaces: _Namespaces

    def __new__(cls, /, *args: object, **kwargs: object) -> local:
        """Make an object with a namespace for the current task or thread."""
        begin: Callable[[object], None] | None = None
        if cls.__init__ is not object.__init__:

            def begin(owner: object) -> None:
                cls.__init__(owner, *args, **kwargs)

        elif args or kwargs:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        namespaces = _Namespaces(begin)
        object.__setattr__(self, "_txgreenwsgi_namespaces", namespaces)
        namespaces.find()  # its __init__ is called next
        return self

    def __getattribute__(self, name: str) -> Any:
        namespace = _namespace(self)
        if name == "__dict__":
            return namespace
        shared = _in_class(type(self), name)
        if shared is not _MISSING and _is_data(shared):
            return _own(self, name)
        found = namespace.get(name, _MISSING)
        if found is not _MISSING:
            return found
        return _own(self, name)  # a class attribute, or AttributeError

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__dict__":
            raise AttributeError(
                f"{type(self).__name__!r} object attribute '__dict__' is read-only"
            )
        namespace = _namespace(self)
        shared = _in_class(type(self), name)
        if shared is not _MISSING and _is_data(shared):
            object.__setattr__(self, name, value)
        else:
            namespace[name] = value

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(
                f"{type(self).__name__!r} object attribute '__dict__' is read-only"
            )
        namespace = _namespace(self)
        shared = _in_class(type(self), name)
        if shared is not _MISSING and _is_data(shared):
            object.__delattr__(self, name)
        elif namespace.pop(name, _MISSING) is _MISSING:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
