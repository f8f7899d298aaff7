"""`txgreenwsgi [SPEC] [options]`: serve an application in the foreground.

The command line is translated into one of twistd, which runs the service:

    txgreenwsgi shop.wsgi --listen tcp:80 --uid www-data
    twistd -n --pidfile= --uid=www-data greenwsgi --listen=tcp:80 --app=shop.wsgi

So reactor, user, profiler, log and exit are twistd's, and the options of the server
have one parser. See decision 26.

It knows the options of both. It must never start anything itself.
"""

from __future__ import annotations

import difflib
import getopt
import os
import re
import sys
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.application.service import ServiceMaker
from twisted.python import usage
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import ServerOptions

from txgreenwsgi._configuration import DEFAULT_APP
from txgreenwsgi._twistd.hints import HELP, PROCESS_OPTIONS, explain, listen_for
from txgreenwsgi._twistd.options import Options, spec_for
from txgreenwsgi._wsgi.application_check import import_folder

from . import SUBCOMMANDS, USAGE_STATUS
from .process_options import PROCESS, check_process_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["CommandLine", "help_text", "main", "translate"]

_SYNOPSIS: Final = (
    "Usage: txgreenwsgi [SPEC] [options]\n       txgreenwsgi SUBCOMMAND [arguments]\n"
)
_DESCRIPTION: Final = (
    "Serves a WSGI application in the foreground, each request in its own greenlet. "
    "SPEC names the application, as --app does: package.module:name, "
    f"package.module:factory() or config:FILE. Without it, {DEFAULT_APP} is served, a "
    "demonstration. The first argument is a subcommand if it is one of these words:"
)


class CommandLine(NamedTuple):
    """A command line, divided.

    Attributes:
        process: options of twistd.
        server: options of `twistd greenwsgi`.
        wants_help: whether to print the help in place of serving.
    """

    process: list[str]
    server: list[str]
    wants_help: bool = False


class _TwistdOptions(ServerOptions):
    """twistd's options, with one plugin: the others need not be loaded."""

    @property
    def subCommands(
        self,
    ) -> Iterator[tuple[str, None, Callable[[], usage.Options], str]]:
        """The plugin, as `usage.Options` and twistd's runner look it up."""
        maker = ServiceMaker(
            "greenwsgi", "txgreenwsgi._twistd.service", _DESCRIPTION, "greenwsgi"
        )
        self.loadedPlugins = {maker.tapname: maker}
        yield maker.tapname, None, Options, maker.description


def translate(words: Sequence[str]) -> CommandLine:
    """Divide a command line between twistd and the server.

    Raises:
        usage.UsageError: an option does not exist or has no value, or there are two
            applications.
    """
    ours: Any = Options()
    known = [*ours.longOpt, *(set(PROCESS.longOpt) - set(ours.longOpt))]
    line = CommandLine([], [])
    specs: list[str] = []
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        try:
            options, rest = getopt.getopt(rest, ours.shortOpt + "h", known)
        except getopt.GetoptError as error:
            raise usage.UsageError(
                explain(
                    str(error),
                    words,
                    [option.rstrip("=") for option in known],
                    is_twistd=False,
                )
            ) from None
        for name, value in options:
            if name in ("-h", "--help"):
                return CommandLine([], [], wants_help=True)
            given[name.removeprefix("--")] = value
            _add(line, ours, name, value)
        specs.extend(rest[:1])
        del rest[:1]
    check_process_options(given)
    if specs:
        _check_specs(specs, given)
        line.server.append(f"--app={specs[0]}")
    return line


def _add(line: CommandLine, ours: Any, name: str, value: str) -> None:
    """Append an option to those of the server or of twistd."""
    bare = name.removeprefix("--")
    if name.startswith("--") and bare in PROCESS_OPTIONS:
        target = line.process
        name = f"--{PROCESS_OPTIONS[bare]}"
        takes_value = f"{bare}=" in PROCESS.longOpt
    else:
        target = line.server
        takes_value = f"{bare}=" in ours.longOpt
    if not name.startswith("--"):
        target.extend([name, value] if value else [name])
    else:
        target.append(f"{name}={value}" if takes_value else name)


