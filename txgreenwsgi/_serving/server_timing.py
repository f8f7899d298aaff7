"""The Server-Timing field of responses (W3C Server Timing).

A runner around another one adds the field when the head is sent. It knows the sink of
the gateway. It must never know how times are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._wsgi.files import FileWrapper
    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

    from .runner import Runner
    from .times import Times


__all__ = ["TimingRunner"]


class TimingRunner:
    """A runner whose responses have a Server-Timing field.

    Args:
        runner: calls the application.
        times: returns the times of the exchange that is the sink.
    """

    def __init__(self, runner: Runner, times: Callable[[ResponseSink], Times]) -> None:
        self._runner = runner
        self._times = times

    def run(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`; see `Runner`. May park."""
        runner = self._runner
        runner(application, environ, _TimingSink(sink, self._times))


class _TimingSink:
    """The sink of one response, which adds the field to its head."""

    __slots__ = ("_added", "_sink", "_times")

    def __init__(
        self, sink: ResponseSink, times: Callable[[ResponseSink], Times]
    ) -> None:
        self._sink = sink
        self._times = times
        self._added = False

    def _add(self, head: ResponseHead) -> None:
        """Add the field, unless a file with this head could not be sent as one."""
        if self._added:
            return
        self._added = True
        times = self._times(self._sink)
        head.add(
            "Server-Timing",
            f"queue;dur={times.queued * 1000:.1f}, "
            f"app;dur={times.application * 1000:.1f}, "
            f"wait;dur={times.waiting * 1000:.1f}, "
            f"blocked;dur={times.blocked * 1000:.1f}",
        )

    @property
    def code(self) -> int:
        return self._sink.code

    @property
    def bodiless(self) -> bool:
        return self._sink.bodiless

    @bodiless.setter
    def bodiless(self, bodiless: bool) -> None:
        self._sink.bodiless = bodiless

    @property
    def crosses(self) -> bool:
        return self._sink.crosses

    @property
    def error(self) -> BaseException | None:
        return self._sink.error

    @property
    def accepts_blocks(self) -> bool:
        return self._sink.accepts_blocks

    def fields_dropped(self, names: Iterable[str], place: str) -> None:
        self._sink.fields_dropped(names, place)

    def begin_iteration(self) -> None:
        self._sink.begin_iteration()

    def end_iteration(self) -> None:
        self._sink.end_iteration()

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        self._add(head)
        self._sink.begin(head, length, block)

    def respond(self, head: ResponseHead, block: bytes) -> None:
        self._add(head)
        self._sink.respond(head, block)

    def write(self, block: bytes) -> None:
        self._sink.write(block)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        if head is not None:
            self._add(head)
        return self._sink.send_file(head, body)

    def turn(self) -> None:
        self._sink.turn()

    def finish(self) -> None:
        self._sink.finish()
