"""Copies of standard modules that run on replaced imports.

`threading`, for instance, is Python code on top of `_thread`. Its code, run on the
green `_thread`, is a green `threading`, complete in every version of Python, without
rewriting any of it. It knows modules. It must never park.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, ModuleType

__all__ = ["code_of", "rebased", "rebound", "run_again"]


def code_of(name: str) -> CodeType:
    """Return the code of the standard module `name`."""
    spec = find_spec(name)
    loader: Any = spec and spec.loader
    if loader is None:
        raise ImportError(f"the standard module {name!r} cannot be found")
    code: CodeType = loader.get_code(name)
    return code


def run_again(
    name: str, namespace: dict[str, Any], foundations: Mapping[str, ModuleType]
) -> None:
    """Run the code of the standard module `name` in `namespace`.

    Args:
        name: the name of a module written in Python.
        namespace: the dict of a module; its `__name__` is kept.
        foundations: the modules that the code imports, by name.
    """
    code = code_of(name)
    before = {other: sys.modules.get(other) for other in foundations}
    sys.modules.update(foundations)
    try:
        exec(code, namespace)
    finally:
        for other, module in before.items():
            if module is None:
                del sys.modules[other]
            else:
                sys.modules[other] = module


def rebound(
    function: FunctionType, namespace: dict[str, object], cell: CellType | None = None
) -> FunctionType:
    """Return a copy of `function` whose globals are `namespace`.

    Args:
        function: a function written in Python.
        namespace: the dict of a module.
        cell: the cell that `__class__` and `super()` without arguments refer to.
    """
    closure = function.__closure__
    if closure is not None and cell is not None:
        names = function.__code__.co_freevars
        closure = tuple(
            cell if name == "__class__" else old
            for name, old in zip(names, closure, strict=True)
        )
    copy = FunctionType(
        function.__code__,
        namespace,
        function.__name__,
        function.__defaults__,
        closure,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__doc__ = function.__doc__
    copy.__dict__.update(function.__dict__)
    return copy


def rebased(
    cls: type, bases: tuple[type, ...], namespace: dict[str, object], **more: object
) -> Any:
    """Return a copy of the class `cls` with other bases and globals.

    Args:
        cls: a class written in Python.
        bases: the bases of the copy.
        namespace: the globals of its methods.
        more: further class attributes.
    """
    cell = CellType()

    def copied(attribute: object) -> Any:
        if isinstance(attribute, FunctionType):
            return rebound(attribute, namespace, cell)
        if isinstance(attribute, (classmethod, staticmethod)):
            return type(attribute)(copied(attribute.__func__))
        if isinstance(attribute, property):
            return property(
                copied(attribute.fget),
                copied(attribute.fset),
                copied(attribute.fdel),
                attribute.__doc__,
            )
        return attribute

    body = {
        name: copied(attribute)
        for name, attribute in vars(cls).items()
        if name not in ("__dict__", "__weakref__")
    }
    body.update(more)
    new = type(cls)(cls.__name__, bases, body)
    new.__qualname__ = cls.__qualname__
    cell.cell_contents = new
    return new
