"""The runner: the way in which the application of an exchange is called.

An exchange has a task for its whole life, and asks its server's runner, in that
task, to call the application. `run_in_task` calls it right there. A runner may
also call the application elsewhere, in a real thread for instance: the task then
stays parked and performs, one at a time, the calls that the application makes to
`sink` and to the functions in `environ`. So deadlines, backpressure, disconnects,
admission and records are the same for every runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txgreenwsgi._wsgi.gateway import serve

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

__all__ = ["Runner", "run_in_task"]


class Runner(Protocol):
    """Calls an application once and sends its response to a sink."""

    def __call__(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`, iterate its response and close it. May park.

        Call in the task of the exchange. Returns when the application is done
        with the request; an exception of the application passes through.

        Args:
            application: the WSGI callable.
            environ: of the request. Everything in it that parks (`wsgi.input`, the
                functions `txgreenwsgi.*`) expects to be called in this task: a
                runner that calls the application elsewhere replaces it.
            sink: takes the response; all calls are made in this task.
        """


#: Calls the application in the exchange's own task.
run_in_task: Runner = serve
