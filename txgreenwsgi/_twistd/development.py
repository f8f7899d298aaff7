"""`--reload`: the parts of master and worker that restart the worker for new code.

The worker lists the files that it has loaded; the master watches them and restarts it
while it keeps the sockets open. An application that does not start is replaced by a
page with the reason.

It knows the messages between both. It must never know how files are watched.
"""

from __future__ import annotations

import os
import pdb
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from txgreenwsgi._reloading.compiled import remove_compiled
from txgreenwsgi._reloading.failure_page import FailurePage
from txgreenwsgi._reloading.notices import DirectoryNotices, find_watch
from txgreenwsgi._reloading.reloader import Reloader
from txgreenwsgi._reloading.sources import (
    error_files,
    module_files,
    module_patterns,
    template_patterns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from txgreenwsgi._workers.master import Master
    from txgreenwsgi._workers.messages import Message
    from txgreenwsgi._workers.slots import Worker
    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["GRACE_SECONDS", "DevelopmentLoader", "use_terminal", "watch_application"]

_log = Logger()

#: Time for requests in flight to end when the worker is restarted.
GRACE_SECONDS: Final = 1.0

#: Interval at which the worker looks for modules that were imported since.
_LIST_SECONDS: Final = 1.0


def watch_application(
    master: Master, reactor: Any, patterns: Iterable[str], directory: str
) -> Reloader:
    """Watch the application's files from now on. Call before workers start.

    Args:
        master: the master, with one slot.
        reactor: the installed reactor.
        patterns: of `--reload-extra`.
        directory: that relative patterns are relative to.
    """

    def restart(changed: set[str]) -> None:
        remove_compiled(changed)
        master.restart_slot(0, GRACE_SECONDS)

    def look() -> None:
        reloader.look()

    watch = find_watch()
    notices = None if watch is None else DirectoryNotices(watch, reactor, look)
    reloader = Reloader(
        reactor,
        restart,
        [os.path.abspath(os.path.join(directory, pattern)) for pattern in patterns],
        partial(deferToThreadPool, reactor, reactor.getThreadPool()),
        None if notices is None else notices.set_directories,
    )

    def loaded(worker: Worker, message: Message) -> None:
        reloader.loaded(
            worker.number, message["files"], message["patterns"], message["failed"]
        )

    master.events["loaded"] = loaded
    _log.info(
        "watching the application's files ({how}); for development only",
        how="polling" if notices is None else "watchfiles",
    )
    reloader.start()
    return reloader


class DevelopmentLoader:
    """The worker's side: loads the application, or its failure page.

    Args:
        load_app: imports the application.
        failure: why the previous worker has ended before it was ready; "" to import
            the application.
        directory: the directory of the application's modules; None for the current.
        files: further files to watch.
    """

    def __init__(
        self,
        load_app: Callable[[], Application],
        failure: str,
        directory: str | None,
        files: Iterable[str],
    ) -> None:
        self._load_app = load_app
        self._failure = failure
        self._directory = directory or os.getcwd()
        self._files = {os.path.abspath(path) for path in files}
        self._patterns: set[str] = set()
        self._modules = 0
        self._send: Callable[[Message], object] | None = None

    def load(self) -> Application:
        """Return the application; if it does not start, a page with the reason."""
        application: Application
        if self._failure:
            application = FailurePage(self._failure)
        else:
            try:
                application = self._load_app()
            except (Exception, SystemExit) as error:
                self._failure = _reason(error)
                _log.error(
                    "the application does not start: {reason}", reason=self._failure
                )
                self._files |= error_files(error)
                application = FailurePage(self._failure)
            else:
                self._patterns = template_patterns(application)
        return application

    def report(self, send: Callable[[Message], object], clock: Any) -> None:
        """Send the list of files to the master, and later additions.

        Args:
            send: sends a message to the master.
            clock: the reactor.
        """
        self._send = send
        listing = LoopingCall(self._list_new)
        listing.clock = clock
        listing.start(_LIST_SECONDS)

    def _list_new(self) -> None:
        assert self._send is not None, "set before"
        if len(sys.modules) == self._modules:
            return
        first = not self._modules
        self._modules = len(sys.modules)
        files = module_files() - self._files
        if not files and not first:
            return
        sent = files | self._files if first else files
        self._files |= files
        patterns = self._patterns if first else set()
        if self._failure:
            patterns = patterns | module_patterns([*self._files, self._directory + "/"])
        self._send(
            {
                "event": "loaded",
                "files": sorted(sent),
                "patterns": sorted(patterns),
                "failed": bool(self._failure),
            }
        )


def _reason(error: BaseException) -> str:
    """Return the traceback of the application's code, without the server's frames."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    shown = traceback.TracebackException.from_exception(error)
    for one in _chain(shown):
        frames = [
            frame
            for frame in one.stack
            if not frame.filename.startswith(own)
            and not frame.filename.startswith("<frozen importlib")
            and os.path.join("importlib", "__init__.py") not in frame.filename
        ]
        if frames:
            one.stack[:] = frames
    return "".join(shown.format()).rstrip()


def _chain(first: traceback.TracebackException) -> list[traceback.TracebackException]:
    found: list[traceback.TracebackException] = []
    pending = [first]
    while pending:
        one = pending.pop()
        found.append(one)
        pending += [each for each in (one.__cause__, one.__context__) if each]
    return found


def use_terminal() -> None:
    """Let `breakpoint()` use the terminal, and not the log. Call in the worker.

    A no-op without a terminal, or if PYTHONBREAKPOINT names another debugger.
    """
    if os.isatty(0) and "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _debug


def _debug() -> None:
    frame: FrameType | None = sys._getframe(1)
    stdin, stdout = open(0, closefd=False), open("/dev/tty", "w")  # noqa: SIM115
    pdb.Pdb(stdin=stdin, stdout=stdout).set_trace(frame)
