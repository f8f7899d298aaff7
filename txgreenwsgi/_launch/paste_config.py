"""Applications described by paste.deploy files: "config:production.ini#main".

Such files name the application, its settings and its middleware; Pyramid, Zope and
others use them. This file knows PasteDeploy, which it imports at the first use. It must
never know where the text comes from.
"""

from __future__ import annotations

import configparser
import logging.config
import os
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

__all__ = ["ConfigProblem", "is_config", "is_config_file", "load_config_app"]

_PREFIX: Final = "config:"
_SUFFIXES: Final = (".ini", ".cfg", ".conf")

# Prefixes of the sections that describe an application.
_APP_SECTIONS: Final = (
    "app",
    "application",
    "composite",
    "composit",
    "pipeline",
    "filter-app",
)


class ConfigProblem(Exception):
    """A paste.deploy file cannot be used; the message gives the remedy."""


class _Location(NamedTuple):
    """The place of an application.

    Attributes:
        path: the path of the file, as given.
        name: the name of the application; "" for the default, "main".
    """

    path: str
    name: str


def _location(text: str) -> _Location:
    # As in PasteDeploy: a URI with percent-encoded characters.
    path, _, name = text.removeprefix(_PREFIX).partition("#")
    return _Location(unquote(path).strip(), name.strip())


def is_config(text: str) -> bool:
    """Return whether a text names an application in a paste.deploy file.

    A module may be called "config" too: "config:app" is an object in it, unless a file
    "app" exists in the current directory.
    """
    if not text.startswith(_PREFIX):
        return False
    path = _location(text).path
    return (
        "#" in text
        or "/" in path
        or os.sep in path
        or path.endswith(_SUFFIXES)
        or os.path.isfile(path)
    )


def is_config_file(text: str) -> bool:
    """Return whether a text is the name of an ini file, without "config:"."""
    return text.partition("#")[0].endswith(".ini")


def load_config_app(text: str) -> Any:
    """Return the application that a paste.deploy file describes.

    Configures `logging` first if the file has a section [loggers], as Pyramid's pserve
    does. A relative path is relative to the current directory.

    Args:
        text: "config:FILE" or "config:FILE#NAME".

    Raises:
        ConfigProblem: PasteDeploy, the file or the section is missing, or the file is
            malformed.
        Exception: any exception of the application's factory or of PasteDeploy,
            unchanged.
    """
    location = _location(text)
    path = os.path.abspath(location.path)
    sections = _sections_of(path)
    _check_name(path, location.name, sections)
    try:
        deploy: Any = import_module("paste.deploy")
    except ImportError as error:
        raise ConfigProblem(
            f"PasteDeploy cannot be imported ({error}); run pip install PasteDeploy"
        ) from None
    if "loggers" in sections:
        _configure_logging(path)
    return deploy.loadapp(f"{_PREFIX}{quote(path)}", name=location.name or None)


def _sections_of(path: str) -> list[str]:
    """Return the names of the sections of a file."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigProblem(
            f"{path} cannot be read ({error.strerror}); give the path of a "
            "paste.deploy file, absolute or relative to the current directory"
        ) from None
    except (configparser.Error, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigProblem(
            f"{path} is not a paste.deploy file ({problem}); correct it"
        ) from None
    return parser.sections()


def _check_name(path: str, name: str, sections: list[str]) -> None:
    """Raise if no section describes the application `name`."""
    names = []
    for section in sections:
        prefix, colon, rest = section.partition(":")
        if colon and prefix in _APP_SECTIONS:
            names.append(rest.strip())
    if (name or "main") in names:
        return
    known = ", ".join(f"#{each}" for each in names)
    remedy = f"give one of {known}" if known else "add one"
    raise ConfigProblem(
        f"{path} has no section [app:{name or 'main'}], nor a composite or pipeline of "
        f"that name; {remedy}"
    )


def _configure_logging(path: str) -> None:
    defaults = {"here": os.path.dirname(path), "__file__": path}
    try:
        logging.config.fileConfig(path, defaults, disable_existing_loggers=False)
    except Exception as error:
        raise ConfigProblem(
            f"the logging sections of {path} cannot be used ({type(error).__name__}: "
            f"{error}); correct them, or remove [loggers]"
        ) from error
