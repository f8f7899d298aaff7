"""`threading.local`, with a namespace for each task.

A thread, and the task that stands for the main thread, have the namespaces that
the original gives them. A task's own is dropped when the task ends, from the
reactor greenlet: what dies then cannot wait.

It knows tasks. It must never wait.
"""

from __future__ import annotations

import _thread
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from ._place import here, main_task

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["local"]

_real_local = _thread._local


class _OfThread(_real_local):
    """The original: what it holds, it holds for each thread."""

    def __init__(self) -> None:  # called anew in each thread
        self.namespace: dict[str, Any] | None = None


class _Namespaces:
    """All the namespaces of one `local` object."""

    __slots__ = ("__weakref__", "begin", "of_task", "of_thread")

    def __init__(self, begin: Callable[[Any], None] | None) -> None:
        self.begin = begin
        self.of_thread = _OfThread()
        self.of_task: dict[int, dict[str, Any]] = {}

    def find(self) -> tuple[dict[str, Any], bool]:
        """The current task's or thread's namespace, and whether it is new."""
        task = here()
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


# By the id of a task. A task that lives long may see many `local` objects come and
# go: it is asked once to tell of its end, and the dead ones leave the set.
_used_by: dict[int, weakref.WeakSet[_Namespaces]] = {}


def _forget(task_id: int) -> None:
    for namespaces in _used_by.pop(task_id):
        namespaces.of_task.pop(task_id, None)


_own = object.__getattribute__
_MISSING = object()


def _namespace(owner: local) -> dict[str, Any]:
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


def _is_data(attribute: Any) -> bool:
    kind = type(attribute)
    return hasattr(kind, "__set__") or hasattr(kind, "__delete__")


class local:  # noqa: N801 - the name in the standard library
    """Attributes that each task, and each thread, has for itself.

    A subclass's `__init__` is called anew, with the arguments given once, where
    the object is first used; its `__slots__` are shared by all.
    """

    __slots__ = ("__weakref__", "_txgreenwsgi_namespaces")
    _txgreenwsgi_namespaces: _Namespaces

    def __new__(cls, /, *args: Any, **kwargs: Any) -> local:
        """A new object, its namespace begun where it was made."""
        begin: Callable[[Any], None] | None = None
        if cls.__init__ is not object.__init__:

            def begin(owner: Any) -> None:
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
        return _own(self, name)  # or its AttributeError

    def __setattr__(self, name: str, value: Any) -> None:
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
