"""Checks that an object can be a WSGI application, before the first request.

It knows the signatures of WSGI (PEP 3333) and ASGI. It must never call an application.
"""

from __future__ import annotations

import functools
import inspect
import os
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gateway import Application

__all__ = [
    "ApplicationProblem",
    "checked_application",
    "find_problem",
    "import_folder",
    "is_path",
    "module_spec",
]

_SIGNATURE: Final = "(environ, start_response)"
_ASGI_PARAMETERS: Final = ["scope", "receive", "send"]


class ApplicationProblem(NamedTuple):
    """A reason why an object cannot be a WSGI application.

    Attributes:
        problem: the reason, as a clause that continues "the object ...".
        remedy: the correction, as an imperative.
        may_be_factory: a call of the object may return the application.
    """

    problem: str
    remedy: str
    may_be_factory: bool = False


def checked_application(application: object) -> Application:
    """Return `application` if it can be a WSGI application.

    A callable whose signature is unknown, such as some C functions, passes.

    Raises:
        TypeError: it cannot be called, is a class without iterable instances, is
            an ASGI application or takes other arguments. The message gives the
            value, the reason and the remedy.
    """
    found = find_problem(application)
    if found is not None:
        raise TypeError(
            f"application={application!r:.80} {found.problem}; {found.remedy}"
        )
    return cast("Application", application)


def find_problem(application: object) -> ApplicationProblem | None:
    """Return the reason why `application` cannot be one, None if it can."""
    if not callable(application):
        return _not_callable(application)
    if isinstance(application, type):
        # PEP 3333 allows a class: the server iterates over its instances.
        if not _makes_iterables(application):
            return ApplicationProblem(
                "is a class whose instances are not iterable",
                f"give an instance: {application.__name__}(...)",
                may_be_factory=True,
            )
    elif _is_asgi(application):
        return ApplicationProblem(
            "is an ASGI application (asynchronous), but this server speaks WSGI",
            "give a WSGI application, or an adapter such as "
            "a2wsgi.ASGIMiddleware(application)",
        )
    return _wrong_arguments(application)


def is_path(spec: str) -> bool:
    """Return whether a text gives a file in place of a module: "shop/wsgi.py:app"."""
    module = _split_spec(spec)[0]
    return "/" in module or os.sep in module or module.endswith(".py")


def module_spec(path: str) -> str:
    """Return "shop.wsgi:app" for "shop/wsgi.py:app".

    An absolute path gives the name within `import_folder(path)`.
    """
    folder = import_folder(path)
    path, colon, expression = _split_spec(path)
    if folder:
        path = os.path.relpath(path, folder)
    dotted = path.removesuffix(".py").replace(os.sep, "/").strip("./").replace("/", ".")
    return (dotted or "module") + colon + expression


def import_folder(path: str) -> str:
    """Return the folder of the outermost package of an absolute path, otherwise "".

    That folder has to be in Python's import path. It is the parent of the file if the
    file is in no package, or does not exist.
    """
    path = _split_spec(path)[0]
    if not os.path.isabs(path):
        return ""
    folder = os.path.dirname(os.path.normpath(path))
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder = os.path.dirname(folder)
    return folder


def _split_spec(spec: str) -> tuple[str, str, str]:
    """Split at the colon before the expression, not at the one after a drive."""
    drive, rest = os.path.splitdrive(spec)
    path, colon, expression = rest.partition(":")
    return drive + path, colon, expression


def _not_callable(application: object) -> ApplicationProblem:
    remedy = f"give a callable that takes {_SIGNATURE}"
    if isinstance(application, ModuleType):
        return ApplicationProblem(
            "is a module, not a callable",
            f"give the application in it, such as {application.__name__}.application",
        )
    if isinstance(application, os.PathLike) or (
        isinstance(application, str) and is_path(application)
    ):
        name = module_spec(os.fsdecode(application))
        return ApplicationProblem(
            "is a path, not a callable",
            f"{remedy}, or pass the name of its module to txgreenwsgi.service(), such "
            f"as {name!r}",
        )
    if isinstance(application, str):
        remedy += ", or pass the name to txgreenwsgi.service()"
    return ApplicationProblem(
        f"is of type {type(application).__name__}, which is not callable", remedy
    )


def _makes_iterables(cls: type) -> bool:
    """Return whether a call of `cls` may return an iterable."""
    return (
        hasattr(cls, "__iter__")
        or hasattr(cls, "__getitem__")
        # Either may return an object of any other type.
        or any("__new__" in vars(base) for base in cls.__mro__[:-1])
        or type(cls).__call__ is not type.__call__
    )


def _is_asgi(application: Callable[..., object]) -> bool:
    """Return whether it is asynchronous, or has the parameters of ASGI."""
    called: object = application
    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called):
        called = type(called).__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        return True
    signature = _signature_of(application)
    return signature is not None and list(signature.parameters) == _ASGI_PARAMETERS


def _wrong_arguments(application: Callable[..., object]) -> ApplicationProblem | None:
    signature = _signature_of(application)
    if signature is None:
        return None
    try:
        signature.bind({}, None)
    except TypeError:
        return ApplicationProblem(
            f"takes {signature}, but a WSGI application takes {_SIGNATURE}",
            "if it is a factory, give the application that it returns",
            may_be_factory=True,
        )
    return None


def _signature_of(application: Callable[..., object]) -> inspect.Signature | None:
    """Return the signature; None if it cannot be read.

    Returns the signature of a decorator's wrapper, not of the wrapped function: a
    decorator may turn any function into an application, and often copies the
    signature of that function.
    """
    try:
        return inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
