"""The command line of `twistd greenwsgi` and `twist greenwsgi`.

It knows the options, and the remedy for each mistake. It must import neither the
reactor, which twistd has not chosen yet, nor the application, which is imported after
twistd has forked and changed the user.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.python import usage

from txgreenwsgi._launch.collecting import GC
from txgreenwsgi._launch.paste_config import is_config, is_config_file
from txgreenwsgi._launch.patching import PATCHABLE, parse_patch
from txgreenwsgi._server.endpoints import check_endpoint
from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._twistd.closed_descriptors import open_closed_descriptors
from txgreenwsgi._twistd.hints import HELP, explain
from txgreenwsgi._twistd.log_observer import AUTOMATIC, FORMAT_NAMES
from txgreenwsgi._twistd.offloading import HEAVY, OFFLOAD_FORM
from txgreenwsgi._twistd.pidfile import remove_stale_pidfile
from txgreenwsgi._wsgi.application_check import is_path, module_spec
from txgreenwsgi.monitoring.accesslog import FORMATS
from txgreenwsgi.origins import NAMES
from txgreenwsgi.settings import (
    Setting,
    SettingError,
    Settings,
    described,
    parse,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["DEFAULT_APP", "DEFAULT_LISTEN", "Options", "markdown_table"]

DEFAULT_APP: Final = "txgreenwsgi.demo:app"
DEFAULT_LISTEN: Final = "tcp:8080"

# Options that are not settings of the server: name, placeholder of the value,
# default, meaning.
_COMMAND: Final = (
    (
        "app",
        "SPEC",
        DEFAULT_APP,
        "The WSGI application to serve: package.module:name, "
        "package.module:factory(), a module that defines `application` or `app`, or "
        "config:FILE#NAME for a paste.deploy file. The default is a demonstration.",
    ),
    ("wsgi", "SPEC", None, "Alias of --app."),
    (
        "listen",
        "ENDPOINT",
        DEFAULT_LISTEN,
        "Endpoint string to listen on: tcp:8080, "
        "tcp:8080:interface=127.0.0.1, unix:/run/app.sock, ssl:443:privateKey=key.pem, "
        "systemd:name=web, fd:3. "
        "May be repeated.",
    ),
    (
        "chdir",
        "DIRECTORY",
        None,
        "Change to this directory and put it first on the module search path before "
        "the application is imported. The default is the current directory.",
    ),
    (
        "origin",
        "NAME",
        None,
        "Emulate the server that the application was written for: "
        f"{', '.join(NAMES[:-1])} or {NAMES[-1]} (see docs/origins.md). May be "
        "repeated.",
    ),
    (
        "patch",
        "all|none|LIST",
        "all",
        "Modules of the standard library to patch before the application is "
        "imported, so that their blocking calls park only the request: all, none, or "
        "a comma-separated list of " + ", ".join(PATCHABLE) + ".",
    ),
    (
        "offload",
        "NAME",
        None,
        "Run this function (package.module.function) in the reactor's thread pool. "
        "May be repeated. The name heavy stands for SQLite, Pillow, password hashes, "
        "os.fsync and the compression of large data.",
    ),
    (
        "gc",
        "|".join(GC),
        "freeze",
        "Garbage collection. freeze: exclude the loaded application from it, which "
        "shortens full collections. unchanged: leave the collector alone.",
    ),
    (
        "check",
        "",
        None,
        "Import the application, report which of its drivers are green, off-loaded "
        "or blocking, and exit; status 1 if one is blocking.",
    ),
    (
        "log-format",
        "|".join(FORMAT_NAMES),
        AUTOMATIC,
        "Format of the server log. text: Twisted's format. dev: short lines. json: one "
        "object per line. auto: dev in the foreground on a terminal, otherwise text.",
    ),
    (
        "access-log",
        "FILE",
        None,
        "Append a line for each request to this file; - is standard output.",
    ),
    ("logfile", "FILE", None, "Alias of --access-log."),
    (
        "access-log-format",
        "|".join(FORMATS),
        "combined",
        "Format of the access log. combined: Apache's format, then duration in "
        "seconds and request id. json: one object per line.",
    ),
)

_THREADS: Final = (
    "; it limits the requests that --threads-for runs in threads, the others need none"
)


def _spec_for(argument: str) -> str:
    """Return the value of --app that a positional argument most likely means."""
    if is_config(argument):
        return argument
    if is_config_file(argument):
        return f"config:{argument}"
    return module_spec(argument) if is_path(argument) else argument


def _option(name: str) -> str:
    return name.replace("_", "-")


def _meaning(setting: Setting, default: Any) -> str:
    """Return the description of a setting in `--help`."""
    notes: list[str] = []
    if setting.kind in ("bytes", "seconds"):
        notes.append(setting.kind)
    if setting.choices:
        notes.append(" or ".join(setting.choices))
    if setting.kind not in ("flag", "names", "pairs", "words"):
        notes.append(f"default: {shown(setting, default) or 'none'}")
    if setting.off:
        zero = "0" if setting.kind in ("count", "bytes", "seconds") else "empty"
        notes.append(f"{zero}: {setting.off}")
    return setting.meaning + (f" [{'; '.join(notes)}]" if notes else "")


def _reader(name: str, setting: Setting) -> Callable[[str], Any]:
    """Return the function that parses and validates the value of an option."""

    def read(text: str) -> Any:
        try:
            value = parse(setting, text)
            # Validate each value when it is parsed, so that the error quotes the text.
            keyword: dict[str, Any] = {
                name: [value] if setting.kind in ("pairs", "words") else value
            }
            Settings.from_keywords(**keyword)
        except SettingError as error:
            note = _THREADS if name == "threads" else ""
            raise usage.UsageError(
                f"--{_option(name)} {text!r} {error.problem}: {error.remedy}{note}"
            ) from None
        return value

    return read


class Options(usage.Options):
    """The parsed command line.

    Attributes:
        settings: the settings of the server. Valid after `parseOptions`, as are
            the keys: "app" (str), "listen" (a list of endpoint strings), "origin"
            and "offload" (lists of names), "patch" (a tuple of module names),
            "gc" (str), "check" (bool), "chdir" and "access-log" (str or None),
            "access-log-format" and "log-format" (str).
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a WSGI application, each request in its own greenlet on the reactor "
        "thread. Example: twistd -n greenwsgi --app myproject.wsgi:application "
        "--listen tcp:8080"
    )

    optParameters: Final = [
        [_option(name), None, None, _meaning(setting, default), _reader(name, setting)]
        for name, setting, default in described()
        if setting.kind not in ("flag", "pairs", "words")
    ]
    optFlags: Final = [
        [_option(name), None, _meaning(setting, default)]
        for name, setting, default in described()
        if setting.kind == "flag"
    ]
    compData = usage.Completions(
        multiUse=[
            *("listen", "offload", "add-header", "environ", "origin"),
            "threads-for",
        ],
        optActions={
            "access-log": usage.CompleteFiles("*.log"),
            "access-log-format": usage.CompleteList(list(FORMATS)),
            "chdir": usage.CompleteDirs(),
            "gc": usage.CompleteList(list(GC)),
            "log-format": usage.CompleteList(list(FORMAT_NAMES)),
            "chunked": usage.CompleteList(["auto", "buffer", "stream"]),
            "half-close": usage.CompleteList(["disconnect", "serve"]),
            "on-disconnect": usage.CompleteList(["continue", "cancel"]),
            "origin": usage.CompleteList(list(NAMES)),
        },
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["app"] = None
        self["listen"] = []
        self["origin"] = []
        self["chdir"] = None
        self["patch"] = PATCHABLE
        self["offload"] = []
        self["gc"] = "freeze"
        self["check"] = False
        self["log-format"] = AUTOMATIC
        self["access-log"] = None
        self["access-log-format"] = "combined"
        self["add-header"] = []
        self["environ"] = []
        self["threads-for"] = []
        self.settings = Settings()
        self._has_error = False
        for name, _form, default, meaning in _COMMAND:
            self.docs[name] = meaning + (f" [default: {default}]" if default else "")
        for name, setting, default in described():
            self.docs[_option(name)] = _meaning(setting, default)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line; errors name the correct option."""
        # Here, because twistd opens its log and the reactor next.
        open_closed_descriptors()
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            self._has_error = True
            known = [option.rstrip("=") for option in self.longOpt]
            words = sys.argv[1:] if options is None else options
            message = explain(str(error), words, known, is_twistd=True)
            raise usage.UsageError(message) from None

    def getUsage(self, width: int | None = None) -> str:
        """Return the text of `--help`, or one line after an error.

        twistd and twist print it with the message of the error.
        """
        if self._has_error:
            return HELP
        text: str = super().getUsage(width)
        return text

    def parseArgs(self, *rest: str) -> None:
        """Reject positional arguments."""
        if rest:
            raise usage.UsageError(
                f"{rest[0]!r} is not an option: to serve that application, give "
                f"--app {_spec_for(rest[0])}"
            )

    def opt_app(self, spec: str) -> None:
        if not spec.strip():
            raise usage.UsageError(
                f"--app {spec!r} is empty: give package.module:name, such as --app "
                "myproject.wsgi:application"
            )
        self["app"] = spec

    # Not `opt_wsgi = opt_app`: usage.Options keeps only one long name per method.
    def opt_wsgi(self, spec: str) -> None:
        self.opt_app(spec)

    def opt_listen(self, endpoint: str) -> None:
        try:
            check_endpoint(endpoint, paths_are_final=self._paths_are_final())
        except EndpointError as error:
            raise usage.UsageError(
                f"--listen {endpoint!r} {error.problem}: {error.remedy}"
            ) from None
        self["listen"].append(endpoint)

    def opt_origin(self, name: str) -> None:
        if name not in NAMES:
            raise usage.UsageError(
                f"--origin {name!r} is not a known server: give "
                f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
            )
        self["origin"].append(name)

    def opt_chdir(self, directory: str) -> None:
        if self._paths_are_final() and not os.path.isdir(directory):
            raise usage.UsageError(
                f"--chdir {directory!r} is not a directory: give the directory of "
                "the application's modules"
            )
        self["chdir"] = directory

    def opt_patch(self, text: str) -> None:
        try:
            self["patch"] = parse_patch(text)
        except ValueError as error:
            raise usage.UsageError(
                f"--patch {text!r}: {error}; give all, none, or a comma-separated "
                f"list of {', '.join(PATCHABLE)}"
            ) from None

    def opt_offload(self, name: str) -> None:
        if name == HEAVY:
            self["offload"].append(name)
            return
        if not all(part.isidentifier() for part in name.split(".")) or "." not in name:
            raise usage.UsageError(
                f"--offload {name!r} is not the full name of a function: give "
                f"{OFFLOAD_FORM}, such as --offload bcrypt.hashpw, or {HEAVY} for the "
                "heavy calls of well-known modules"
            )
        self["offload"].append(name)

    def opt_gc(self, name: str) -> None:
        if name not in GC:
            raise usage.UsageError(
                f"--gc {name!r} is not a mode of garbage collection: give "
                f"{' or '.join(GC)}"
            )
        self["gc"] = name

    def opt_check(self) -> None:
        self["check"] = True

    def opt_access_log(self, path: str) -> None:
        if path == "-" and self._becomes_a_daemon():
            raise usage.UsageError(
                "--access-log '-' is not possible for a daemon, which has no standard "
                "output: give a file, or run twistd with -n (--nodaemon)"
            )
        if not path or (self._paths_are_final() and os.path.isdir(path)):
            raise usage.UsageError(
                f"--access-log {path!r} is not a file: give the path of a file to "
                "append to, or - for standard output"
            )
        self["access-log"] = path

    def opt_logfile(self, path: str) -> None:
        self.opt_access_log(path)

    opt_l = opt_logfile

    def opt_access_log_format(self, name: str) -> None:
        if name not in FORMATS:
            raise usage.UsageError(
                f"--access-log-format {name!r} is not a format: give "
                f"{' or '.join(FORMATS)}"
            )
        self["access-log-format"] = name

    def opt_log_format(self, name: str) -> None:
        if name not in FORMAT_NAMES:
            raise usage.UsageError(
                f"--log-format {name!r} is not a format: give "
                f"{', '.join(FORMAT_NAMES[:-1])} or {FORMAT_NAMES[-1]}"
            )
        self["log-format"] = name

    def opt_add_header(self, text: str) -> None:
        self["add-header"].append(_READ["add_header"](text))

    def opt_threads_for(self, pattern: str) -> None:
        self["threads-for"].append(_READ["threads_for"](pattern))

    def opt_environ(self, text: str) -> None:
        self["environ"].append(_READ["environ"](text))

    def opt_version(self) -> NoReturn:
        """Print the versions of this package and its dependencies, and exit."""
        print(
            f"txgreenwsgi {version('txgreenwsgi')} (Twisted {version('Twisted')}, "
            f"greenlet {version('greenlet')}, httptools {version('httptools')}, "
            f"{platform.python_implementation()} {platform.python_version()})"
        )
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Fill in the defaults and build the settings."""
        self["app"] = self["app"] or DEFAULT_APP
        self["listen"] = self["listen"] or [DEFAULT_LISTEN]
        self["threads-for"] = self["threads-for"] or ["auto"]
        given: dict[str, Any] = {
            name: bool(value) if setting.kind == "flag" else value
            for name, setting, _default in described()
            if (value := self[_option(name)]) is not None
        }
        self.settings = Settings.from_keywords(**given)
        # twistd checks it next. Without --pidfile= it has a default.
        parent: Mapping[str, Any] = self.parent or {}
        if parent.get("pidfile"):
            remove_stale_pidfile(parent["pidfile"])

    def _paths_are_final(self) -> bool:
        """Return whether paths refer to the same files when the server starts.

        False with twistd's --chroot and --rundir.
        """
        parent: Mapping[str, Any] = self.parent or {}
        return not parent.get("chroot") and parent.get("rundir", ".") == "."

    def _becomes_a_daemon(self) -> bool:
        parent: Mapping[str, Any] = self.parent or {}
        return not parent.get("nodaemon", True) and not parent.get("debug")


_READ: Final = {
    name: _reader(name, setting)
    for name, setting, _default in described()
    if setting.kind in ("pairs", "words")
}


def markdown_table() -> str:
    """Return a table of all options, for the documentation."""
    rows = [
        (f"--{name} {form}".strip(), default or "", meaning)
        for name, form, default, meaning in _COMMAND
    ]
    forms = {"count": "N", "bytes": "SIZE", "seconds": "SECONDS", "flag": ""}
    for name, setting, default in described():
        form = setting.form or "|".join(setting.choices) or forms[setting.kind]
        zero = "0" if setting.kind in ("count", "bytes", "seconds") else "Empty"
        meaning = setting.meaning + (f" {zero}: {setting.off}." if setting.off else "")
        rows.append(
            (f"--{_option(name)} {form}".strip(), shown(setting, default), meaning)
        )
    lines = ["| Option | Default | Meaning |", "|---|---|---|"]
    for option, default, meaning in rows:
        shown_default = f"`{default}`" if default else ""
        lines.append(
            f"| `{option}` | {shown_default} | {meaning} |".replace("|json", r"\|json")
            .replace("continue|cancel", r"continue\|cancel")
            .replace("freeze|unchanged", r"freeze\|unchanged")
            .replace("auto|buffer|stream", r"auto\|buffer\|stream")
            .replace("disconnect|serve", r"disconnect\|serve")
            .replace("all|none|LIST", r"all\|none\|LIST")
            .replace(r"auto|text|dev\|json", r"auto\|text\|dev\|json")
        )
    return "\n".join(lines) + "\n"
