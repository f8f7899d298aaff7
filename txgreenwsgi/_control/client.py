"""The client side of the control socket, with blocking calls.

It knows JSON lines. It must never know how results are shown.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import closing
from typing import Any, Final

from .interface import ControlError
from .paths import found_sockets

__all__ = ["ANSWER_SECONDS", "CONNECT_SECONDS", "ask", "connected", "find_server"]

#: Time to wait for a connection.
CONNECT_SECONDS: Final = 3.0

#: Time to wait for an answer, longer than the server waits for its workers.
ANSWER_SECONDS: Final = 15.0


def find_server() -> str:
    """Return the control socket of the only running server of this user.

    Raises:
        ControlError: there is none, or there are several; the message lists them.
    """
    running = [path for path in found_sockets() if _is_served(path)]
    if not running:
        raise ControlError(
            "no running server of this user was found: a server has a control socket "
            "if it has --workers or --control PATH; give --control PATH for a socket "
            "in another place"
        )
    if len(running) > 1:
        listed = "".join(f"\n  --control {path}" for path in running)
        raise ControlError(f"several servers are running, give one of these:{listed}")
    return running[0]


def _is_served(path: str) -> bool:
    try:
        with closing(connected(path)):
            return True
    except OSError:
        return False


def connected(path: str) -> socket.socket:
    """Return a socket that is connected to a server.

    Raises:
        OSError: there is none.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(CONNECT_SECONDS)
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client


def ask(
    path: str, command: str, *, timeout: float | None = ANSWER_SECONDS, **arguments: Any
) -> Any:
    """Send one request and return its result.

    Args:
        path: of the control socket.
        command: the name of the command.
        timeout: seconds to wait for the answer; None without a limit.
        arguments: of the command.

    Raises:
        ControlError: the server cannot be reached, does not answer, or refuses.
    """
    try:
        with closing(connected(path)) as client:
            client.settimeout(timeout)
            request = {"command": command, **arguments}
            client.sendall(json.dumps(request).encode("ascii") + b"\n")
            with client.makefile("rb") as answers:
                line = answers.readline()
    except TimeoutError:
        raise ControlError(
            f"the server at {path} has not answered within {timeout or 0:g} s: its "
            "reactor is blocked, or the machine is overloaded"
        ) from None
    except OSError as error:
        raise ControlError(_unreachable(path, error)) from None
    if not line.endswith(b"\n"):
        raise ControlError(f"the server at {path} has ended during the command")
    try:
        answer = json.loads(line)
        succeeded = answer["ok"]
        result = answer["result" if succeeded else "error"]
    except (ValueError, KeyError, TypeError):
        raise ControlError(
            f"{path} is not the control socket of a server: give --control PATH"
        ) from None
    if not succeeded:
        raise ControlError(result)
    return result


def _unreachable(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no control socket {path!r}: give the --control of the server"
    if error.errno == errno.ECONNREFUSED:
        return f"no server is running at {path!r}: it has ended without removing it"
    if error.errno == errno.EACCES:
        return (
            f"the control socket {path!r} belongs to another user: run the command as "
            "the user of the server"
        )
    reason = error.strerror or str(error)
    return f"the control socket {os.fspath(path)!r} cannot be used ({reason})"
