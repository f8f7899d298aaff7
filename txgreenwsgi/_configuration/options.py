"""Every option of the command: its name, default, kind, meaning and validation.

`Command` describes the options that are not settings of the server, with the same
fields as `txgreenwsgi.settings`. The option, its environment variable, its key in a
file, `--help` and the documentation are generated from both descriptions. To add an
option, add a field to `Command`.

This module must import neither the reactor nor the application.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from txgreenwsgi._control.place import AUTOMATIC as CONTROL_AUTOMATIC
from txgreenwsgi._control.place import NONE as CONTROL_NONE
from txgreenwsgi._launch.collecting import GC
from txgreenwsgi._launch.patching import PATCHABLE, parse_patch
from txgreenwsgi._server.endpoints import check_endpoint
from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._server.operator_address import operator_endpoint
from txgreenwsgi._tls.options import CLIENT_MODES, VERSIONS
from txgreenwsgi.monitoring.accesslog import FORMATS, format_named
from txgreenwsgi.monitoring.log_format import FormatError
from txgreenwsgi.monitoring.log_levels import LEVELS, parsed_level
from txgreenwsgi.monitoring.log_lines import AUTOMATIC, LOG_FORMATS
from txgreenwsgi.monitoring.path_patterns import PATTERN_FORM, check_pattern
from txgreenwsgi.origins import NAMES
from txgreenwsgi.settings import (
    Kind,
    Setting,
    SettingError,
    Settings,
    described,
    parse,
    typed,
)

__all__ = [
    "DEFAULT_APP",
    "DEFAULT_LISTEN",
    "DEFAULT_TLS_LISTEN",
    "HEAVY",
    "OFFLOAD_FORM",
    "Command",
    "Conditions",
    "Described",
    "Option",
    "all_options",
    "option_name",
    "read",
    "validated",
]

DEFAULT_APP: Final = "txgreenwsgi.demo:app"
DEFAULT_LISTEN: Final = "tcp:8080"
#: The default endpoint if a certificate is given.
DEFAULT_TLS_LISTEN: Final = "https:8443"

#: The name that stands for the heavy calls of well-known modules.
HEAVY: Final = "heavy"
OFFLOAD_FORM: Final = "package.module.function"

#: Minimum length of the secret of the status page.
_TOKEN_CHARACTERS: Final = 16


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Facts about the process that decide which values are valid.

    Attributes:
        paths_are_final: paths refer to the same files when the server starts. False
            with twistd's --chroot and --rundir.
        is_daemon: the process has no standard output.
    """

    paths_are_final: bool = True
    is_daemon: bool = False


#: Returns the value to use, or raises `SettingError`. It gets the value as the type of
#: its kind; for "words", one word at a time.
Check: TypeAlias = Callable[[Any, Conditions], Any]


@dataclasses.dataclass(frozen=True)
class Option(Setting):
    """The description of one option, without its name and default.

    Attributes:
        check: validates the value, beyond its kind.
        aliases: other names of the option on the command line; a single letter is a
            short option.
        is_action: the option makes the command do something else than serve. It
            exists on the command line only.
        in_file: the option may be given in a file.
        default_text: the default in the documentation, if it is not the value's own.
        empty_text: the text of an empty list, if it is not the empty text.
        path_words: values of a path that are not paths.
        is_secret: errors do not quote the value.
    """

    check: Check | None = None
    aliases: tuple[str, ...] = ()
    is_action: bool = False
    in_file: bool = True
    default_text: str = ""
    empty_text: str = ""
    path_words: tuple[str, ...] = ()
    is_secret: bool = False


def _option(default: object, kind: Kind, meaning: str, **more: Any) -> Any:
    """Return a field of `Command` with its description in the metadata."""
    return dataclasses.field(
        default=default, metadata={"setting": Option(kind, meaning, **more)}
    )


def _check_app(spec: str, _conditions: Conditions) -> str:
    if not spec.strip():
        raise SettingError(
            repr(spec),
            "is empty",
            "give package.module:name, such as --app myproject.wsgi:application",
        )
    return spec


def _check_listen(endpoint: str, conditions: Conditions) -> str:
    try:
        # The TLS options are not known before all options are.
        check_endpoint(endpoint, paths_are_final=conditions.paths_are_final, tls=None)
    except EndpointError as error:
        raise SettingError(repr(endpoint), error.problem, error.remedy) from None
    return endpoint


