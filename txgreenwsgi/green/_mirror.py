"""A standard module run once more, on other foundations.

`threading`, for instance, is Python code on top of `_thread`. Run on the green
`_thread` it is a green `threading`, complete in every version of Python, and
nothing of it need be written again. It knows modules. It must never wait.
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
    """The code of the standard module `name`."""
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
        name: of a module that is Python code.
        namespace: a module's dict; its `__name__` is kept.
        foundations: what the code's own imports find under these names.
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
    function: FunctionType, namespace: dict[str, Any], cell: CellType | None = None
) -> FunctionType:
    """The same function, its globals looked up in `namespace`.

    Args:
        function: a function written in Python.
        namespace: a module's dict.
        cell: what `super()` without arguments, and `__class__`, are to find.
    """
    closure = function.__closure__
    if closure is not None and cell is not None:
        names = function.__code__.co_freevars
        closure = tuple(
            cell if name == "__class__" else old
            for name, old in zip(names, closure, strict=True)
        )
    again = FunctionType(
        function.__code__,
        namespace,
        function.__name__,
        function.__defaults__,
        closure,
    )
    again.__kwdefaults__ = function.__kwdefaults__
    again.__qualname__ = function.__qualname__
    again.__doc__ = function.__doc__
    again.__dict__.update(function.__dict__)
    return again


def rebased(
    cls: type, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any
) -> Any:
    """The class `cls` once more, on other bases and in another module.

    Args:
        cls: a class written in Python.
        bases: instead of its own.
        namespace: where its methods look up globals.
        more: further attributes of the class.
    """
    cell = CellType()

    def again(attribute: Any) -> Any:
        if isinstance(attribute, FunctionType):
            return rebound(attribute, namespace, cell)
        if isinstance(attribute, (classmethod, staticmethod)):
            return type(attribute)(again(attribute.__func__))
        if isinstance(attribute, property):
            return property(
                again(attribute.fget),
                again(attribute.fset),
                again(attribute.fdel),
                attribute.__doc__,
            )
        return attribute

    body = {
        name: again(attribute)
        for name, attribute in vars(cls).items()
        if name not in ("__dict__", "__weakref__")
    }
    body.update(more)
    new = type(cls)(cls.__name__, bases, body)
    new.__qualname__ = cls.__qualname__
    cell.cell_contents = new
    return new
