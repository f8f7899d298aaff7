"""The command line of `twistd greenwsgi` and `twist greenwsgi`.

It knows the options, and the remedy for each mistake. It must import neither the
reactor, which twistd has not chosen yet, nor the application, which is imported after
twistd has forked and changed the user.
"""

from __future__ import annotations

import difflib
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.python import usage

from txgreenwsgi import _native
from txgreenwsgi._configuration import (
    Command,
    Conditions,
    Configuration,
    ConfigurationError,
    Described,
    Given,
    all_options,
    check_tls,
    meaning,
    option_name,
    printed,
    read,
    resolve,
    unused_tls,
)
from txgreenwsgi._launch.paste_config import is_config, is_config_file
from txgreenwsgi._server.adopted import expect_from_master
from txgreenwsgi._server.http2_package import check_http2, unused_http2
from txgreenwsgi._server.operator_address import is_local
from txgreenwsgi._server.proxy_settings import unusable_setting
from txgreenwsgi._twistd.closed_descriptors import open_closed_descriptors
from txgreenwsgi._twistd.hints import HELP, explain, hint
from txgreenwsgi._twistd.master_process import MAX_WORKERS
from txgreenwsgi._twistd.pidfile import remove_stale_pidfile
from txgreenwsgi._workers.handover import Predecessor
from txgreenwsgi._wsgi.application_check import is_path, module_spec
from txgreenwsgi.settings import SettingError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Options", "spec_for"]

_THREADS: Final = (
    "; it limits the requests that --threads-for runs in threads, the others need none"
)


def spec_for(argument: str) -> str:
    """Return the value of --app that a positional argument most likely means."""
    if is_config(argument):
        return argument
    if is_config_file(argument):
        return f"config:{argument}"
    return module_spec(argument) if is_path(argument) else argument


def _completions() -> dict[str, usage.Completer]:
    """Return how a shell completes the value of each option."""
    found: dict[str, usage.Completer] = {}
    for name, option, _default in all_options().values():
        if option.choices:
            found[option_name(name)] = usage.CompleteList(list(option.choices))
        elif option.path:
            directory = option.form == "DIRECTORY"
            found[option_name(name)] = (
                usage.CompleteDirs() if directory else usage.CompleteFiles()
            )
    return found


def _remedy(key: str, value: str) -> str:
    """Return the remedy for a key of a file that is not an option."""
    retired = hint(f"--{option_name(key)}", value, map(option_name, all_options()))
    spelling = key.lower().replace("-", "_")
    near = difflib.get_close_matches(spelling, list(all_options()), n=2)
    if retired is None and near:
        return f"did you mean {' or '.join(near)}?"
    return retired or "remove it; --print-config lists the options"


