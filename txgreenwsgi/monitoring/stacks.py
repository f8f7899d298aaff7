"""Stacks of code lines, and the line of a stack that an operator wants to read.

It knows frames and the folders of installed code. It must never know requests, tasks or
the reactor.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import sysconfig
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate, chain, islice, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

__all__ = [
    "CodeLine",
    "Kind",
    "Stack",
    "application_line",
    "excerpt",
    "in_debugger",
    "is_event_wait",
    "kind_of",
    "stack_of_thread",
]

#: Maximum number of frames read from a stack, as deep as the report needs.
_MOST_FRAMES: Final = 100

_CODE_AND_LINE: Final = attrgetter("f_code", "f_lineno")

Kind: TypeAlias = Literal["", "garbage collection", "import", "DNS lookup"]
"""The kind of a block that has a name of its own; "" for other code."""


class CodeLine(NamedTuple):
    """One line of code.

    Attributes:
        filename: the path of the file, as the interpreter knows it.
        line: the line number, counted from 1; 0 if it is unknown.
        function: the name of the function.
    """

    filename: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} in {self.function}"


Stack: TypeAlias = tuple[CodeLine, ...]
"""The lines of a thread, the innermost first."""


def stack_of_thread(thread: int) -> Stack:
    """Return the lines of a running thread; empty if it has ended.

    Args:
        thread: its ident.

    One call without bytecode reads all frames, so the interpreter lock is not released
    in between. Otherwise the thread could go on: where a greenlet ends, its frames lead
    to memory that is freed, and to read `f_back` there ends the process.
    """
    first = islice(map(itemgetter(thread), iter(sys._current_frames, None)), 1)
    frames = accumulate(chain(first, repeat("f_back")), getattr)
    found: list[tuple[CodeType, int | None]] = []
    # A collection can run finalizers; from Python 3.12 on, it waits for bytecode.
    collects = sys.version_info < (3, 12) and gc.isenabled()
    if collects:
        gc.disable()
    try:
        # No such thread; or the outermost frame, whose f_back is None.
        with suppress(KeyError, AttributeError):
            found.extend(islice(map(_CODE_AND_LINE, frames), _MOST_FRAMES))
    finally:
        if collects:
            gc.enable()
    return tuple(
        CodeLine(code.co_filename, line or 0, code.co_name) for code, line in found
    )


def _folders(*paths: str) -> tuple[str, ...]:
    """Return prefixes of the files in some folders, with symlinks and without."""
    found = {*paths, *map(os.path.realpath, paths)}
    return tuple(path.rstrip(os.sep) + os.sep for path in found if path)


_STDLIB: Final = _folders(
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("platstdlib"),
    os.path.dirname(os.__file__),
)
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN: Final = _folders(_PACKAGE)
# The demonstration is an ordinary application.
_DEMO: Final = _folders(os.path.join(_PACKAGE, "demo"))
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_BELOW_US: Final = re.compile(
    r"[/\\](?:site|dist)-packages[/\\](?:twisted|greenlet|zope)[/\\]"
)


@lru_cache(maxsize=4096)
def _distance(filename: str) -> int:
    """Return the distance of a file from the application.

    Returns:
        0 for the application, 1 for an installed library, 2 for the standard library,
        the server and the libraries below it.
    """
    if filename.startswith(_OWN):
        return 0 if filename.startswith(_DEMO) else 2
    if _BELOW_US.search(filename):
        return 2
    if _INSTALLED.search(filename):
        return 1
    if filename.startswith((*_STDLIB, "<frozen ")):
        return 2
    return 0


def application_line(stack: Stack) -> CodeLine:
    """Return the innermost line of the application.

    If there is none, the innermost line of an installed library, which may be the
    application itself; else the innermost line.

    Args:
        stack: not empty.
    """
    return min(stack, key=lambda line: _distance(line.filename))


def excerpt(stack: Stack, line: CodeLine, count: int) -> Sequence[CodeLine]:
    """Return the innermost `count` lines that include `line`, the outermost first.

    The order is that of a traceback.
    """
    end = max(stack.index(line) + 1, count) if line in stack else count
    return stack[max(end - count, 0) : end][::-1]


def kind_of(stack: Stack) -> Kind:
    """Return the kind of block that the lines themselves show."""
    if not stack:
        return ""
    innermost = stack[0]
    # The C function has no frame of its own; its caller in socket.py has.
    if innermost.function == "getaddrinfo" and innermost.filename.endswith("socket.py"):
        return "DNS lookup"
    for line in stack:
        if line.filename.startswith("<frozen importlib"):
            return "import"
        if _distance(line.filename) == 0 and line.function != "<module>":
            break
    return ""


_DEBUGGERS: Final = frozenset(
    ["bdb.py", "pdb.py", "pydevd.py", "pydevd_frame.py", "debugger.py"]
)


def in_debugger(stack: Stack) -> bool:
    """Return whether a debugger waits for its user in this stack."""
    return any(
        os.path.basename(line.filename) in _DEBUGGERS and _distance(line.filename)
        for line in stack
    )


#: The functions of reactors and event loops that wait for events. They call no other
#: code while they wait, so they are innermost only then.
_EVENT_WAITS: Final = {
    "doKEvent": ("kqreactor.py",),
    "doPoll": ("epollreactor.py", "pollreactor.py"),
    "doSelect": ("selectreactor.py",),
    "select": ("selectors.py",),
}


@lru_cache(maxsize=4096)
def is_event_wait(code: CodeType) -> bool:
    """Return whether a thread whose innermost frame runs `code` waits for events."""
    files = _EVENT_WAITS.get(code.co_name)
    return files is not None and code.co_filename.endswith(files)
