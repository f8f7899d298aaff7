"""The files that a process has loaded: those of its modules, and templates.

It knows Python's import system, and the frameworks' template directories by duck
typing. It must never import anything.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["error_files", "module_files", "module_patterns", "template_patterns"]

_TEMPLATES: Final = ("*.html", "*.htm", "*.txt", "*.xml", "*.j2", "*.jinja", "*.jinja2")


def _standard_library() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths["stdlib"], paths["platstdlib"]}
    found |= {os.path.realpath(path) for path in found}
    return tuple(path + os.sep for path in found)


def _third_party() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["purelib"] + os.sep, paths["platlib"] + os.sep})


def module_files() -> set[str]:
    """Return the absolute paths of the files of all modules, without Python's own."""
    library, third_party = _standard_library(), _third_party()
    return {
        path
        for path in map(os.path.abspath, _loaded())
        if not path.startswith(library) or path.startswith(third_party)
    }


def _loaded() -> Iterator[str]:
    for module in list(sys.modules.values()):
        # Not getattr: the attribute of a lazy module may import.
        path = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(path, str) and not path.endswith(".pyc"):
            yield path


def error_files(error: BaseException) -> set[str]:
    """Return the files in the traceback of an error and of those that led to it."""
    found: set[str] = set()
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        pending += [one.__cause__, one.__context__]
        found.update(
            frame.filename for frame in traceback.extract_tb(one.__traceback__)
        )
        if isinstance(one, SyntaxError) and one.filename:
            found.add(one.filename)
    library, third_party = _standard_library(), _third_party()
    return {
        path
        for path in map(os.path.abspath, found)
        if os.path.isfile(path)
        and (not path.startswith(library) or path.startswith(third_party))
    }


def module_patterns(files: Iterable[str]) -> set[str]:
    """Return patterns for modules that do not exist yet, but may be imported.

    Args:
        files: the files of the application that were loaded.
    """
    third_party = _third_party()
    library = _standard_library()
    directories = {os.path.dirname(path) for path in files}
    directories |= {os.path.abspath(path or os.curdir) for path in sys.path}
    return {
        os.path.join(_escaped(directory), name)
        for directory in directories
        if not (directory + os.sep).startswith(library + third_party)
        and os.path.isdir(directory)
        for name in ("*.py", os.path.join("*", "__init__.py"))
    }


def template_patterns(application: object) -> set[str]:
    """Return patterns for the templates of a Django project or a Flask application.

    Args:
        application: the WSGI application.
    """
    directories: set[str] = set()
    loader: Any = getattr(application, "jinja_loader", None)
    for path in getattr(loader, "searchpath", ()):
        directories.add(os.fspath(path))
    django: Any = sys.modules.get("django.template")
    conf: Any = sys.modules.get("django.conf")
    if django is not None and conf is not None and conf.settings.configured:
        for engine in django.engines.all():
            directories.update(map(str, engine.template_dirs))
    third_party = _third_party()
    return {
        os.path.join(_escaped(os.path.abspath(directory)), "**", name)
        for directory in directories
        if not os.path.abspath(directory).startswith(third_party)
        for name in _TEMPLATES
    }


def _escaped(path: str) -> str:
    """Return a path with the special characters of patterns escaped."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in path)
