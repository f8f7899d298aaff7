"""The sources of a value, in their order: option, environment, file, default.

It knows names and order. It must never change anything: the result depends only on the
command line, the environment and the file, so that a new worker that is started with
the same command line reads a changed file again.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from txgreenwsgi._server.endpoint_strings import with_tls
from txgreenwsgi.settings import SettingError, Settings, parse

from .errors import ConfigurationError
from .files import read_file
from .options import (
    DEFAULT_TLS_LISTEN,
    Command,
    Conditions,
    all_options,
    option_name,
    validated,
)
from .toml_values import from_toml, relocated, shown_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from .files import ConfigurationFile
    from .options import Described

__all__ = [
    "DEFAULT_ORIGIN",
    "PLATFORM",
    "PREFIX",
    "Configuration",
    "Given",
    "resolve",
    "variable_name",
]

#: The beginning of each environment variable.
PREFIX: Final = "TXGREENWSGI_"

#: The origin of a value that no source gives.
DEFAULT_ORIGIN: Final = "default"

#: Variables that platforms set, and their options. They are weaker than a file.
PLATFORM: Final = {
    "PORT": "listen",
    "WEB_CONCURRENCY": "workers",
    "FORWARDED_ALLOW_IPS": "trusted_proxy",
}
_FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Given(NamedTuple):
    """A value and its origin, such as "--keep-alive" or "TXGREENWSGI_KEEP_ALIVE"."""

    value: Any
    origin: str


class _Validator(NamedTuple):
    """Validation of values that stronger sources may replace.

    A value that is replaced must be valid, but need not fit this machine: a file may
    name a directory of another one.

    Attributes:
        conditions: the conditions for a value that is used.
        stronger: the options that are replaced.
    """

    conditions: Conditions
    stronger: Container[str]

    def validated(self, each: Described, value: Any) -> Any:
        """Return the value to use, as `options.validated`."""
        replaced = each.name in self.stronger
        conditions = Conditions(paths_are_final=False) if replaced else self.conditions
        return validated(each, value, conditions)


class Configuration(NamedTuple):
    """The value of every option.

    Attributes:
        given: the value and origin of each option, by its name with underscores.
        warnings: variables that look like misspelled options.
    """

    given: dict[str, Given]
    warnings: tuple[str, ...] = ()

    def command(self) -> Command:
        """Return the options of the command."""
        names = [field.name for field in dataclasses.fields(Command)]
        return Command(**{name: self.given[name].value for name in names})

    def settings(self) -> Settings:
        """Return the settings of the server."""
        names = [field.name for field in dataclasses.fields(Settings)]
        return Settings(**{name: self.given[name].value for name in names})


def variable_name(name: str) -> str:
    """Return the environment variable of an option."""
    return PREFIX + name.upper()


def resolve(
    options: Mapping[str, Given],
    environ: Mapping[str, str],
    conditions: Conditions,
    unknown: Callable[[str, str], str],
) -> Configuration:
    """Return the value of each option from the first source that gives one.

    Args:
        options: the validated values of the command line, by name with underscores.
        environ: the environment.
        conditions: decide which values are valid.
        unknown: returns the remedy for the key of a file that is not an option, from
            the key and its value.

    Raises:
        ConfigurationError: a variable or the file is invalid, even if an option of the
            command line has the same name.
    """
    known = all_options()
    given = {name: Given(one.default, DEFAULT_ORIGIN) for name, one in known.items()}
    variables = dict(_variables(environ, known, _Validator(conditions, options)))
    stronger = {**variables, **options}
    validator = _Validator(conditions, stronger)
    config = stronger.get("config")
    in_file = {}
    if config is not None:
        file = read_file(config.value, config.origin)
        in_file = dict(_file(file, known, validator, unknown))
    stronger = {**in_file, **stronger}
    given.update(_platform(environ, known, _Validator(conditions, stronger)))
    given.update(stronger)
    _listen_with_tls(given)
    return Configuration(given, tuple(_misspelled(environ, known)))


def _listen_with_tls(given: dict[str, Given]) -> None:
    """Make the default endpoint, and that of PORT, use TLS if a certificate is given.

    Args:
        given: the value and origin of each option; updated.
    """
    listen = given["listen"]
    if not (given["tls_cert"].value or given["tls_dir"].value):
        return
    if listen.origin == DEFAULT_ORIGIN:
        given["listen"] = Given((DEFAULT_TLS_LISTEN,), "default with a certificate")
    elif listen.origin == "PORT":
        given["listen"] = Given(tuple(map(with_tls, listen.value)), listen.origin)


def _variables(
    environ: Mapping[str, str], known: Mapping[str, Described], validator: _Validator
) -> Iterator[tuple[str, Given]]:
    """Yield the options that the environment gives by their own names."""
    for name, each in known.items():
        if each.option.is_action:
            continue
        found = [
            variable
            for variable in map(variable_name, each.long_names)
            if variable in environ
        ]
        if len(found) > 1:
            raise ConfigurationError(
                f"{' and '.join(found)} are the same option: remove one"
            )
        for variable in found:
            yield name, _variable(each, variable, environ[variable], validator)


def _variable(
    each: Described, variable: str, text: str, validator: _Validator
) -> Given:
    """Return the value of a variable.

    Raises:
        ConfigurationError: it is invalid.
    """
    try:
        if each.option.kind == "flag":
            if text.lower() not in _FLAGS:
                raise SettingError(
                    repr(text), "is not a flag", "give true or false, or 1 or 0"
                )
            return Given(_FLAGS[text.lower()], variable)
        value: Any
        if each.is_list:
            # Values contain spaces and commas, so each has a line of its own.
            lines = filter(None, map(str.strip, text.splitlines()))
            value = [parse(each.option, line) for line in lines]
        else:
            value = parse(each.option, text)
        return Given(validator.validated(each, value), variable)
    except SettingError as error:
        remedy = error.remedy
        if each.is_list and re.search(r"[^\s,][ ,]+[^\s,]", text):
            remedy += "; several values need one line each"
        raise ConfigurationError(
            f"{variable} {each.quoted(text)} {error.problem}: {remedy}"
        ) from None


def _platform(
    environ: Mapping[str, str], known: Mapping[str, Described], validator: _Validator
) -> Iterator[tuple[str, Given]]:
    """Yield the options that a platform gives. An empty variable counts as unset."""
    for variable, name in PLATFORM.items():
        text = environ.get(variable, "").strip()
        if not text or name not in known:
            continue
        if variable == "PORT":
            # Before int(), which rejects thousands of digits.
            is_number = bool(re.fullmatch(r"0{0,20}[0-9]{1,5}", text))
            if not is_number or int(text[-5:]) > 65535:
                raise ConfigurationError(
                    f"{variable} {text!r} is not a port: give a number from 0 to 65535"
                )
            yield name, Given((f"tcp:{text}",), variable)
        else:
            yield name, _variable(known[name], variable, text, validator)


def _file(
    file: ConfigurationFile,
    known: Mapping[str, Described],
    validator: _Validator,
    unknown: Callable[[str, str], str],
) -> Iterator[tuple[str, Given]]:
    """Yield the options that a file gives."""
    names = {
        spelling: name for name, each in known.items() for spelling in each.long_names
    }
    keys: dict[str, str] = {}
    for key, value in file.values.items():
        name = names.get(key, "")
        if not name:
            remedy = f"remove the line [{key}], because options are in no table"
            if not isinstance(value, dict):
                remedy = unknown(key, value if isinstance(value, str) else str(value))
            raise ConfigurationError(
                f"{file.place(key)}: {key} is not an option: {remedy}"
            )
        if name in keys:
            raise ConfigurationError(
                f"{file.place(key)}: {key} and {keys[name]} are the same option: "
                "remove one"
            )
        keys[name] = key
        each = known[name]
        if each.option.is_action or not each.option.in_file:
            raise ConfigurationError(
                f"{file.place(key)}: {key} is not possible in a file: remove it, and "
                f"give --{option_name(name)} on the command line"
            )
        try:
            read = relocated(each, from_toml(each, value), file.directory)
            yield name, Given(validator.validated(each, read), file.place(key))
        except SettingError as error:
            raise ConfigurationError(
                f"{file.place(key)}: {key} = {shown_toml(value)} {error.problem}: "
                f"{error.remedy}"
            ) from None


def _misspelled(
    environ: Mapping[str, str], known: Mapping[str, Described]
) -> Iterator[str]:
    """Yield a warning for each variable that is almost an option.

    Others are not errors: other programs may use the prefix, and Kubernetes sets
    TXGREENWSGI_PORT and more if a service has that name.
    """
    variables = {
        variable_name(spelling)
        for each in known.values()
        for spelling in each.long_names
        if not each.option.is_action
    }
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in variables:
            near = difflib.get_close_matches(variable, variables, n=1, cutoff=0.9)
            if near:
                yield (
                    f"{variable} is not the variable of an option and has no effect: "
                    f"did you mean {near[0]}?"
                )
