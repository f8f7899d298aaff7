"""The runner: a strategy for calling the application of an exchange.

An exchange has one task, and in that task it asks its server's runner to call the
application. `run_in_task` calls it in the same task. A runner may also call the
application elsewhere, in a real thread for instance: the task then stays parked and
performs, one at a time, the calls that the application makes to `sink` and to the
functions in `environ`. So deadlines, backpressure, disconnects, admission and
records are the same for every runner.

This file knows the gateway. It must never know the exchange or its stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txgreenwsgi._wsgi.gateway import serve
from txgreenwsgi._wsgi.strict import StrictApplication

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

__all__ = ["Runner", "run_in_task", "run_strictly"]


class Runner(Protocol):
    """Calls an application once and sends its response to a sink."""

    def __call__(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`, iterate its response and close it. May park.

        Call in the task of the exchange. Returns when the application has finished
        the request; propagates exceptions of the application.

        Args:
            application: the WSGI callable.
            environ: the environ of the request. Everything in it that parks
                (`wsgi.input`, `wsgi.early_hints`, the functions `txgreenwsgi.*`)
                must be called in this task: a runner that calls the application
                elsewhere replaces it.
            sink: the consumer of the response; call it in this task.
        """


#: The runner that calls the application in the task of the exchange.
run_in_task: Runner = serve


def run_strictly(
    application: Application, environ: WSGIEnvironment, sink: ResponseSink
) -> None:
    """Call the application as `run_in_task` does; violations of PEP 3333 are errors."""
    serve(StrictApplication(application), environ, sink)
