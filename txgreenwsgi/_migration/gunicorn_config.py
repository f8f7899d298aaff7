"""A configuration of gunicorn: its file, GUNICORN_CMD_ARGS and its command line.

The file is executed, as gunicorn does. This module knows how gunicorn combines its
sources. It must never know what a setting means.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .gunicorn_settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .gunicorn_settings import GunicornSetting

__all__ = ["DEFAULT_FILE", "GunicornConfiguration", "GunicornError", "load"]

#: The file that gunicorn reads without an option.
DEFAULT_FILE: Final = "./gunicorn.conf.py"


def _number(text: str) -> int:
    return int(text, 0) if not text.isdigit() else int(text)


# The arguments of `add_argument` for each kind of setting.
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "flag": {"action": "store_true"},
    "off": {"action": "store_false"},
    "list": {"action": "append"},
    "number": {"type": _number},
}

_MODULE_NAME: Final = "__config__"


class GunicornError(Exception):
    """A configuration cannot be read. The message says why.

    The exception that the file has raised, if any, is the cause.
    """


@dataclass(frozen=True)
class GunicornConfiguration:
    """The values that a configuration gives.

    Attributes:
        values: by the name of the setting, in gunicorn's order.
        source: the file, or "the command line".
    """

    values: Mapping[str, Any]
    source: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise GunicornError(f"gunicorn does not accept these options: {message}")


def load(
    file: str | None, arguments: Sequence[str], environ: Mapping[str, str]
) -> GunicornConfiguration:
    """Return the values, the strongest of each: command line, environment, file.

    Executes the file, in a process whose current directory is that of gunicorn.

    Args:
        file: a path, "file:PATH" or "python:MODULE"; None for the one that the
            arguments name, or the default one.
        arguments: gunicorn's command line.
        environ: the environment, with GUNICORN_CMD_ARGS.

    Raises:
        GunicornError: the file or the arguments are invalid.
    """
    parser = _parser()
    given = vars(parser.parse_args(list(arguments)))
    try:
        words = shlex.split(environ.get("GUNICORN_CMD_ARGS", ""))
    except ValueError as error:
        raise GunicornError(f"GUNICORN_CMD_ARGS cannot be split: {error}") from None
    of_environ = vars(parser.parse_args(words))
    file = file or given["config"] or of_environ["config"]
    if file is None and os.path.exists(DEFAULT_FILE):
        file = DEFAULT_FILE
    known = {each.name for each in SETTINGS}
    values: dict[str, Any] = {}
    # As gunicorn does: the file may import modules beside it.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if file is not None:
        # The output of the command is a file: what the configuration prints is not.
        with contextlib.redirect_stdout(sys.stderr):
            contents = _executed(file)
        values.update({key: contents[key] for key in contents if key in known})
    for source in (of_environ, given):
        values.update(
            {
                key: value
                for key, value in source.items()
                if value is not None and key != "args"
            }
        )
    values.pop("config", None)
    if given["args"]:
        values["wsgi_app"] = given["args"][0]
    return GunicornConfiguration(
        {
            each.name: _normalized(each, values[each.name])
            for each in SETTINGS
            if values.get(each.name) is not None
        },
        file if file is not None else "the command line",
    )


def _normalized(each: GunicornSetting, value: Any) -> Any:
    """Return a value of the kind of its setting, from the texts that gunicorn accepts.

    Raises:
        GunicornError: gunicorn does not accept the value.
    """
    try:
        if each.kind == "number":
            number = _number(value) if isinstance(value, str) else value
            if not isinstance(number, int) or number < 0:
                raise ValueError("it is not a whole number, at least 0")
            return int(number)
        if each.kind in ("flag", "off") and isinstance(value, str):
            return {"true": True, "false": False}[value.strip().lower()]
    except (KeyError, ValueError) as error:
        raise GunicornError(
            f"gunicorn does not accept {each.name} = {value!r} ({error}): correct it"
        ) from None
    return value


def _executed(location: str) -> dict[str, Any]:
    """Return the names of a file or module after its execution."""
    try:
        if location.startswith("python:"):
            module = importlib.import_module(location.removeprefix("python:"))
            return dict(vars(module))
        path = location.removeprefix("file:")
        if not os.path.isfile(path):
            raise GunicornError(f"{path!r} is not a file: give a gunicorn.conf.py")
        loader = importlib.machinery.SourceFileLoader(_MODULE_NAME, path)
        spec = importlib.util.spec_from_loader(_MODULE_NAME, loader)
        assert spec is not None, "the loader is given"
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE_NAME] = module
        loader.exec_module(module)
        return dict(vars(module))
    except GunicornError:
        raise
    except SystemExit as error:
        raise GunicornError(f"{location} exits with {error.code!r}") from error
    except Exception as error:
        remedy = ""
        if isinstance(error, ModuleNotFoundError):
            name = str(error.name).partition(".")[0]
            remedy = f": install {name} in this environment"
        raise GunicornError(
            f"{location} fails ({type(error).__name__}: {error}){remedy}"
        ) from error


def _parser() -> _Parser:
    """Return a parser for gunicorn's command line."""
    parser = _Parser(prog="gunicorn", add_help=False)
    parser.add_argument("args", nargs="*")
    for each in SETTINGS:
        if each.flags:
            parser.add_argument(*each.flags, dest=each.name, default=None, **_of(each))
    return parser


def _of(each: GunicornSetting) -> dict[str, Any]:
    """Return the arguments of `add_argument` for a setting."""
    if each.name == "proxy_protocol":  # a flag until gunicorn 24
        return {"nargs": "?", "const": "auto"}
    return _ARGUMENTS.get(each.kind, {})
