"""The options of twistd that `txgreenwsgi` takes, with checks of their values.

twistd reports a wrong value with a traceback, and many of them after it has started.

It knows users, files and directories. It must never change the process.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from twisted.application.app import AppProfiler
from twisted.python import usage
from twisted.python.util import gidFromString, uidFromString

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PROCESS", "check_process_options"]


class _ProcessOptions(usage.Options):
    """The options, for `--help` and for getopt."""

    longdesc = ""
    optParameters: Final = [
        ["reactor", None, None, "Reactor to use; --help-reactors lists them."],
        ["log-file", None, None, "Log file; the default is standard output."],
        ["pidfile", None, None, "File to write the process id to. [default: none]"],
        ["uid", None, None, "User to change to when the ports are open."],
        ["gid", None, None, "Group to change to. [default: that of --uid]"],
        ["umask", None, None, "File creation mask, an octal number."],
        ["chroot", None, None, "Root directory to change to at the start."],
        ["rundir", None, None, "Directory to change to at the start."],
        ["syslog-prefix", None, None, "Prefix of messages to syslog."],
        ["logger", None, None, "Full name of a factory of log observers."],
        ["profile", None, None, "File to write a profile to."],
        ["profiler", None, None, "Name of the profiler. [default: cprofile]"],
    ]
    optFlags: Final = [
        ["syslog", None, "Log to syslog."],
        ["euid", None, "Change the effective user only."],
        ["savestats", None, "Write the profile as an object, not as text."],
        ["debug", None, "Run in the debugger of Python."],
        ["spew", None, "Print each line of code that is run."],
        ["help-reactors", None, "List the reactors, and exit."],
    ]


#: The options, as an object of `usage.Options` that parses nothing.
PROCESS: Final[Any] = _ProcessOptions()  # type: ignore[no-untyped-call]


def check_process_options(given: Mapping[str, str]) -> None:
    """Refuse values that would fail at the start.

    Args:
        given: values by name, without dashes.

    Raises:
        usage.UsageError: the message names option, value and remedy.
    """
    # Paths are resolved in the new root directory, except those of logs.
    new_root = "chroot" in given
    for name, value in given.items():
        check = _CHECKS.get(name)
        if check is None or (new_root and name in ("rundir", "pidfile", "profile")):
            continue
        problem = check(value)
        if problem:
            raise usage.UsageError(f"--{name} {value!r} {problem}")


def _number(convert: Callable[[str], object], kind: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            convert(value)
        except (KeyError, ValueError):
            return f"is not a {kind} of this machine: give a name or a number"
        return ""

    return check


def _umask(value: str) -> str:
    if re.fullmatch(r"0*[0-7]{1,3}", value):
        return ""
    return "is not a file creation mask: give an octal number such as 027"


def _directory(value: str) -> str:
    if not os.path.isdir(value):
        return "is not a directory: give an existing one"
    return ""


def _file(value: str) -> str:
    if value == "-":
        return ""
    if not value or os.path.isdir(value):
        return "is not a file: give the path of a file to write to"
    directory = os.path.dirname(os.path.abspath(value))
    if not os.path.isdir(directory):
        return f"cannot be written: make the directory {directory}, or give another"
    if not os.access(value if os.path.exists(value) else directory, os.W_OK):
        return "cannot be written: give a path that this user may write to"
    return ""


def _profiler(value: str) -> str:
    known = sorted(AppProfiler.profilers)
    if value.lower() not in known:
        return f"is not a profiler: give {' or '.join(known)}"
    return ""


_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    "uid": _number(uidFromString, "user"),
    "gid": _number(gidFromString, "group"),
    "umask": _umask,
    "chroot": _directory,
    "rundir": _directory,
    "log-file": _file,
    "pidfile": _file,
    "profile": _file,
    "profiler": _profiler,
}
