"""`--check-config`: everything that could prevent a start, without starting.

The options have been validated when this is called. It knows what a start opens. It
must never listen.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING, Final

from txgreenwsgi import _native
from txgreenwsgi._server.access_log import ServerAccessLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._twistd.options import Options

__all__ = ["check_start"]

# Not sys.stderr, which twistd has replaced.
_STDERR: Final = 2


def check_start(load_app: Callable[[], object], options: Options) -> tuple[str, int]:
    """Import the application, and return the report and the exit status.

    An import that takes longer than `boot_timeout` ends the process with status 1; its
    stack is printed on standard error. The import may block, as in a start.

    Raises:
        StartError: the server could not start. The message says why.
    """
    command = options.command
    if command.access_log is not None:
        ServerAccessLog(command.access_log, command.access_log_format)
    # Not a signal or a Python thread: an import that blocks in C must end too.
    faulthandler.dump_traceback_later(command.boot_timeout, exit=True, file=_STDERR)
    try:
        load_app()
    finally:
        faulthandler.cancel_dump_traceback_later()
    warnings = (*options.warnings, *options.findings)
    lines = [*(f"warning: {warning}" for warning in warnings)]
    lines += [f"fast path: {_native.description()}", "valid: "]
    lines[-1] += f"{command.app} on {', '.join(command.listen)}"
    return "".join(f"{line}\n" for line in lines), 0