def _check_specs(specs: list[str], given: Iterable[str]) -> None:
    """Refuse command lines with more than one application, or with none after all.

    Raises:
        usage.UsageError: the message names the remedy.
    """
    spec = specs[0]
    if spec in SUBCOMMANDS:
        raise usage.UsageError(
            f"{spec!r} is a subcommand, which comes first: txgreenwsgi {spec} ...; to "
            f"serve a module of that name, give --app {spec}"
        )
    if len(specs) > 1:
        raise usage.UsageError(
            f"{spec!r} and {specs[1]!r} are two arguments, but there is one "
            f"application: give txgreenwsgi {specs[-1]}, with options before or after"
        )
    both = [name for name in ("app", "wsgi") if name in given]
    if both:
        raise usage.UsageError(
            f"{spec!r} and --{both[0]} name two applications: remove one"
        )
    if not spec.strip():
        raise usage.UsageError(
            f"{spec!r} is empty: give package.module:name, such as "
            "myproject.wsgi:application"
        )
    if re.fullmatch(r"(\S*:)?[0-9]+", spec):
        raise usage.UsageError(
            f"{spec!r} is an address, not an application: give --listen "
            f"{listen_for(spec)}"
        )
    meant = spec_for(spec)
    if meant != spec:
        folder = import_folder(spec)
        more = f" --chdir {folder}" if folder else ""
        raise usage.UsageError(
            f"{spec!r} is the name of a file: give txgreenwsgi {meant}{more}"
        )
    if not re.fullmatch(r"[\w-]+", spec):
        return
    near = difflib.get_close_matches(spec, SUBCOMMANDS, n=1)
    if near and not _is_module(spec):
        raise usage.UsageError(
            f"{spec!r} is neither a subcommand nor a module: did you mean {near[0]}?"
        )


def _is_module(name: str) -> bool:
    """Return whether there is a module with the name of a misspelled subcommand.

    It may be in a directory that only --chdir makes known; that is not searched.
    """
    if not name.isidentifier():
        return False
    return os.path.exists(f"{name}.py") or os.path.isdir(name) or bool(find_spec(name))


def help_text() -> str:
    """Return the text of `txgreenwsgi --help`."""
    width = int(os.environ.get("COLUMNS", "80"))
    lines = [_SYNOPSIS, *textwrap.wrap(_DESCRIPTION, width), ""]
    for name, subcommand in SUBCOMMANDS.items():
        form = f"{name} {subcommand.form}".rstrip()
        lines.append(f"  {form}")
        lines.extend(
            textwrap.wrap(
                subcommand.meaning,
                width,
                initial_indent="      ",
                subsequent_indent="      ",
            )
        )
    options = Options()
    options.longdesc = ""
    process_text = PROCESS.getUsage().replace("Options:", "Options of the process:")
    # Both lists have --version and --help.
    process_text = process_text.partition("      --version")[0].rstrip()
    return "\n".join([*lines, "", options.getUsage(), process_text])


def main(words: Sequence[str]) -> int:
    """Serve, and return the exit status.

    If the start fails, an exception propagates: with it, Python exits with status 1.
    """
    config: Any = _TwistdOptions()  # type: ignore[no-untyped-call]
    try:
        line = translate(words)
        if line.wants_help:
            print(help_text())
            return 0
        config.parseOptions(
            ["--nodaemon", "--pidfile=", *line.process, "greenwsgi", *line.server]
        )
    except usage.UsageError as error:
        print(f"txgreenwsgi: {error}", file=sys.stderr)
        if HELP not in str(error):
            print(f"txgreenwsgi {HELP}", file=sys.stderr)
        return USAGE_STATUS
    twistd.runApp(config)
    return 0