def _check_chdir(directory: str, conditions: Conditions) -> str:
    if conditions.paths_are_final and not os.path.isdir(directory):
        raise SettingError(
            repr(directory),
            "is not a directory",
            "give the directory of the application's modules",
        )
    return directory


def _check_origin(name: str, _conditions: Conditions) -> str:
    if name not in NAMES:
        raise SettingError(
            repr(name),
            "is not a known server",
            f"give {', '.join(NAMES[:-1])} or {NAMES[-1]}",
        )
    return name


def _check_patch(names: tuple[str, ...], _conditions: Conditions) -> tuple[str, ...]:
    try:
        return parse_patch(",".join(names))
    except ValueError as error:
        raise SettingError(
            repr(",".join(names)),
            f"is not a list of modules ({error})",
            f"give all, none, or a comma-separated list of {', '.join(PATCHABLE)}",
        ) from None


def _check_offload(name: str, _conditions: Conditions) -> str:
    parts = name.split(".")
    if name != HEAVY and (
        len(parts) == 1 or not all(part.isidentifier() for part in parts)
    ):
        raise SettingError(
            repr(name),
            "is not the full name of a function",
            f"give {OFFLOAD_FORM}, such as --offload bcrypt.hashpw, or {HEAVY} for the "
            "heavy calls of well-known modules",
        )
    return name


def _check_control(path: str, conditions: Conditions) -> str:
    if not path or (conditions.paths_are_final and os.path.isdir(path)):
        raise SettingError(
            repr(path),
            "is not the path of a socket",
            f"give a path in a directory of this user, {CONTROL_AUTOMATIC} or "
            f"{CONTROL_NONE}",
        )
    return path


def _operator_endpoint(address: str, conditions: Conditions, example: str) -> str:
    """Return the endpoint string for the address of a listener for operators."""
    try:
        return operator_endpoint(address, paths_are_final=conditions.paths_are_final)
    except EndpointError as error:
        raise SettingError(
            repr(address), error.problem, f"give one such as {example}"
        ) from None


def _check_metrics(endpoint: str, conditions: Conditions) -> str:
    """Return the endpoint string; `tcp:HOST:PORT` is translated."""
    if find_spec("prometheus_client") is None:
        raise SettingError(
            repr(endpoint),
            "needs prometheus_client, which is not installed",
            "pip install 'txgreenwsgi[metrics]'",
        )
    return _operator_endpoint(
        endpoint, conditions, "tcp:127.0.0.1:9090 or unix:/run/app/metrics.sock"
    )


def _check_log_level(word: str, _conditions: Conditions) -> str:
    try:
        parsed_level(word)
    except ValueError as error:
        raise SettingError(
            repr(word),
            f"is not valid ({error})",
            f"give {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, with a component and = in "
            "front or without, such as twisted=warn",
        ) from None
    return word


def _check_registry(place: str, _conditions: Conditions) -> str:
    module, _, name = place.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise SettingError(
            repr(place),
            "does not name a registry",
            "give package.module:name, such as prometheus_client:REGISTRY",
        )
    return place


def _check_status(endpoint: str, conditions: Conditions) -> str:
    """Return the endpoint string; `tcp:HOST:PORT` is translated."""
    return _operator_endpoint(
        endpoint, conditions, "tcp:127.0.0.1:9091 or unix:/run/app/status.sock"
    )


def _check_status_token(token: str, _conditions: Conditions) -> str:
    if len(token) < _TOKEN_CHARACTERS or not token.isprintable() or " " in token:
        raise SettingError(
            "a secret",
            f"has fewer than {_TOKEN_CHARACTERS} characters, or others than letters, "
            "digits and punctuation",
            "give the output of: python3 -c 'import secrets; "
            "print(secrets.token_urlsafe())'",
        )
    return token


def _check_given(text: str, _conditions: Conditions) -> str:
    # An unset variable in a script must not switch TLS off.
    if not text.strip():
        raise SettingError(repr(text), "is empty", "give a value, or leave it out")
    return text


def _check_access_log(path: str, conditions: Conditions) -> str:
    if path == "-" and conditions.is_daemon:
        raise SettingError(
            repr(path),
            "is not possible for a daemon, which has no standard output",
            "give a file, or run twistd with -n (--nodaemon)",
        )
    if not path or (conditions.paths_are_final and os.path.isdir(path)):
        raise SettingError(
            repr(path),
            "is not a file",
            "give the path of a file to append to, or - for standard output",
        )
    return path


