"""The runner that answers requests for static files itself.

It knows the gateway and the settings. It must never know files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._wsgi.gateway import serve
from txgreenwsgi._wsgi.static_files import StaticDirectoryError, StaticFiles
from txgreenwsgi.settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

    from .runner import Runner

__all__ = ["StaticRunner", "static_files"]


def static_files(directories: Iterable[tuple[str, str]], max_age: float) -> StaticFiles:
    """Return the application for the setting `static`.

    Raises:
        SettingError: a directory cannot be used.
    """
    try:
        return StaticFiles(directories, max_age)
    except StaticDirectoryError as error:
        raise SettingError(
            f"static {error.given!r}",
            error.problem,
            "give the directory of the files",
        ) from None


class StaticRunner:
    """A runner that calls another one for all paths but those of static files.

    Static files never run in a thread: they need no code of the application.

    Args:
        files: the static files.
        runner: calls the application.
    """

    def __init__(self, files: StaticFiles, runner: Runner) -> None:
        self._files = files
        self._runner = runner

    def run(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`, or send a file; see `Runner`. May park."""
        if self._files.serves(environ["PATH_INFO"]):
            serve(self._files, environ, sink)
            return
        # Not `self._runner(...)`, which is looked up as a method, in the class.
        runner = self._runner
        runner(application, environ, sink)
