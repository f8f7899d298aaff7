"""Locks, queues, sockets and thread-locals created before patching.

An original lock that is held during a wait blocks the reactor for ever, once a second
task needs it. If an original object is free and all references to it are known, each
reference is replaced by one to a green object. The remaining objects are reported.

It knows how the interpreter references objects. It must never know a library by name.
"""

from __future__ import annotations

import _socket
import gc
import queue
import socket
import sys
import threading
import weakref
from collections import defaultdict, deque
from dataclasses import dataclass, field
from types import (
    BuiltinMethodType,
    CellType,
    FrameType,
    FunctionType,
    MemberDescriptorType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, cast

from txgreenwsgi._parking.locks import Lock, RLock
from txgreenwsgi._parking.real_threads import real_local, real_lock, real_rlock
from txgreenwsgi._parking.task_local import local

from ._sockets import GreenSocket
from .queue import SimpleQueue
from .thread import allocate_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

__all__ = ["EarlyObject", "replace_early_objects"]

_LOCK, _RLOCK = type(real_lock()), type(real_rlock())
_QUEUE: type = queue.SimpleQueue
_Condition, _Thread = threading.Condition, threading.Thread
_Socket = socket.socket
_RESTORE = "_acquire_restore"

#: The number of references that are followed from an object to its name, and the number
#: of chains of them.
_MOST_STEPS, _MOST_CHAINS = 6, 100


@dataclass(frozen=True, order=True)
class EarlyObject:
    """An object that was created before patching and keeps blocking.

    Attributes:
        name: the name of the object, or of the attribute of its owner's class.
        kind: "Lock", "RLock", "SimpleQueue", "socket" or "local".
    """

    name: str
    kind: str


def _green_lock(original: Any) -> object | None:
    return None if original.locked() else allocate_lock()


def _green_rlock(original: Any) -> object | None:
    # The owner can acquire it again.
    if original._is_owned() or not original.acquire(False):
        return None
    original.release()
    return RLock()


def _green_queue(original: Any) -> object:
    green = SimpleQueue()
    while not original.empty():
        green.put(original.get_nowait())
    return green


def _green_local(original: Any) -> object | None:
    green = local()
    vars(green).update(vars(original))
    # Other threads have values of their own, which cannot be read here.
    threads = [
        len(each)
        for each in gc.get_referents(original)
        if isinstance(each, (dict, set)) and each is not vars(original)
    ]
    return None if max(threads, default=0) > 1 else green


def _green_socket(original: Any) -> object | None:
    if original.fileno() < 0:
        return None
    seconds, files = original.gettimeout(), original._io_refs
    is_closed = original._closed  # but not the files that were made of it
    green = GreenSocket(
        original.family, original.type, original.proto, original.detach()
    )
    green.settimeout(seconds)
    vars(_Socket)["_io_refs"].__set__(green, files)
    vars(_Socket)["_closed"].__set__(green, is_closed)
    return green


# The functions return a green object to use in place of an original one, or None if the
# original is in use.
_REPLACEMENTS: dict[type, Callable[[Any], object | None]] = {
    _LOCK: _green_lock,
    _RLOCK: _green_rlock,
    _QUEUE: _green_queue,
    real_local: _green_local,
    _Socket: _green_socket,
}


@dataclass
class _References:
    """The known references to an object.

    Attributes:
        replace: one function for each reference, which replaces it.
        methods: the bound methods of the object that exist.
        owners: the objects with an attribute that refers to it.
    """

    replace: list[Callable[[object], object]] = field(default_factory=list)
    methods: list[Any] = field(default_factory=list)
    owners: list[object] = field(default_factory=list)


def replace_early_objects(
    patched: AbstractSet[str], excluded: AbstractSet[str]
) -> list[EarlyObject]:
    """Replace original objects by green ones where possible. Never parks.

    Call from the main thread, outside tasks, after patching.

    Args:
        patched: the patched modules.
        excluded: the packages whose objects are neither replaced nor reported.

    Returns:
        The objects that were not replaced.
    """
    kinds: tuple[type, ...] = ()
    if "threading" in patched:
        kinds += (_LOCK, _RLOCK, real_local)
    if "queue" in patched:
        kinds += (_QUEUE,)
    if "socket" in patched:
        kinds += (_socket.socket,)
    if not kinds:
        return []
    gc.collect()
    remaining = _replace(kinds, excluded)
    return sorted(set(_named(remaining, excluded)))


class _Sample:
    """The owner of a lock with two known references: an attribute and a method."""

    def __init__(self) -> None:
        self.lock = real_lock()
        self.acquire = self.lock.acquire


def _replace(kinds: tuple[type, ...], excluded: AbstractSet[str]) -> list[object]:
    """Replace what can be replaced, and return the other objects."""
    # An event loop has registered its sockets with a selector.
    excluded = excluded | {"asyncio"}
    sample = _Sample()
    found, methods = _objects_of(kinds)
    references = _references_to(found, methods)
    # The references that this function and its callees hold.
    lock_surplus = sys.getrefcount(sample.lock) - 2
    method_surplus = sys.getrefcount(sample.acquire) - 1
    interval = sys.getswitchinterval()
    # Another thread must not run between the check of an object and its replacement.
    sys.setswitchinterval(5.0)
    try:
        remaining = [
            found[index]
            for index in range(len(found))
            if not (
                _is_known(found, index, references, lock_surplus, method_surplus)
                and not any(
                    isinstance(owner, (Lock, RLock)) or _is_of(owner, excluded)
                    for owner in references[id(found[index])].owners
                )
                and _replaced(found[index], references)
            )
        ]
    finally:
        sys.setswitchinterval(interval)
    return [each for each in remaining if each is not sample.lock]


def _is_known(
    found: list[object],
    index: int,
    references: dict[int, _References],
    surplus: int,
    method_surplus: int,
) -> bool:
    """Return whether an object has a replacement, and all its references are known.

    Args:
        found: the objects.
        index: the index of the object; a variable would be another reference.
        references: the known references.
        surplus: the number of references that belong to the search for references.
        method_surplus: the same for a bound method.
    """
    of_object = references[id(found[index])]
    methods = of_object.methods
    return (
        type(found[index]) in _REPLACEMENTS
        and sys.getrefcount(found[index])
        == len(of_object.replace) + len(methods) + surplus
        and all(
            sys.getrefcount(methods[number])
            == len(references[id(methods[number])].replace) + method_surplus
            for number in range(len(methods))
        )
        # A thread-local has a weak reference to itself.
        and weakref.getweakrefcount(found[index]) <= (type(found[index]) is real_local)
    )


def _replaced(original: object, references: dict[int, _References]) -> bool:
    """Replace all references, unless the object is in use. Return whether it was."""
    green: Any = _REPLACEMENTS[type(original)](original)
    if green is None:
        return False
    of_object = references[id(original)]
    for replace in of_object.replace:
        replace(green)
    for method in of_object.methods:
        for replace in references[id(method)].replace:
            replace(getattr(green, method.__name__))
    for owner in of_object.owners:
        if isinstance(owner, _Condition) and isinstance(green, Lock):
            # A condition created with a green lock uses its method.
            vars(owner)[_RESTORE] = getattr(green, _RESTORE)
    return True


def _objects_of(kinds: tuple[type, ...]) -> tuple[list[object], list[Any]]:
    """Return the objects of these kinds, and the bound methods that exist of them."""
    wanted: dict[type, bool] = {}
    found: list[object] = []
    methods: list[Any] = []
    for each in gc.get_objects():
        kind = type(each)
        if kind is BuiltinMethodType:
            if type(each.__self__) in _REPLACEMENTS:
                methods.append(each)
            continue
        if kind not in wanted:
            wanted[kind] = issubclass(kind, kinds) and not issubclass(kind, GreenSocket)
        if wanted[kind]:
            found.append(each)
    return found, methods


def _holders(ids: AbstractSet[int]) -> Iterator[object]:
    """Yield the objects that refer to one of those with these ids."""
    # Not gc.get_referrers, whose time is the product of the numbers of objects.
    for each in gc.get_objects():
        if not ids.isdisjoint(map(id, gc.get_referents(each))):
            yield each


def _references_to(found: list[object], methods: list[Any]) -> dict[int, _References]:
    """Return the references to each object, by its id; without those of the lists."""
    references = {id(target): _References() for target in (*found, *methods)}
    ignored = {id(found), id(methods)}
    dicts: dict[int, dict[Any, object]] = {}
    for holder in _holders(references.keys()):
        if id(holder) in ignored:
            continue
        if type(holder) is BuiltinMethodType:
            if id(holder.__self__) in references:
                references[id(holder.__self__)].methods.append(holder)
            continue
        if issubclass(type(holder), dict):
            dicts[id(holder)] = cast("dict[Any, object]", holder)
        for number, replace in _places(holder):
            if number in references:
                references[number].replace.append(replace)
                references[number].owners.append(holder)
    owners = _owners_of(dicts)
    for number, namespace in dicts.items():
        owner = owners.get(number)
        for key in [
            key for key, value in dict.items(namespace) if id(value) in references
        ]:
            of_object = references[id(dict.__getitem__(namespace, key))]
            of_object.replace.append(_setter(namespace, key, owner))
            of_object.owners.append(owner)
    return references


def _setter(
    namespace: dict[Any, object], key: Any, owner: object
) -> Callable[[object], object]:
    if isinstance(owner, type):
        # Writing to the dict would leave a stale entry in the type's cache.
        return lambda value: type.__setattr__(owner, key, value)
    return lambda value: dict.__setitem__(namespace, key, value)


def _slot_setter(slot: Any, holder: object) -> Callable[[object], object]:
    return lambda value: slot.__set__(holder, value)


def _item_setter(holder: Any, index: int) -> Callable[[object], object]:
    return lambda value: holder.__setitem__(index, value)


def _cell_setter(cell: CellType) -> Callable[[object], object]:
    return lambda value: setattr(cell, "cell_contents", value)


def _places(holder: Any) -> Iterator[tuple[int, Callable[[object], object]]]:
    """Yield the id of each object in an attribute or item, and a function to set it.

    Except for items of a dict, which may be the attributes of another object.
    """
    kind = type(holder)
    if kind in (list, deque):
        for index, value in enumerate(holder):
            yield id(value), _item_setter(holder, index)
        return
    if kind is CellType:
        yield id(holder.cell_contents), _cell_setter(holder)
        return
    if kind in _WITHOUT_ATTRIBUTES or issubclass(kind, (type, ModuleType)):
        return
    # Since Python 3.11, the values of attributes may be in the instance itself. They
    # move into the dict when it is read.
    refers_to = set(map(id, gc.get_referents(holder)))
    for slot in _slots_of(kind):
        try:
            yield id(slot.__get__(holder)), _slot_setter(slot, holder)
        except AttributeError:
            continue
    namespace = _dict_of(holder)
    if namespace is not None and id(namespace) not in refers_to:
        for key, value in namespace.items():
            yield id(value), _setter(namespace, key, holder)


# Types whose instances have no attributes, or in a dict that is another holder.
_WITHOUT_ATTRIBUTES = frozenset(
    (BuiltinMethodType, FrameType, FunctionType, dict, frozenset, set, tuple)
)


def _slots_of(kind: type) -> Iterator[Any]:
    for cls in kind.__mro__:
        if "__slots__" in vars(cls):
            for attribute in vars(cls).values():
                if type(attribute) is MemberDescriptorType:
                    yield attribute


def _dict_of(holder: object) -> dict[Any, object] | None:
    """Return the `__dict__` of an instance; None if it has none."""
    try:
        namespace = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return None
    return namespace if type(namespace) is dict else None


def _owners_of(dicts: Mapping[int, object]) -> dict[int, object]:
    """Return the modules, classes and instances whose attributes are in these dicts."""
    owners: dict[int, object] = {}
    for each in _holders(dicts.keys()) if dicts else ():
        kind = type(each)
        if kind in _WITHOUT_ATTRIBUTES or kind in (list, CellType):
            continue
        if issubclass(kind, type):
            (namespace,) = gc.get_referents(vars(cast("type", each)))
        else:
            namespace = _dict_of(each)
        if id(namespace) in dicts:
            owners[id(namespace)] = each
    return owners


# The names of the objects that remain.


def _package_of(owner: object) -> str:
    """Return the package that defines a module, class, function or instance."""
    if issubclass(type(owner), ModuleType):
        name: object = getattr(owner, "__name__", "")
    elif isinstance(owner, (type, FunctionType)):
        name = owner.__module__
    elif type(owner) is FrameType:
        name = owner.f_globals.get("__name__", "")
    else:
        name = type(owner).__module__
    return str(name).partition(".")[0]


def _is_of(owner: object, packages: AbstractSet[str]) -> bool:
    return _package_of(owner) in packages


# A type's label in reports. Sockets are instances of a subclass.
_LABELS: dict[type, str] = {
    _LOCK: "Lock",
    _RLOCK: "RLock",
    _QUEUE: "SimpleQueue",
    real_local: "local",
    _socket.socket: "socket",
}


def _label(each: object) -> str:
    return next(label for kind, label in _LABELS.items() if isinstance(each, kind))


def _named(remaining: list[object], excluded: AbstractSet[str]) -> list[EarlyObject]:
    """Return the objects with their names, without those that need the originals."""
    if not remaining:
        return []
    # The chains of references to each object; the holder comes last.
    chains: dict[int, list[list[object]]] = {
        index: [[each]] for index, each in enumerate(remaining)
    }
    named = []
    for _ in range(_MOST_STEPS):
        ends = {id(chain[-1]) for some in chains.values() for chain in some}
        holders: dict[int, list[object]] = defaultdict(list)
        own = {id(remaining), id(ends), id(holders)}
        for holder in _holders(ends):
            if id(holder) not in own and type(holder) is not FrameType:
                for end in ends.intersection(map(id, gc.get_referents(holder))):
                    holders[end].append(holder)
        for index in list(chains):
            longer, name = _follow(chains[index], holders, excluded)
            if name:
                named.append(EarlyObject(name, _label(remaining[index])))
            if name is not None or not longer:
                del chains[index]
            else:
                chains[index] = longer[:_MOST_CHAINS]
        if not chains:
            break
    return named


def _follow(
    chains: list[list[object]],
    holders: dict[int, list[object]],
    excluded: AbstractSet[str],
) -> tuple[list[list[object]], str | None]:
    """Return the chains with one more holder, and the name if one of them has it.

    The name is "" for an object that is not reported.
    """
    longer = []
    name: str | None = None
    for chain in chains:
        for holder in holders.get(id(chain[-1]), ()):
            kind = type(holder)
            if any(holder is link for link in chain):
                continue
            if issubclass(kind, (Lock, RLock, _Thread)):
                return [], ""
            if kind in _CONTAINERS:
                longer.append([*chain, holder])
            elif kind is FunctionType:
                # Any function refers to the dict of its module.
                if type(chain[-1]) is not dict:
                    function = cast("FunctionType", holder)
                    name = f"{function.__module__}.{function.__qualname__}.<locals>"
            elif _is_of(holder, excluded):
                return [], ""
            elif issubclass(kind, (ModuleType, type)):
                if _is_of(holder, sys.stdlib_module_names):
                    return [], ""
                name = _name_in(holder, chain)
            elif _is_of(holder, sys.stdlib_module_names):
                longer.append([*chain, holder])
            else:
                name = _name_in(holder, chain)
    return longer, name


_CONTAINERS = frozenset(
    (BuiltinMethodType, CellType, deque, dict, frozenset, list, set, tuple)
)


def _name_in(owner: Any, chain: list[object]) -> str:
    """Return the name of the attribute of `owner` that leads to the object."""
    # The last link may be the dict of the attributes.
    links = {id(link) for link in chain[-2:]}
    if issubclass(type(owner), ModuleType):
        prefix = str(getattr(owner, "__name__", "?"))
    elif issubclass(type(owner), type):
        prefix = f"{owner.__module__}.{owner.__qualname__}"
    else:
        prefix = f"{type(owner).__module__}.{type(owner).__qualname__}()"
    for number, attribute in _attributes_of(owner):
        if number in links:
            return f"{prefix}.{attribute}"
    return prefix


def _attributes_of(owner: object) -> Iterator[tuple[int, str]]:
    namespace = vars(owner) if isinstance(owner, type) else _dict_of(owner)
    for name, value in list((namespace or {}).items()):
        yield id(value), str(name)
    for slot in _slots_of(type(owner)):
        try:
            yield id(slot.__get__(owner)), slot.__name__
        except AttributeError:
            continue
