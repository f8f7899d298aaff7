"""The place of a control socket: its choice, its directory, and the search for it.

By default the socket is `txgreenwsgi/PID.sock` in the user's runtime directory
(`$XDG_RUNTIME_DIR`, `/run/user/UID`), or `txgreenwsgi-UID/PID.sock` in the temporary
directory. A program that finds a socket there can rely on its owner, because only the
user may write to the directory.

It knows files. It must never connect.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .interface import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SOCKET_MODE",
    "check_directory",
    "default_path",
    "found_sockets",
    "remove_leftovers",
]

#: Of the socket: for its owner alone.
SOCKET_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700

#: Parents of the directory of a user who has no runtime directory. The first one is
#: the same for all processes, whatever their environment.
FALLBACKS: Final = ("/tmp", tempfile.gettempdir())

_NAME: Final = re.compile(r"([0-9]{1,9})\.sock\Z")


def default_path() -> str:
    """Return the path for the socket of this process, and make its directory.

    Raises:
        ControlError: there is no directory for it.
    """
    problems = []
    for directory in _directories():
        problem = _make(directory)
        if not problem:
            return os.path.join(directory, f"{os.getpid()}.sock")
        problems.append(problem)
    raise ControlError(
        f"no directory for the control socket ({'; '.join(problems)}): give --control "
        "PATH, or --control none"
    )


def check_directory(path: str) -> None:
    """Refuse a directory in which another user could replace the socket.

    Args:
        path: of the socket, absolute.

    Raises:
        ControlError: the directory is missing, belongs to another user than root, or
            others may write to it and remove files of this user.
    """
    directory = os.path.dirname(path)
    try:
        status = os.stat(directory)
    except OSError as error:
        raise ControlError(
            f"the directory of the control socket {path!r} cannot be used ({error}): "
            "give a path in an existing directory"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ControlError(
            f"{directory!r} is not a directory: give the path of a socket in one"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ControlError(
            f"the directory of the control socket {path!r} belongs to the user "
            f"{status.st_uid}: give a path in a directory of your own"
        )
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others and not status.st_mode & stat.S_ISVTX:
        raise ControlError(
            f"other users may write to the directory of the control socket {path!r}: "
            f"give a path in another directory, or run chmod go-w {directory}"
        )


def found_sockets() -> Iterator[str]:
    """Yield the sockets in the default directories of this user.

    Sockets of servers that were killed may be among them.
    """
    for directory in _directories():
        try:
            _check_own(directory)
            names = sorted(os.listdir(directory), key=lambda name: (len(name), name))
        except (OSError, ControlError):
            continue
        for name in names:
            if _NAME.match(name):
                yield os.path.join(directory, name)


def remove_leftovers(path: str) -> None:
    """Remove the sockets beside a default one whose processes have ended.

    Args:
        path: as `default_path` returns it.
    """
    directory = os.path.dirname(path)
    for name in os.listdir(directory):
        found = _NAME.match(name)
        if found and not _is_alive(int(found[1])):
            with suppress(OSError):  # another server removes it
                os.unlink(os.path.join(directory, name))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _directories() -> list[str]:
    """Return the default directories, the first choice first."""
    user = os.geteuid()
    runtime = (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}")
    found = [
        os.path.join(parent, "txgreenwsgi")
        for parent in runtime
        if os.path.isabs(parent) and _is_own(parent)
    ]
    found += [os.path.join(parent, f"txgreenwsgi-{user}") for parent in FALLBACKS]
    return list(dict.fromkeys(found))


def _is_own(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == os.geteuid()
    except OSError:
        return False


def _make(directory: str) -> str:
    """Make a directory for this user alone, or check the present one.

    Returns:
        The reason why it cannot be used; "" if it can.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(directory, _DIRECTORY_MODE)
        _check_own(directory)
    except (OSError, ControlError) as error:
        return str(error)
    return ""


def _check_own(directory: str) -> None:
    """Refuse a directory that is not for this user alone.

    Raises:
        OSError: there is none.
        ControlError: the message gives the reason.
    """
    status = os.lstat(directory)  # a link may be another user's
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ControlError(f"{directory} is not a directory of this user")
    if status.st_mode & 0o077:
        raise ControlError(
            f"other users have access to {directory}: run chmod 700 {directory}"
        )
