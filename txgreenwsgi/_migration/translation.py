"""A configuration of gunicorn as the text of a configuration file.

It knows TOML and the options of this server. It must never execute anything.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from txgreenwsgi._configuration import (
    Conditions,
    all_options,
    comment,
    from_toml,
    shown_toml,
    validated,
)
from txgreenwsgi.settings import SettingError

from .entries import Key, Missing, Process, Variable
from .gunicorn_settings import SETTINGS
from .gunicorn_values import Source, bind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .entries import Entry
    from .gunicorn_config import GunicornConfiguration
    from .gunicorn_settings import GunicornSetting

__all__ = ["Translation", "translate"]

_FORWARDED: Final = (
    "# gunicorn takes the scheme from X-Forwarded-Proto of 127.0.0.1, ::1 and UNIX\n"
    "# sockets by default. For a proxy on this machine, remove the #:\n"
    '# trusted_proxy = ["127.0.0.1", "::1", "unix"]\n'
)


# A link in Markdown to a page of the documentation.
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([\w.#-]+)\)")


class Translation(NamedTuple):
    """The result.

    Attributes:
        text: the configuration file.
        missing: the settings without a counterpart, each with the reason.
    """

    text: str
    missing: list[str]


def translate(
    configuration: GunicornConfiguration, environ: Mapping[str, str], directory: str
) -> Translation:
    """Return the file for a configuration.

    Args:
        configuration: the values of gunicorn.
        environ: the environment of gunicorn.
        directory: the current directory of gunicorn.
    """
    values = configuration.values
    keys: dict[str, str] = {}
    process: list[str] = []
    variables: list[str] = []
    missing: list[str] = []
    source = Source(values, directory)
    for name, value, entry in _entries(source):
        if isinstance(entry, Missing):
            missing.append(f"{_shown(name, value)}: {entry.reason}")
        elif isinstance(entry, Process):
            process.append(_quoted(entry.option))
        elif isinstance(entry, Variable):
            variables.append(f"{entry.name}={shlex.quote(entry.value)}")
        else:
            keys[entry.name] = _lines(name, value, entry)
    if "app" not in keys:
        keys["app"] = '# app = "package.module:name"\n'
    if "bind" not in values and not environ.get("PORT"):
        for entry in bind(None, source):
            if isinstance(entry, Key):
                keys["listen"] = (
                    f"# gunicorn's default\nlisten = {shown_toml(entry.value)}\n"
                )
    order = ["app", "chdir", "listen"]
    names = [*(name for name in order if name in keys), *keys]
    body = "\n".join(keys[name] for name in dict.fromkeys(names))
    if "trusted_proxy" not in keys:
        body += f"\n{_FORWARDED}"
    command = " ".join([*variables, "txgreenwsgi --config txgreenwsgi.toml", *process])
    head = (
        f"# Translated from {comment(configuration.source)}. Start the server with:\n"
        f"#   {comment(command)}\n\n"
    )
    if missing:
        body += "\n# Without a counterpart:\n"
        body += "".join(f"# - {comment(line)}\n" for line in missing)
    return Translation(head + body, missing)


def _entries(source: Source) -> Iterator[tuple[str, Any, Entry]]:
    """Yield what each given value becomes."""
    for each in SETTINGS:
        if each.name in source.values:
            value = source.values[each.name]
            for entry in _converted(each, value, source):
                yield each.name, value, _checked(entry)


def _converted(each: GunicornSetting, value: Any, source: Source) -> list[Entry]:
    """Return what a value becomes."""
    if each.convert is None:
        return [] if _is_off(value) else [Missing(_plain(each.note))]
    try:
        return list(each.convert(value, source))
    except (TypeError, ValueError, AttributeError) as error:
        return [Missing(f"gunicorn does not accept it ({error}): correct it")]


def _plain(note: str) -> str:
    """Return a note of the documentation without markup: links as page names."""
    note = _LINK.sub(r"\1 (docs/\2)", note)
    return note.replace("`", "")


def _checked(entry: Entry) -> Entry:
    """Return an entry, or the reason if its value is not valid here."""
    if not isinstance(entry, Key):
        return entry
    option = all_options()[entry.name]
    try:
        value = from_toml(option, entry.value)
        validated(option, value, Conditions(paths_are_final=False))
    except SettingError as error:
        return Missing(
            f"{entry.name} = {shown_toml(entry.value)} {error.problem}: {error.remedy}"
        )
    return entry


def _is_off(value: Any) -> bool:
    """Return whether a value without a counterpart switches nothing on."""
    return value is False or value in ("", [], {}, 0)


def _lines(name: str, value: Any, entry: Key) -> str:
    text = _shown(name, value)
    if entry.comment:
        text += f"; {entry.comment}"
    return f"# gunicorn: {comment(text)}\n{entry.name} = {shown_toml(entry.value)}\n"


def _shown(name: str, value: Any) -> str:
    if callable(value):
        return name
    return f"{name} = {value!r:.200}"


def _quoted(option: str) -> str:
    """Return an option of the command line, with its value quoted for a shell."""
    name, space, value = option.partition(" ")
    return f"{name}{space}{shlex.quote(value)}" if space else name
