"""From what `--app` says to the application that is meant.

This file knows how Python finds modules and what a WSGI application looks
like. It must never call the application, and never take an error of the
user's own module for a wrong spelling: what is raised inside that module
leaves here as it is, with its own traceback.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType, TracebackType

    from _typeshed.wsgi import WSGIApplication


__all__ = ["AppNotFound", "find_app"]

#: The names that a module's application is looked for under.
DEFAULT_NAMES: Final = ("application", "app")


class AppNotFound(Exception):
    """There is no WSGI application where `--app` says.

    The message names what was asked for, what was found, and what to give
    instead.
    """


def find_app(spec: str) -> WSGIApplication:
    """Import the WSGI application that a text names.

    Args:
        spec: "package.module:name", "package.module:object.attribute",
            "package.module:factory()" or "package.module:factory('text', n=1)"
            (arguments are literals), "package.module.name", or
            "package.module" alone for the `application` or `app` in it.

    Raises:
        AppNotFound: nothing is there, or it cannot be a WSGI application.
        Exception: whatever the user's module or factory raises, untouched.
    """
    module_name, colon, expression = spec.partition(":")
    _check_module_name(spec, module_name)
    if colon:
        module = _import(spec, module_name)
        found = _evaluate(spec, module, expression)
    else:
        module, attributes = _import_longest(spec, module_name)
        expression = ".".join(attributes) or _default_name(spec, module)
        found = _attribute(spec, module, expression.split("."))
    _check_app(spec, found, f"--app '{module.__name__}:{expression}()'")
    return cast("WSGIApplication", found)


def _check_module_name(spec: str, module_name: str) -> None:
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(
            f"--app {spec!r}: {module_name!r} is a file; give the module's name, "
            f"as Python imports it: --app {dotted or 'module'}:app, with --chdir if it "
            "is in another directory"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise AppNotFound(
            f"--app {spec!r}: {module_name!r} is not the name of a module; give "
            "package.module:name, for instance --app myproject.wsgi:application"
        )


def _import(spec: str, name: str) -> ModuleType:
    """The module of that name, or `AppNotFound` if there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_about(error, name):
            raise
        raise AppNotFound(f"--app {spec!r}: {_missing(error)}") from None
    except SystemExit as error:
        raise AppNotFound(
            f"--app {spec!r}: module {name} ends the program while it is imported "
            f"(SystemExit: {error.code}); put what it runs under "
            "`if __name__ == '__main__':`"
        ) from error


def _import_longest(spec: str, dotted: str) -> tuple[ModuleType, list[str]]:
    """The module at the beginning of a dotted name, and the names after it."""
    try:
        return _import(spec, dotted), []
    except AppNotFound as error:
        shorter, _, name = dotted.rpartition(".")
        if not shorter or error.__cause__ is not None:
            raise
    module, attributes = _import_longest(spec, shorter)
    return module, [*attributes, name]


def _is_about(error: ModuleNotFoundError, name: str) -> bool:
    """Is the module itself missing, rather than one that it imports?"""
    if error.name is None or not f"{name}.".startswith(f"{error.name}."):
        return False
    # A package's own code may fail to import the very module that was asked
    # for: then its frames are on the way, and its traceback is what helps.
    return not any(
        file not in (__file__, importlib.__file__)
        and not file.startswith("<frozen importlib")
        for file in _files(error.__traceback__)
    )


def _files(traceback: TracebackType | None) -> Iterable[str]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next


def _missing(error: ModuleNotFoundError) -> str:
    """What is missing, and what there is instead."""
    missing = error.name or ""
    parent, _, last = missing.rpartition(".")
    if not parent:
        # Of all the places looked at, the first is the one that was meant.
        there = {module.name for module in pkgutil.iter_modules(sys.path[:1])}
        where = f"looked in {sys.path[0] or os.getcwd()} first"
        remedy = "; is --chdir needed?"
    else:
        package = sys.modules[parent]
        if not hasattr(package, "__path__"):
            return f"there is no module {missing}: {parent} is a module, not a package"
        there = {module.name for module in pkgutil.iter_modules(package.__path__)}
        where = f"package {parent} is in {', '.join(package.__path__)}"
        remedy = ""
    return f"there is no module {missing} ({where}){_nearest(last, there)}{remedy}"


