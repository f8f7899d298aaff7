"""A configuration file: TOML, or the table `[tool.txgreenwsgi]` of a pyproject.toml.

It knows TOML and positions in its text. It must never know what an option means.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import Any, Final, NamedTuple

from .errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ConfigurationFile", "read_file"]

#: Maximum size of a file in bytes.
_MAX_BYTES: Final = 1024 * 1024

_REMEDY: Final = "give the path of a TOML file, such as txgreenwsgi.toml"


class ConfigurationFile(NamedTuple):
    """A file that has been read.

    Attributes:
        path: its path as given.
        directory: the absolute path of its directory.
        values: the values of TOML by key.
        lines: the line of each key, where it could be found.
    """

    path: str
    directory: str
    values: dict[str, Any]
    lines: dict[str, int]

    def place(self, key: str) -> str:
        """Return the position of a key, for an error."""
        line = self.lines.get(key)
        return self.path if line is None else f"{self.path}, line {line}"


def read_file(path: str, option: str) -> ConfigurationFile:
    """Read a configuration file.

    Args:
        path: its path; of a pyproject.toml, one table is used.
        option: the option or variable that names it, for errors.

    Raises:
        ConfigurationError: the file cannot be read, or is not valid TOML.
    """
    subject = f"{option} {path!r}"
    try:
        # Editors on Windows write a byte order mark.
        text = _read(path, subject).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"{subject} cannot be read ({error.strerror}): {_REMEDY}"
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{subject} is not UTF-8 text ({error}): {_REMEDY}"
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{subject} is not valid TOML: {error}; correct that line, for example "
            f'keep_alive = 15 or app = "myproject.wsgi"'
        ) from None
    except ValueError:
        # tomllib passes on the error of int().
        raise ConfigurationError(
            f"{subject} contains a number with too many digits: give a smaller number"
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{subject} is nested too deeply: give one key = value on each line"
        ) from None
    directory = os.path.dirname(os.path.abspath(path))
    header = ""
    tool = values.get("tool")
    if tool is not None or os.path.basename(path) == "pyproject.toml":
        header = "tool.txgreenwsgi"
        table = tool.get("txgreenwsgi") if isinstance(tool, dict) else None
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{subject} has no table [tool.txgreenwsgi]: add it, or give another "
                "file"
            )
        values = table
    return ConfigurationFile(path, directory, values, _lines(text, header, values))


def _read(path: str, subject: str) -> bytes:
    """Return the content of a file.

    Raises:
        ConfigurationError: it is a pipe, or too large.
        OSError: it cannot be read.
        ValueError: the path contains NUL.
    """
    # Opening a FIFO must not block.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise ConfigurationError(
                f"{subject} is a pipe, which can be read only once, and workers read "
                "it again: write the text to a file, and give its path"
            )
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(
            f"{subject} is larger than {_MAX_BYTES} bytes: {_REMEDY}"
        )
    return data


def _lines(text: str, header: str, keys: dict[str, Any]) -> dict[str, int]:
    """Return the line of each key of a table, where it is found exactly once.

    `tomllib` gives no positions. A line in a multi-line string may look like a key, so
    a key that is found twice has no line.
    """
    found: dict[str, list[int]] = {key: [] for key in keys}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = re.sub(r"[\s\"']", "", match[1])
            inside = table.removeprefix(f"{header}." if header else "")
            if (table.startswith(f"{header}.") or not header) and inside in found:
                found[inside].append(number)
        elif table == header:
            match = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]", line)
            if match and match[1] in found:
                found[match[1]].append(number)
    return {key: numbers[0] for key, numbers in found.items() if len(numbers) == 1}