class Options(usage.Options):
    """The parsed command line.

    The options are also entries of this mapping, by their names with hyphens.

    Attributes:
        command: the options of the command. Valid after `parseOptions`.
        warnings: about the environment, for the log. Valid after `parseOptions`.
        findings: about certificates; a start logs them itself. Valid after
            `parseOptions`.
        settings: the settings of the server. Valid after `parseOptions`.
        arguments: the command line, with which a worker is started.
        directory: the working directory of the parsing.
        predecessor: the master that this process replaces; None for other processes.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a WSGI application, each request in its own greenlet on the reactor "
        "thread. Example: twistd -n greenwsgi --app myproject.wsgi:application "
        "--listen tcp:8080"
    )
    compData = usage.Completions(
        multiUse=[
            option_name(each.name) for each in all_options().values() if each.is_list
        ],
        optActions=_completions(),
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.command = Command()
        self.settings = Settings()
        self._has_error = False
        self.warnings: tuple[str, ...] = ()
        self.arguments: list[str] = []
        self.predecessor: Predecessor | None = None
        self.directory = ""
        self.findings: tuple[str, ...] = ()
        self._given: dict[str, Given] = {}
        for each in all_options().values():
            self.docs[option_name(each.name)] = meaning(each)
            self.docs[f"no-{option_name(each.name)}"] = (
                f"Switch --{option_name(each.name)} off, if the environment or the "
                "file switches it on."
            )
            for alias in each.option.aliases:
                self.docs[alias] = f"Alias of --{option_name(each.name)}."

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line; errors name the correct option."""
        # Here, because twistd opens its log and the reactor next.
        open_closed_descriptors()
        self.predecessor = Predecessor.taken_from(os.environ)
        if self.predecessor is not None:
            expect_from_master(each.text for each in self.predecessor.listeners)
        self.arguments = list(sys.argv[1:] if options is None else options)
        with suppress(OSError):  # it has been removed
            self.directory = os.getcwd()
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
                f"--app {spec_for(rest[0])}"
            )

    def opt_version(self) -> NoReturn:
        """Print the versions and whether the server is compiled, and exit."""
        print(
            f"txgreenwsgi {version('txgreenwsgi')} (Twisted {version('Twisted')}, "
            f"greenlet {version('greenlet')}, httptools {version('httptools')}, "
            f"{platform.python_implementation()} {platform.python_version()}; "
            f"{_native.description()})"
        )
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Take the other options from the environment, the file and the defaults."""
        configuration = self._configuration()
        for name, given in configuration.given.items():
            self[option_name(name)] = given.value
        self.command = configuration.command()
        self.warnings = configuration.warnings
        self._check_processes()
        self._check_operator_listeners()
        try:
            self.settings = configuration.settings()
            self.findings = check_tls(self.command, self._conditions())
            self.warnings += unused_tls(configuration)
        except SettingError as error:
            raise usage.UsageError(str(error)) from None
        http2 = self.settings.http2
        try:
            check_http2(http2)
        except SettingError as error:
            raise usage.UsageError(
                f"--http2 {http2} {error.problem}: {error.remedy}"
            ) from None
        self.warnings += unused_http2(http2, self.command.listen)
        unusable = unusable_setting(self.settings, self.command.listen)
        if unusable is not None:
            name, value, problem, remedy = unusable
            raise usage.UsageError(f"--{option_name(name)} {value} {problem}: {remedy}")
        if self.settings.static and self._conditions().paths_are_final:
            self._check_static()
        if self.command.print_config:
            self._print(configuration)
        if (self.command.check or self.command.check_config) and self.parent:
            # Their results are the output and the status, beside a running server.
            self.parent.update(nodaemon=True, pidfile="")
        if self.predecessor is not None and self.parent is not None:
            self._succeed(self.predecessor, self.parent)
        # twistd checks it next. Without --pidfile= it has a default.
        parent: Mapping[str, Any] = self.parent or {}
        if parent.get("pidfile"):
            remove_stale_pidfile(parent["pidfile"])

    def _check_static(self) -> None:
        # Here, because few servers need these modules.
        from txgreenwsgi._serving.static import static_files

        directory = self.command.chdir or ""
        pairs = [
            (path, os.path.join(directory, files))
            for path, files in self.settings.static
        ]
        try:
            static_files(pairs, self.settings.static_expires)
        except SettingError as error:
            raise usage.UsageError(f"--{error}") from None

    def _check_operator_listeners(self) -> None:
        """Reject a status page open to strangers, and options without effect."""
        command = self.command
        if command.metrics_application and not command.metrics:
            raise usage.UsageError(
                f"--metrics-application {command.metrics_application!r} has no effect "
                "without --metrics: give --metrics tcp:127.0.0.1:9090 too"
            )
        if command.status is None:
            if command.status_token is not None:
                raise usage.UsageError(
                    "--status-token has no effect without --status: give both"
                )
        elif command.status_token is None and not is_local(command.status):
            raise usage.UsageError(
                f"--status {command.status!r} can be reached from other machines: give "
                "tcp:127.0.0.1:PORT or unix:PATH, or a secret as --status-token"
            )

    @staticmethod
    def _succeed(predecessor: Predecessor, parent: Any) -> None:
        """Keep twistd from repeating what the last master has done.

        This process runs in its session, with its user and root directory, and takes
        its pidfile over later.
        """
        done = {"nodaemon": True, "pidfile": ""}
        done |= dict.fromkeys(("uid", "gid", "euid", "chroot", "umask"), None)
        if predecessor.log_path:
            done["logfile"] = predecessor.log_path
        parent.update({name: done[name] for name in done if name in parent})

    def _check_processes(self) -> None:
        """Reject options of workers and reload that cannot be combined."""
        command = self.command
        if command.workers != "auto" and int(command.workers) > MAX_WORKERS:
            raise usage.UsageError(
                f"--workers {command.workers} are too many: give {MAX_WORKERS} at "
                "most, or auto"
            )
        if command.reload and command.workers not in (0, 1):
            raise usage.UsageError(
                f"--reload and --workers {command.workers} exclude each other: one "
                "worker is restarted in development; remove --reload in production, "
                "where SIGHUP reloads, or remove --workers"
            )
        if command.preload and command.reload:
            raise usage.UsageError(
                "--preload and --reload exclude each other: a single worker shares no "
                "memory; remove --preload in development"
            )
        if command.preload and not command.workers:
            raise usage.UsageError(
                "--preload has no effect without workers: give --workers N too, or "
                "remove --preload"
            )
        if command.reload_extra and not command.reload:
            raise usage.UsageError(
                f"--reload-extra {command.reload_extra[0]!r} has no effect without "
                "--reload: give both"
            )

    def give(self, each: Described, option: str, text: str) -> None:
        """Take the value of an option.

        Args:
            each: the description of the option.
            option: its name as given, with hyphens in front.
            text: the value.

        Raises:
            UsageError: the value is invalid.
        """
        try:
            value = read(each, text, self._conditions())
        except SettingError as error:
            raise usage.UsageError(
                f"{option} {each.quoted(text)} {error.problem}: {error.remedy}"
                + (_THREADS if each.name == "threads" else "")
            ) from None
        if each.is_list:
            earlier = self._given.get(each.name)
            value = (*(earlier.value if earlier else ()), value)
        self._given[each.name] = Given(value, option)

    def switch(self, each: Described, option: str, *, on: bool) -> None:
        """Switch a flag on or off.

        Args:
            each: the description of the flag.
            option: its name as given, with hyphens in front.
            on: the new value.
        """
        self._given[each.name] = Given(on, option)

    def _configuration(self) -> Configuration:
        try:
            return resolve(self._given, os.environ, self._conditions(), _remedy)
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from None

    def _print(self, configuration: Configuration) -> NoReturn:
        parent: Mapping[str, Any] = self.parent or {}
        directory = os.path.join(
            "/" if parent.get("chroot") else os.getcwd(), parent.get("rundir", ".")
        )
        try:
            print(printed(configuration, os.path.normpath(directory)), end="")
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from None
        raise SystemExit(0)

    def _conditions(self) -> Conditions:
        parent: Mapping[str, Any] = self.parent or {}
        return Conditions(
            paths_are_final=not parent.get("chroot")
            and parent.get("rundir", ".") == ".",
            is_daemon=not parent.get("nodaemon", True) and not parent.get("debug"),
        )


def _handler(each: Described, name: str) -> Callable[..., None]:
    """Return the method that `usage.Options` calls for an option.

    It finds the option's name in the name of the method, and whether the option takes
    a value in the method's parameters.
    """
    option = f"--{option_name(name)}" if len(name) > 1 else f"-{name}"

    def take(self: Options, text: str) -> None:
        self.give(each, option, text)

    def switch(self: Options) -> None:
        self.switch(each, option, on=True)

    def switch_off(self: Options) -> None:
        self.switch(each, option, on=False)

    if each.option.kind != "flag":
        return take
    return switch_off if name.startswith("no_") else switch


for _each in all_options().values():
    _names = [_each.name, *_each.option.aliases]
    if _each.option.kind == "flag" and not _each.option.is_action:
        _names.append(f"no_{_each.name}")
    for _name in _names:
        setattr(Options, f"opt_{_name}", _handler(_each, _name))