def _check_access_log_format(form: str, _conditions: Conditions) -> str:
    try:
        format_named(form)
    except FormatError as error:
        raise SettingError(repr(form), error.problem, error.remedy) from None
    return form


def _check_access_log_skip(pattern: str, _conditions: Conditions) -> str:
    try:
        return check_pattern(pattern)
    except ValueError:
        raise SettingError(
            repr(pattern), "is not the pattern of a path", PATTERN_FORM
        ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """The options of the command that are not settings of the server."""

    config: str | None = _option(
        None,
        "text",
        "TOML file with options, such as keep_alive = 5; of a pyproject.toml, the "
        "table [tool.txgreenwsgi]. Options and environment variables take precedence "
        "(see docs/configuration.md).",
        form="FILE",
        path=True,
        in_file=False,
    )
    print_config: bool = _option(
        False,
        "flag",
        "Print every option with its value and the origin of the value, as a TOML "
        "file, and exit.",
        is_action=True,
    )
    check_config: bool = _option(
        False,
        "flag",
        "Validate all options, import the application, and exit without listening; "
        "status 1 if the server could not start.",
        is_action=True,
    )
    app: str = _option(
        DEFAULT_APP,
        "text",
        "The WSGI application to serve: package.module:name, "
        "package.module:factory(), a module that defines `application` or `app`, or "
        "config:FILE#NAME for a paste.deploy file. The default is a demonstration.",
        form="SPEC",
        check=_check_app,
        aliases=("wsgi",),
    )
    listen: tuple[str, ...] = _option(
        (DEFAULT_LISTEN,),
        "words",
        "Endpoint string to listen on: tcp:8080, "
        "tcp:8080:interface=127.0.0.1, unix:/run/app.sock, systemd:name=web, fd:3, "
        "https:443. With https: in front, each of them uses TLS, with the certificate "
        "of the --tls options. The default is https:8443 if a certificate is given. "
        "May be repeated.",
        form="ENDPOINT",
        check=_check_listen,
    )
    tls_cert: str | None = _option(
        None,
        "text",
        "Certificate of the https: endpoints, followed by those of its issuers, in PEM "
        "format. With --tls-dir it is used for unknown server names.",
        form="FILE",
        path=True,
        check=_check_given,
    )
    tls_key: str | None = _option(
        None,
        "text",
        "Private key of --tls-cert, in PEM format and not encrypted. The default is "
        "the file of the certificate.",
        form="FILE",
        path=True,
        check=_check_given,
    )
    tls_dir: str | None = _option(
        None,
        "text",
        "Directory of certificates and their private keys in PEM format, "
        "subdirectories included. A client gets the certificate with the server name "
        "that it sends, wildcards included.",
        form="DIRECTORY",
        path=True,
        check=_check_given,
    )
    tls_client_ca: str | None = _option(
        None,
        "text",
        "Certificates of the authorities that issue client certificates, in PEM "
        "format.",
        form="FILE",
        path=True,
        check=_check_given,
    )
    tls_client: str | None = _option(
        None,
        "choice",
        "Whether clients of the https: endpoints need a certificate of "
        "--tls-client-ca. The default with that option is required.",
        choices=CLIENT_MODES,
    )
    tls_min: str = _option(
        "1.2",
        "choice",
        "Minimum version of TLS on the https: endpoints.",
        choices=VERSIONS,
    )
    tls_ciphers: str | None = _option(
        None,
        "text",
        "Ciphers of the https: endpoints, as names of OpenSSL separated by colons. "
        "Names that begin with TLS_ are those of TLS 1.3. The default is ciphers with "
        "forward secrecy and authenticated encryption.",
        form="LIST",
        check=_check_given,
    )
    chdir: str | None = _option(
        None,
        "text",
        "Change to this directory and put it first on the module search path before "
        "the application is imported. The default is the current directory.",
        form="DIRECTORY",
        path=True,
        check=_check_chdir,
    )
    origin: tuple[str, ...] = _option(
        (),
        "words",
        "Emulate the server that the application was written for: "
        f"{', '.join(NAMES[:-1])} or {NAMES[-1]} (see docs/origins.md). May be "
        "repeated.",
        form="NAME",
        choices=NAMES,
        check=_check_origin,
    )
    patch: tuple[str, ...] = _option(
        PATCHABLE,
        "names",
        "Modules of the standard library to patch before the application is "
        "imported, so that their blocking calls park only the request: all, none, or "
        "a comma-separated list of " + ", ".join(PATCHABLE) + ".",
        form="all|none|LIST",
        check=_check_patch,
        default_text="all",
        empty_text="none",
    )
    offload: tuple[str, ...] = _option(
        (),
        "words",
        "Run this function (package.module.function) in the reactor's thread pool. "
        "May be repeated. The name heavy stands for SQLite, Pillow, password hashes, "
        "os.fsync and the compression of large data.",
        form="NAME",
        check=_check_offload,
    )
    gc: str = _option(
        "freeze",
        "choice",
        "Garbage collection. freeze: exclude the loaded application from it, which "
        "shortens full collections. unchanged: leave the collector alone.",
        choices=GC,
    )
    check: bool = _option(
        False,
        "flag",
        "Import the application, report which of its drivers are green, off-loaded "
        "or blocking, and exit; status 1 if one is blocking.",
        is_action=True,
    )
    log_format: str = _option(
        AUTOMATIC,
        "choice",
        "Format of the server log. text: Twisted's format. dev: short lines. json: one "
        "object per line. auto: dev in the foreground on a terminal, otherwise text.",
        choices=(AUTOMATIC, *LOG_FORMATS),
    )
    log_level: tuple[str, ...] = _option(
        (),
        "words",
        "Lowest level of the server log: debug, info, warn, error or critical; with a "
        "component in front, such as txgreenwsgi._workers=warn, that of the component. "
        "May be repeated. The default is debug for all.",
        form="LEVEL|COMPONENT=LEVEL",
        check=_check_log_level,
    )
    control: str = _option(
        CONTROL_AUTOMATIC,
        "text",
        "UNIX socket for txgreenwsgi status, top, reload, scale and stacks, with mode "
        "0600. "
        f"{CONTROL_AUTOMATIC}: in the user's runtime directory if there are workers, "
        f"otherwise none. {CONTROL_NONE}: no socket.",
        form=f"PATH|{CONTROL_AUTOMATIC}|{CONTROL_NONE}",
        path=True,
        path_words=(CONTROL_AUTOMATIC, CONTROL_NONE),
        check=_check_control,
    )
    metrics: str | None = _option(
        None,
        "text",
        "Endpoint of a listener with metrics for Prometheus, such as "
        "tcp:127.0.0.1:9090, at the path /metrics. With workers, it has the sums of "
        "all of them. The default is none (see docs/observability.md).",
        form="ENDPOINT",
        check=_check_metrics,
    )
    metrics_application: str | None = _option(
        None,
        "text",
        "With --metrics, include this registry of the application, such as "
        "prometheus_client:REGISTRY.",
        form="MODULE:NAME",
        check=_check_registry,
    )
    status: str | None = _option(
        None,
        "text",
        "Endpoint of a listener with a page for operators, such as "
        "tcp:127.0.0.1:9091: workers, requests in flight with what each waits for, "
        "slow routes, lines that blocked, failures. The default is none (see "
        "docs/status-page.md).",
        form="ENDPOINT",
        check=_check_status,
    )
    status_token: str | None = _option(
        None,
        "text",
        "Secret that a reader of the status page has to give; at least 16 characters. "
        "Required unless --status is a loopback address or a UNIX socket. "
        "Others see a command line: give it as TXGREENWSGI_STATUS_TOKEN.",
        form="TOKEN",
        check=_check_status_token,
        in_file=False,
        is_secret=True,
    )
    status_cancel: bool = _option(
        False,
        "flag",
        "Let readers of the status page and of txgreenwsgi top cancel requests.",
    )
    access_log: str | None = _option(
        None,
        "text",
        "Append a line for each request to this file; - is standard output.",
        form="FILE",
        path=True,
        check=_check_access_log,
        aliases=("logfile", "l"),
    )
    workers: int | str = _option(
        0,
        "count",
        "Number of worker processes; auto is the number of usable CPUs. A master "
        "process starts, watches, reloads and replaces them.",
        off="serve in this process, without a master",
        choices=("auto",),
        form="N|auto",
    )
    boot_timeout: float = _option(
        60.0,
        "seconds",
        "Time limit for a worker to import the application and be ready.",
        minimum=1,
    )
    worker_timeout: float = _option(
        30.0,
        "seconds",
        "Kill and replace a worker whose reactor is blocked for this time, after "
        "logging the request and the stacks that block it.",
        off="never",
    )
    max_requests: int = _option(
        0,
        "count",
        "Replace a worker after this number of requests. Its successor is ready before "
        "it drains.",
        off="unlimited",
    )
    max_requests_jitter: int = _option(
        0,
        "count",
        "Maximum random number that each worker adds to --max-requests.",
        off="none",
    )
    max_lifetime: float = _option(
        0.0,
        "seconds",
        "Replace a worker after this time.",
        off="unlimited",
    )
    max_rss: int = _option(
        0,
        "bytes",
        "Replace a worker whose resident memory reaches this size.",
        off="unlimited",
    )
    reload_parallel: int = _option(
        1,
        "count",
        "Number of workers that start at the same time during a reload.",
        minimum=1,
    )
    preload: bool = _option(
        False,
        "flag",
        "Import the application once, in a process without a reactor, and fork the "
        "workers from it, so that they share its memory. A reload imports it again.",
    )
    reload: bool = _option(
        False,
        "flag",
        "For development: restart the application when one of its files changes, and "
        "show its traceback as a page if it does not start. It runs in one worker.",
    )
    reload_extra: tuple[str, ...] = _option(
        (),
        "words",
        "With --reload, also watch the files that match this pattern, such as "
        "'templates/**/*.html' or .env. May be repeated.",
        form="PATTERN",
        path=True,
    )
    access_log_format: str = _option(
        "combined",
        "text",
        "Format of the access log. combined: Apache's format, then duration in "
        "seconds and request id. common: Apache's shorter format. json: one object per "
        "line. Anything else consists of Apache's directives, such as "
        "'%h %u %t \"%r\" %>s %b %{X-Request-Id}o' (see docs/logging.md).",
        form="|".join((*FORMATS, "FORMAT")),
        check=_check_access_log_format,
    )
    access_log_skip: tuple[str, ...] = _option(
        (),
        "words",
        "Leave requests with this path out of the access log: a path such as /health "
        "or /internal/*. May be repeated.",
        form="PATTERN",
        check=_check_access_log_skip,
    )


class Described(NamedTuple):
    """One option with its name, and its default in the command."""

    name: str
    option: Option
    default: Any

    def quoted(self, text: str) -> str:
        """Return a value as an error quotes it."""
        return "(a secret)" if self.option.is_secret else repr(text)

    @property
    def is_list(self) -> bool:
        """Whether the option may be repeated."""
        return self.option.kind in ("pairs", "words")

    @property
    def long_names(self) -> tuple[str, ...]:
        """The name and the aliases that are no short options."""
        aliases = (alias for alias in self.option.aliases if len(alias) > 1)
        return (self.name, *aliases)


#: Defaults of the command that differ from those of a server in a program.
_DEFAULTS: Final[dict[str, object]] = {"threads_for": ("auto",)}


@functools.cache
def all_options() -> Mapping[str, Described]:
    """Return every option of the command by its name with underscores, in order."""
    return MappingProxyType(
        {
            each.name: each
            for each in (
                *(
                    Described(field.name, field.metadata["setting"], field.default)
                    for field in dataclasses.fields(Command)
                ),
                *(
                    Described(
                        name, Option(**_fields(setting)), _DEFAULTS.get(name, default)
                    )
                    for name, setting, default in described()
                ),
            )
        }
    )


def _fields(setting: Setting) -> dict[str, Any]:
    return {
        field.name: getattr(setting, field.name)
        for field in dataclasses.fields(Setting)
    }


def option_name(name: str) -> str:
    """Return the name of an option on the command line, without hyphens in front."""
    return name.replace("_", "-")


def read(each: Described, text: str, conditions: Conditions) -> Any:
    """Return the value of an option from its text on the command line.

    For "words" and "pairs", that is one element of the value.

    Raises:
        SettingError: the text has the wrong syntax, or the value is invalid. Its
            problem and remedy continue "--name 'text' ...".
    """
    value = parse(each.option, text)
    if each.is_list:
        return validated(each, [value], conditions)[0]
    return validated(each, value, conditions)


def validated(each: Described, value: Any, conditions: Conditions) -> Any:
    """Return a value of the right type, checked and normalized.

    Raises:
        SettingError: the value has the wrong type or is invalid.
    """
    name, option, _default = each
    if name in _SETTINGS:
        return getattr(Settings(**{name: value}), name)
    value = typed(name, option, value)
    if option.check is None:
        return value
    if option.kind == "words":
        return tuple(option.check(word, conditions) for word in value)
    return option.check(value, conditions)


_SETTINGS: Final = frozenset(field.name for field in dataclasses.fields(Settings))
