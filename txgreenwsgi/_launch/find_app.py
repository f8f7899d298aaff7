"""Import of the WSGI application by its name, such as "package.module:name".

It knows Python's import system. It must never call the application, and never
report an error in the user's module as a misspelled name: an exception raised inside
that module propagates unchanged, with its own traceback.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from txgreenwsgi._server.errors import StartError
from txgreenwsgi._wsgi.application_check import (
    find_problem,
    import_folder,
    is_path,
    module_spec,
)

from .paste_config import ConfigProblem, is_config, is_config_file, load_config_app

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType, TracebackType

    from txgreenwsgi._wsgi.gateway import Application


__all__ = ["AppNotFound", "check_spec", "find_app"]

#: The names tried when the text names a module only.
DEFAULT_NAMES: Final = ("application", "app")


class AppNotFound(StartError):
    """The named WSGI application does not exist.

    The message gives the text, what was found in its place, and the remedy.
    """


class _Spec(NamedTuple):
    """The name of an application, and the option that it was given for.

    Attributes:
        text: the text.
        option: "--app" on a command line, otherwise the name of an argument.
    """

    text: str
    option: str

    @property
    def is_command_line(self) -> bool:
        return self.option.startswith("--")

    @property
    def subject(self) -> str:
        """The option with its value, as the beginning of a message."""
        if self.is_command_line:
            return f"{self.option} {self.text!r}"
        return f"{self.option}={self.text!r}"

    def instead(self, text: str) -> str:
        """The option with another value, as a remedy."""
        if not self.is_command_line:
            return f"{self.option}={text!r}"
        return f"{self.option} {text!r}" if "(" in text else f"{self.option} {text}"

    @property
    def path_remedy(self) -> str:
        """The remedy for modules in another directory."""
        if self.is_command_line:
            return "give --chdir if it is in another directory"
        return "add its directory to PYTHONPATH or sys.path if it is in another one"

    def error(self, problem: str) -> AppNotFound:
        return AppNotFound(f"{self.subject}: {problem}")


def find_app(text: str, option: str = "--app") -> Application:
    """Import and return the WSGI application that `text` names.

    Args:
        text: "package.module:name", "package.module:object.attribute",
            "package.module:factory()" or "package.module:factory('text', n=1)"
            (arguments are literals), "package.module.name", or
            "package.module" alone for the `application` or `app` in it;
            "config:FILE#NAME" or "config:FILE" for an application in a paste.deploy
            file.
        option: the option or argument that messages name.

    Raises:
        AppNotFound: the name does not exist, or is not a WSGI application.
        Exception: any exception of the user's module or factory, unchanged.
    """
    spec = _Spec(text, option)
    if is_config(text):
        return _find_in_config(spec)
    module_name, colon, expression = text.partition(":")
    _check_module_name(spec)
    if colon:
        module = _import(spec, module_name)
        found = _evaluate(spec, module, expression)
    else:
        module, attributes = _import_longest(spec, module_name)
        expression = ".".join(attributes) or _default_name(spec, module)
        found = _attribute(spec, module, expression.split("."))
    problem = find_problem(found)
    if problem is not None:
        remedy = problem.remedy
        if problem.may_be_factory:
            call = spec.instead(f"{module.__name__}:{expression}()")
            remedy = f"if calling it returns the application, give {call}"
        raise spec.error(f"{_describe(found)} {problem.problem}; {remedy}")
    return cast("Application", found)


def check_spec(text: str, option: str = "--app") -> None:
    """Reject a text that cannot name an application, without importing anything.

    Raises:
        AppNotFound: the part before the colon is not a module name.
    """
    if not is_config(text):
        _check_module_name(_Spec(text, option))


def _find_in_config(spec: _Spec) -> Application:
    """Return the application in a paste.deploy file."""
    try:
        found = load_config_app(spec.text)
    except ConfigProblem as problem:
        raise spec.error(str(problem)) from problem.__cause__
    problem_found = find_problem(found)
    if problem_found is not None:
        raise spec.error(
            f"{_describe(found)} {problem_found.problem}; {problem_found.remedy}"
        )
    return cast("Application", found)


def _check_module_name(spec: _Spec) -> None:
    module_name = spec.text.partition(":")[0]
    if is_config_file(spec.text):
        raise spec.error(
            f"{spec.text!r} is a file name; if it is a paste.deploy file, give "
            f"{spec.instead('config:' + spec.text)}"
        )
    if is_path(spec.text):
        remedy = spec.instead(module_spec(spec.text))
        folder = import_folder(spec.text)
        if not folder:
            remedy += f"; {spec.path_remedy}"
        elif spec.is_command_line:
            remedy = f"--chdir {folder} {remedy}"
        else:
            remedy += f", with {folder} in PYTHONPATH or sys.path"
        raise spec.error(
            f"{module_name!r} is a file name; give the module name, as Python imports "
            f"it: {remedy}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise spec.error(
            f"{module_name!r} is not a module name; give package.module:name, such as "
            f"{spec.instead('myproject.wsgi:application')}"
        )


def _import(spec: _Spec, name: str) -> ModuleType:
    """Return the module `name`.

    Raises:
        AppNotFound: it does not exist.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_about(error, name):
            raise
        raise spec.error(_describe_missing(spec, error)) from None
    except SystemExit as error:
        raise spec.error(
            f"importing module {name} ends the program (SystemExit: {error.code}); "
            "put the code that does so under `if __name__ == '__main__':`"
        ) from error