def _nearest(name: str, there: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(there), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _evaluate(spec: str, module: ModuleType, expression: str) -> Any:
    """What an expression such as `app`, `site.app` or `make()` stands for."""
    try:
        node = ast.parse(expression, mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        attributes = _names(call.func if call else node)
        args = [ast.literal_eval(arg) for arg in call.args] if call else []
        keywords = {
            key.arg: ast.literal_eval(key.value)
            for key in (call.keywords if call else [])
            if key.arg is not None
        }
        if call and len(keywords) < len(call.keywords):
            raise ValueError("** in a call")
    except (SyntaxError, ValueError):
        raise AppNotFound(
            f"--app {spec!r}: {expression!r} after the colon is neither a name nor a "
            "call of one with literal arguments; give name, object.attribute, "
            "factory() or factory('text', debug=True)"
        ) from None
    found = _attribute(spec, module, attributes)
    if call is None:
        return found
    if not callable(found):
        raise AppNotFound(
            f"--app {spec!r}: {'.'.join(attributes)} cannot be called, it is "
            f"{_what(found)}; leave the parentheses out"
        )
    try:
        signature = inspect.signature(found)
    except ValueError:  # some builtins have none
        signature = None
    if signature is not None:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            raise AppNotFound(
                f"--app {spec!r}: {'.'.join(attributes)} cannot be called so "
                f"({error}); it takes {signature}"
            ) from None
    return found(*args, **keywords)


def _names(node: ast.expr) -> list[str]:
    """["a", "b"] of the expression `a.b`."""
    if isinstance(node, ast.Attribute):
        return [*_names(node.value), node.attr]
    if isinstance(node, ast.Name):
        return [node.id]
    raise ValueError("not a name")


def _attribute(spec: str, module: ModuleType, names: list[str]) -> Any:
    """`module.a.b`, or `AppNotFound` naming what is there instead."""
    found: Any = module
    path = f"module {module.__name__}"
    for name in names:
        # Not getattr(..., default): a property or a module's __getattr__ that
        # fails inside is the user's error, and is to be seen as such.
        try:
            found = getattr(found, name)
        except AttributeError as error:
            # The names that `getattr` gives an error of its own (Python 3.10).
            if error.obj is not found or error.name != name:
                raise
            raise AppNotFound(
                f"--app {spec!r}: {path} has no {name}"
                + (_nearest(name, dir(found)) or _candidates(found))
            ) from None
        path = f"{name} of {path}"
    return found


def _default_name(spec: str, module: ModuleType) -> str:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            return name
    raise AppNotFound(
        f"--app {spec!r}: module {module.__name__} has neither "
        f"{' nor '.join(DEFAULT_NAMES)}{_candidates(module)}; say which name is meant: "
        f"--app {module.__name__}:NAME"
    )


def _candidates(owner: object) -> str:
    """What in there may be meant: callables that were not imported."""
    origin = getattr(owner, "__name__", None)
    names = [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", origin) == origin
    ]
    return f"; it has {', '.join(sorted(names)[:8])}" if names else ""


def _what(found: object) -> str:
    if inspect.ismodule(found):
        return f"the module {found.__name__}"
    return f"{found!r:.60} of type {type(found).__name__}"


def _check_app(spec: str, found: Any, call_it: str) -> None:
    """Refuse what cannot be a WSGI application, and say what it is instead."""
    if not callable(found):
        raise AppNotFound(
            f"--app {spec!r}: that is {_what(found)}, which cannot be called; a WSGI "
            "application is a callable that takes environ and start_response"
        )
    if inspect.isclass(found):
        # PEP 3333 allows a class: its instances are what is iterated over.
        if not hasattr(found, "__iter__"):
            raise AppNotFound(
                f"--app {spec!r}: that is the class {found.__name__}; an instance of "
                f"it is meant, perhaps: {call_it}"
            )
        call: Any = found
    else:
        call = found if inspect.isroutine(found) else type(found).__call__
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise AppNotFound(
            f"--app {spec!r}: that is asynchronous, an ASGI application perhaps, and "
            "this server speaks WSGI; give a WSGI application, or wrap this one by an "
            "adapter from ASGI to WSGI"
        )
    try:
        # Without what it wraps: a decorator may turn any function into an
        # application, and often copies that function's signature.
        signature = inspect.signature(found, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # a callable of C's that does not tell
    try:
        signature.bind({}, None)
    except TypeError:
        raise AppNotFound(
            f"--app {spec!r}: that takes {signature}, while a WSGI application takes "
            "(environ, start_response); if it makes an application, call it: "
            f"{call_it}"
        ) from None
