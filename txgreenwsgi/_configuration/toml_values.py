"""Values of options in TOML: reading the types of TOML, and writing them.

It knows the kinds of options and TOML v1.0.0. It must never read a file.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._server.endpoint_strings import escaped
from txgreenwsgi.settings import SettingError, parse

if TYPE_CHECKING:
    from .options import Described, Option

__all__ = ["comment", "from_toml", "relocated", "shown_toml", "to_toml"]

_NUMBERS: Final[dict[str, tuple[type, ...]]] = {
    "count": (int,),
    "bytes": (int,),
    "seconds": (int, float),
}
# The valid types of TOML, as problem and remedy of any other type.
_TYPES: Final = {
    "flag": ("is not a boolean", "give true or false"),
    "count": ("is not a whole number", "give a number without quotes"),
    "bytes": ("is not a number of bytes", 'give 65536, "64K", "10M" or "1G"'),
    "seconds": ("is not a number of seconds", "give 30 or 0.5, without quotes"),
    "text": ("is not a string", "put the value in quotes"),
    "choice": ("is not a string", "put the value in quotes"),
    "names": ("is not a list of strings", 'give ["a", "b"] or "a,b"'),
    "words": ("is not a list of strings", 'give ["a", "b"]'),
}


def from_toml(each: Described, value: object) -> Any:
    """Return a value of TOML in the form that `validated` takes.

    Raises:
        SettingError: the value has another type. Problem and remedy continue
            "key = value ...".
    """
    option = each.option
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(one, str) and "\0" in one for one in texts):
        raise SettingError(shown_toml(value), "contains NUL", "remove \\u0000")
    if option.kind == "pairs":
        return _pairs(option, value)
    if option.kind in ("names", "words"):
        strings = [value] if isinstance(value, str) else value
        if isinstance(strings, list) and all(isinstance(one, str) for one in strings):
            if option.kind == "names" and isinstance(value, str):
                return parse(option, value)
            return tuple(strings)
    elif option.kind == "flag":
        if isinstance(value, bool):
            return value
    elif isinstance(value, str):
        if option.kind in ("text", "choice") or value in option.choices:
            return value
        if option.kind == "bytes":
            return parse(option, value)
    # A bool is an int.
    elif type(value) in _NUMBERS.get(option.kind, ()):
        return value
    problem, remedy = _TYPES[option.kind]
    if option.kind == "count" and option.choices:
        remedy += " or " + " or ".join(map(json.dumps, option.choices))
    raise SettingError(shown_toml(value), problem, remedy)


def _pairs(option: Option, value: object) -> tuple[tuple[str, str], ...]:
    """Return pairs, from a table, or from the texts of the command line."""
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return tuple(value.items())
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(one, str) for one in texts):
        return tuple(parse(option, text) for text in texts)
    form = option.form.strip('"')
    raise SettingError(
        shown_toml(value),
        "is neither a list of strings nor a table of strings",
        f'give ["{form}"]',
    )


# The arguments of endpoint strings that are paths.
_ENDPOINT_PATH: Final = re.compile(
    r"(?P<before>\Atls:(?!(?:port|interface|backlog)=)|"
    r"(?:\A|:)(?:unix:(?:address=)?|(?:address|privateKey|certKey|"
    r"extraCertChain|dhParameters|cert|key|dir|client[-_]ca)=))(?P<path>(?:[^:\\=/]|\\.)(?:[^:\\=]|\\.)*)(?=:|\Z)"
)


def relocated(each: Described, value: Any, directory: str) -> Any:
    """Return a value whose relative paths are relative to another directory.

    Args:
        each: the option.
        value: its value, as the type of its kind.
        directory: the absolute path of the directory.
    """
    name, option, _default = each
    if name == "listen":
        escaped_directory = escaped(directory)
        return tuple(
            _ENDPOINT_PATH.sub(
                lambda match: f"{match['before']}{escaped_directory}/{match['path']}",
                endpoint,
            )
            for endpoint in value
        )
    if not option.path or value in option.path_words:
        return value
    if option.kind == "pairs":
        return tuple((key, _relocated(path, directory)) for key, path in value)
    if option.kind in ("names", "words"):
        return tuple(_relocated(path, directory) for path in value)
    return None if value is None else _relocated(value, directory)


def _relocated(path: str, directory: str) -> str:
    # "-" is standard output, and an empty path is an error.
    return (
        path if path in ("", "-") else os.path.normpath(os.path.join(directory, path))
    )


def to_toml(each: Described, value: Any) -> str:
    """Return the text for a value that `from_toml` takes. It is one line."""
    if each.option.kind == "pairs":
        space = " " if each.option.separator == ":" else ""
        value = [f"{key}{each.option.separator}{space}{text}" for key, text in value]
    return shown_toml(value)


def shown_toml(value: object) -> str:
    """Return a value of TOML as text. Dates and times are quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown_toml, value))}]"
    if isinstance(value, dict):
        rows = (f"{_key(key)} = {shown_toml(one)}" for key, one in value.items())
        return f"{{{', '.join(rows)}}}"
    # The escapes of JSON are valid in TOML, except for surrogates, so those of
    # characters beyond U+FFFF. DEL must be escaped, and JSON does not.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", r"\u007f")


def comment(text: str) -> str:
    """Return text on one line, without characters that a comment must not contain."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