def _import_longest(spec: _Spec, dotted: str) -> tuple[ModuleType, list[str]]:
    """Return the longest importable prefix of a dotted name, and the names after it."""
    try:
        return _import(spec, dotted), []
    except AppNotFound as error:
        shorter, _, name = dotted.rpartition(".")
        if not shorter or error.__cause__ is not None:
            raise
    module, attributes = _import_longest(spec, shorter)
    return module, [*attributes, name]


def _is_about(error: ModuleNotFoundError, name: str) -> bool:
    """Return whether module `name` itself is missing, not a module that it imports."""
    if error.name is None or not f"{name}.".startswith(f"{error.name}."):
        return False
    # The code of a package may fail to import the named module itself. Then its
    # frames are in the traceback, and the traceback is the useful message.
    return not any(
        file not in (__file__, importlib.__file__)
        and not file.startswith("<frozen importlib")
        for file in _files(error.__traceback__)
    )


def _files(traceback: TracebackType | None) -> Iterable[str]:
    """Yield the source file of each frame."""
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next


def _describe_missing(spec: _Spec, error: ModuleNotFoundError) -> str:
    """Return a message with the missing module and similar names that exist."""
    missing = error.name or ""
    parent, _, last = missing.rpartition(".")
    if not parent:
        # The user most likely means the first directory of sys.path.
        existing = {module.name for module in pkgutil.iter_modules(sys.path[:1])}
        where = f"looked in {sys.path[0] or os.getcwd()} first"
        remedy = f"; {spec.path_remedy}"
    else:
        package = sys.modules[parent]
        if not hasattr(package, "__path__"):
            return f"there is no module {missing}: {parent} is a module, not a package"
        existing = {module.name for module in pkgutil.iter_modules(package.__path__)}
        where = f"package {parent} is in {', '.join(package.__path__)}"
        remedy = ""
    return f"there is no module {missing} ({where}){_nearest(last, existing)}{remedy}"


def _nearest(name: str, existing: Iterable[str]) -> str:
    """Return a hint with the names most similar to `name`; "" if there are none."""
    near = difflib.get_close_matches(name, list(existing), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _evaluate(spec: _Spec, module: ModuleType, expression: str) -> Any:
    """Return the value of an expression such as `app`, `site.app` or `make()`."""
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
        raise spec.error(
            f"{expression!r} after the colon is neither a name nor a call with literal "
            "arguments; give name, object.attribute, factory() or "
            "factory('text', debug=True)"
        ) from None
    found = _attribute(spec, module, attributes)
    if call is None:
        return found
    if not callable(found):
        raise spec.error(
            f"{'.'.join(attributes)} is {_describe(found)} of type "
            f"{type(found).__name__}, which is not callable; leave out the parentheses"
        )
    try:
        signature = inspect.signature(found)
    except ValueError:  # some builtins have none
        signature = None
    if signature is not None:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            raise spec.error(
                f"{'.'.join(attributes)} takes {signature}, which does not match this "
                f"call ({error}); change the arguments"
            ) from None
    return found(*args, **keywords)


def _names(node: ast.expr) -> list[str]:
    """Return ["a", "b"] for the expression `a.b`."""
    if isinstance(node, ast.Attribute):
        return [*_names(node.value), node.attr]
    if isinstance(node, ast.Name):
        return [node.id]
    raise ValueError("not a name")


def _attribute(spec: _Spec, module: ModuleType, names: list[str]) -> Any:
    """Return `module.a.b`.

    Raises:
        AppNotFound: there is no such attribute. The message gives similar ones.
    """
    found: Any = module
    path = f"module {module.__name__}"
    for name in names:
        # Not getattr(..., default): an exception inside a property or a module's
        # __getattr__ is an error in the user's code, and must propagate.
        try:
            found = getattr(found, name)
        except AttributeError as error:
            # `getattr` itself sets these two attributes (Python 3.10).
            if error.obj is not found or error.name != name:
                raise
            raise spec.error(
                f"{path} has no {name}"
                + (_nearest(name, dir(found)) or _candidates(found))
            ) from None
        path = f"{name} of {path}"
    return found


def _default_name(spec: _Spec, module: ModuleType) -> str:
    """Return the first of `DEFAULT_NAMES` that the module has."""
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            return name
    raise spec.error(
        f"module {module.__name__} has neither "
        f"{' nor '.join(DEFAULT_NAMES)}{_candidates(module)}; name the application: "
        f"{spec.instead(module.__name__ + ':NAME')}"
    )


def _candidates(owner: object) -> str:
    """Return a hint with the callables that `owner` defines; "" if there are none."""
    origin = getattr(owner, "__name__", None)
    names = [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", origin) == origin
    ]
    return f"; it has {', '.join(sorted(names)[:8])}" if names else ""


def _describe(found: object) -> str:
    """Return a short description of an object, for a message."""
    if inspect.ismodule(found):
        return found.__name__
    if inspect.isclass(found) or inspect.isfunction(found):
        return found.__qualname__
    return f"{found!r:.60}"
