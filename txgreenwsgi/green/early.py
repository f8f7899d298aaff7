"""Locks, queues, sockets, selectors and thread-locals created before patching.

An original lock that is held during a wait blocks the reactor for ever, once a second
task needs it. If an original object is free and all references to it are known, each
reference is replaced by one to a green object. The remaining objects are reported.

It knows how the interpreter references objects. It must never know a library by name.
"""

from __future__ import annotations

import _socket
import gc
import queue
import select
import selectors
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

from . import select as green_select
from ._sockets import GreenSocket
from .queue import SimpleQueue
from .thread import allocate_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
        methods: the indexes of the bound methods of the object that exist.
        tuples: the index of a tuple for each reference in one.
        owners: the objects with an attribute that refers to it.
    """

    replace: list[Callable[[object], object]] = field(default_factory=list)
    methods: list[int] = field(default_factory=list)
    tuples: list[int] = field(default_factory=list)
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
    if "selectors" in patched:
        _replace_selectors()
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
    remaining = _Search(kinds, excluded).replace()
    return sorted(set(_named(remaining, excluded)))


def _replace_selectors() -> None:
    """Let the selectors that exist, such as those of event loops, park tasks."""
    reactor = sys.modules.get("twisted.internet.reactor")
    loop: object = getattr(reactor, "_asyncioEventloop", None)
    for each in gc.get_objects():
        if type(each) not in _POLLING:
            continue
        keys = each.get_map()
        # None if it is closed. The reactor's own never has to park.
        if keys is None or each is getattr(loop, _SELECTOR, None):
            continue
        green = _POLLING[type(each)]()
        for key in keys.values():
            bits = select.POLLIN if key.events & selectors.EVENT_READ else 0
            bits |= select.POLLOUT if key.events & selectors.EVENT_WRITE else 0
            green.register(key.fd, bits)
        setattr(each, _SELECTOR, green)


# The selectors whose instances have a poll object, and its green class.
_POLLING: dict[type, Callable[[], Any]] = {
    getattr(selectors, name): getattr(green_select, polling)
    for name, polling in (("PollSelector", "poll"), ("EpollSelector", "epoll"))
    if hasattr(selectors, name)
}
_SELECTOR = "_selector"


class _Sample:
    """The owner of a lock with three known references, one of them in a tuple."""

    def __init__(self) -> None:
        self.lock = real_lock()
        self.acquire = self.lock.acquire
        self.items = (self.lock,)


class _Search:
    """The objects of some types, and the references to them.

    An object's references are all known if their number is the object's reference
    count. This search has references too: a sample tells how many. Objects are
    passed by their index, as a variable would be another reference.

    Args:
        kinds: the types.
        excluded: the packages whose objects are not replaced.
    """

    def __init__(self, kinds: tuple[type, ...], excluded: AbstractSet[str]) -> None:
        # An event loop has registered its sockets with a selector.
        self._excluded = excluded | {"asyncio"}
        sample = _Sample()
        self._found, self._methods = _objects_of(kinds)
        self._tuples: list[tuple[object, ...]] = []
        self._references = _references_to(self._found, self._methods, self._tuples)
        of_tuples = _references_to(self._tuples, [], [])
        self._of_tuples = [of_tuples[id(each)] for each in self._tuples]
        for index, items in enumerate(self._tuples):
            for number in map(id, items):
                if number in self._references:
                    self._references[number].tuples.append(index)
        self._sample = sample
        self._surplus = sys.getrefcount(sample.lock) - 3
        self._method_surplus = sys.getrefcount(sample.acquire) - 1
        self._tuple_surplus = sys.getrefcount(sample.items) - 1

    def replace(self) -> list[object]:
        """Replace the objects that can be replaced, and return the others."""
        original = self._sample.lock
        interval = sys.getswitchinterval()
        # Another thread must not run between the check of an object and its
        # replacement.
        sys.setswitchinterval(5.0)
        try:
            remaining = [
                self._found[index]
                for index in range(len(self._found))
                if self._found[index] is not original
                and not (self._is_known(index) and self._is_replaced(index))
            ]
        finally:
            sys.setswitchinterval(interval)
        return remaining

    def _is_known(self, index: int) -> bool:
        """Return whether an object can be replaced if it is not in use."""
        known = self._references[id(self._found[index])]
        return (
            type(self._found[index]) in _REPLACEMENTS
            and sys.getrefcount(self._found[index])
            == len(known.replace)
            + len(known.methods)
            + len(known.tuples)
            + self._surplus
            and all(map(self._is_known_method, known.methods))
            and all(map(self._is_known_tuple, known.tuples))
            # A thread-local has a weak reference to itself.
            and weakref.getweakrefcount(self._found[index])
            <= (type(self._found[index]) is real_local)
            and not any(map(self._keeps_original, known.owners))
        )

    def _is_known_method(self, index: int) -> bool:
        known = self._references[id(self._methods[index])].replace
        count = sys.getrefcount(self._methods[index])
        return count == len(known) + self._method_surplus

    def _is_known_tuple(self, index: int) -> bool:
        known = self._of_tuples[index]
        return (
            sys.getrefcount(self._tuples[index])
            == len(known.replace) + self._tuple_surplus
            # Other subclasses of tuple may have attributes.
            and (
                type(self._tuples[index]) is tuple
                or "_fields" in vars(type(self._tuples[index]))
            )
            and _dict_of(self._tuples[index]) is None
            and not any(map(self._keeps_original, known.owners))
        )

    def _keeps_original(self, owner: object) -> bool:
        return issubclass(type(owner), (Lock, RLock)) or _is_of(owner, self._excluded)

    def _is_replaced(self, index: int) -> bool:
        """Replace all references to an object; return False if it is in use."""
        original = self._found[index]
        green: Any = _REPLACEMENTS[type(original)](original)
        if green is None:
            return False
        known = self._references[id(original)]
        for replace in known.replace:
            replace(green)
        for method in (self._methods[number] for number in known.methods):
            for replace in self._references[id(method)].replace:
                replace(getattr(green, method.__name__))
        for number in set(known.tuples):
            items = self._tuples[number]
            self._tuples[number] = tuple.__new__(
                type(items), [green if each is original else each for each in items]
            )
            for replace in self._of_tuples[number].replace:
                replace(self._tuples[number])
        for owner in known.owners:
            if issubclass(type(owner), _Condition) and isinstance(green, Lock):
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


# gc.get_referrers compares each reference with each of its arguments, in C.
_FEW = 150


def _holders(objects: Mapping[int, object]) -> Iterator[object]:
    """Yield the objects that refer to one of these, which are given by their ids."""
    few = tuple(objects.values())
    if len(few) <= _FEW:
        for each in gc.get_referrers(*few):
            if each is not few and each is not objects:
                yield each
        return
    del few
    ids = objects.keys()
    for each in gc.get_objects():
        if each is not objects and not ids.isdisjoint(map(id, gc.get_referents(each))):
            yield each


def _references_to(
    found: Sequence[object], methods: list[Any], tuples: list[tuple[object, ...]]
) -> dict[int, _References]:
    """Return the references to each object and method, by its id.

    Args:
        found: the objects. The references of these lists do not count.
        methods: bound methods of the objects.
        tuples: the tuples that refer to objects are added here.
    """
    references = {id(target): _References() for target in found}
    references.update({id(method): _References() for method in methods})
    for index, method in enumerate(methods):
        if id(method.__self__) in references:
            references[id(method.__self__)].methods.append(index)
    ignored = {id(found), id(methods), id(tuples)}
    dicts: dict[int, dict[Any, object]] = {}
    for holder in _holders({id(each): each for each in (*found, *methods)}):
        if id(holder) in ignored:
            continue
        if issubclass(type(holder), dict):
            dicts[id(holder)] = cast("dict[Any, object]", holder)
        elif issubclass(type(holder), tuple):
            tuples.append(cast("tuple[object, ...]", holder))
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
            known = references[id(dict.__getitem__(namespace, key))]
            known.replace.append(_setter(namespace, key, owner))
            known.owners.append(owner)
    return references


def _setter(
    namespace: dict[Any, object], key: Any, owner: object
) -> Callable[[object], object]:
    if issubclass(type(owner), type):
        # Writing to the dict would leave a stale entry in the type's cache.
        return lambda value: type.__setattr__(owner, key, value)
    return lambda value: dict.__setitem__(namespace, key, value)


def _slot_setter(slot: Any, holder: object) -> Callable[[object], object]:
    return lambda value: slot.__set__(holder, value)


def _item_setter(holder: Any, index: int) -> Callable[[object], object]:
    return lambda value: holder.__setitem__(index, value)


def _cell_setter(cell: CellType) -> Callable[[object], object]:
    return lambda value: setattr(cell, "cell_contents", value)


def _defaults_setter(function: FunctionType) -> Callable[[object], object]:
    return lambda value: setattr(function, "__defaults__", value)


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
    if kind is FunctionType:
        yield id(holder.__defaults__), _defaults_setter(holder)
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
    for each in _holders(dicts):
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
    elif issubclass(type(owner), (type, FunctionType)):
        name = cast("type", owner).__module__
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
    return next(
        label for kind, label in _LABELS.items() if issubclass(type(each), kind)
    )


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
        ends = {id(chain[-1]): chain[-1] for some in chains.values() for chain in some}
        holders: dict[int, list[object]] = defaultdict(list)
        own = {id(remaining), id(holders)}
        for holder in _holders(ends):
            if id(holder) not in own and type(holder) is not FrameType:
                for end in ends.keys() & map(id, gc.get_referents(holder)):
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
    is_class = issubclass(type(owner), type)
    namespace = vars(cast("type", owner)) if is_class else _dict_of(owner)
    for name, value in list((namespace or {}).items()):
        yield id(value), str(name)
    for slot in _slots_of(type(owner)):
        try:
            yield id(slot.__get__(owner)), slot.__name__
        except AttributeError:
            continue
