"""One request and its response, from the end of the head to the end of its task.

An exchange is the sink of the gateway and the source of `wsgi.input`. It sends
through a `Stream` and implements every policy that all transports share:
Content-Length accounting, failures, deadlines, disconnects, the access record.

This file must never know a transport.
"""

from __future__ import annotations

import traceback
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from txgreenwsgi._http.framing import BODILESS_CODES
from txgreenwsgi._http.writer import STATUSES, EarlyHints
from txgreenwsgi._native import lanes
from txgreenwsgi._states import TransitionTable
from txgreenwsgi._switching.errors import (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    Stopping,
)
from txgreenwsgi._switching.forks import Forked
from txgreenwsgi._switching.greenlets import Task, require_task
from txgreenwsgi._switching.thread_calls import in_task, in_task_of_thread
from txgreenwsgi._switching.waiting import sleep
from txgreenwsgi._websocket.errors import WebSocketRefused
from txgreenwsgi._wsgi.errors import Errors, set_current_errors
from txgreenwsgi._wsgi.input import Input, InputProxy, SeekableInput
from txgreenwsgi._wsgi.read_ahead import BufferedBody, EmptyBody
from txgreenwsgi.monitoring.failures import failures
from txgreenwsgi.monitoring.records import ExchangeRecord
from txgreenwsgi.origins import take_turn

from .blocks import seconds_blocked
from .body import NO_BODY, BadBody, NoBody, RequestBody, read_after_end_error
from .environ import environ_of, path_info
from .notes import note_request
from .plain_response import plain_response
from .proxies import ProxyFieldError
from .record_details import RecordDetails
from .request_stacks import stack_of_task
from .stored_body import StoredBody
from .stream import concurrent_write_error
from .upgrade import (
    ResponseAfterUpgrade,
    UpgradedStream,
    is_end_of_call,
    offer_upgrade,
    offers_websocket,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._wsgi.files import FileWrapper

    from .application_server import ApplicationServer
    from .blocks import Block
    from .health import HealthPaths
    from .limits import Limits
    from .stream import Stream

__all__ = [
    "COMPLETE",
    "CUT",
    "ENDED",
    "LIFE",
    "QUEUED",
    "RESPONDING",
    "RUNNING",
    "Exchange",
    "late_write_error",
]

_log = Logger()

#: The head was received; the application waits for a slot.
QUEUED: Final = "queued"
#: The application runs and has sent nothing.
RUNNING: Final = "running"
#: The response head was sent, the end of the response was not.
RESPONDING: Final = "responding"
#: The response is complete; the application may still be in `close()`.
COMPLETE: Final = "complete"
#: The stream is no longer usable; the application may still run.
CUT: Final = "cut"
#: The task has ended or was never started.
ENDED: Final = "ended"

LIFE: Final = TransitionTable(
    "an exchange",
    {
        QUEUED: {"start": RUNNING, "refuse": ENDED, "lose": ENDED},
        RUNNING: {"respond": RESPONDING, "answer": COMPLETE, "cut": CUT, "end": ENDED},
        RESPONDING: {"finish": COMPLETE, "cut": CUT, "end": ENDED},
        # Killing the task ends the exchange in any state.
        COMPLETE: {"end": ENDED},
        CUT: {"end": ENDED},
        ENDED: {},
    },
)

# Precomputed for the hot path, which has already checked the current state.
_STARTED: Final = LIFE.after(QUEUED, "start")
_RESPONDED: Final = LIFE.after(RUNNING, "respond")
_FINISHED: Final = LIFE.after(RESPONDING, "finish")
_TASK_ENDED: Final = LIFE.after(COMPLETE, "end")
_ON_REFUSE: Final = LIFE.moves("refuse")
_ON_LOSE: Final = LIFE.moves("lose")
_ON_ANSWER: Final = LIFE.moves("answer")
_ON_CUT: Final = LIFE.moves("cut")

#: Maximum size of one sendfile() call, which blocks the reactor while it runs.
_FILE_BYTES = 1024 * 1024

#: Time without a byte of a chunked body after which its client is assumed to wait for
#: the application, so that the application starts.
PAUSE_SECONDS: Final = 1.0

#: Maximum number of warnings about dropped response fields.
_DROPPED_FIELDS = 1000

_NEVER = float("inf")
_UNKNOWN = -1


def late_write_error() -> ValueError:
    """Return the error of a write after the end of the response."""
    return ValueError("the response was written to after its end")


@lanes.with_lanes
class Exchange(lanes.ExchangeState):
    """One request and its response.

    Args:
        stream: carries the request.
        server: the application's server.
        head: the request head.
        complete: whether the request has no body.

    Attributes:
        state: one of the states of `LIFE`.
        outcome: the outcome so far, final when the exchange has ended: see
            `OUTCOMES` in `monitoring/records.py`.
        stream: as given.
        server: as given.
        head: as given.
        limits: the limits of this request.
        body: the request body.
        errors: the `wsgi.errors` of the request; None before the environ is built.
        request_id: identity of the request in log lines.
        started: reactor time at which the head was complete.
        task: the task that runs the application; None before it starts.
        error: the error that cut the exchange, raised by each further read and
            write; None otherwise.
        code: the status code that was sent; 0 before.
        bytes_sent: the length of the response body sent so far, without framing.
        iterating: whether the application's iterable is being iterated.
        ends: both ends of the connection, as the first trusted proxy saw them.
        bodiless: whether method or status exclude a response body.
        blocks: the blocks of the reactor by this request, which the monitor adds; None
            if there are none.
        deadline: reactor time at which the request times out, `stalled` excluded.
        stalled: duration of the stalls of the reactor during the request, in seconds.
    """

    crosses: Final = False

    __slots__ = lanes.slots(
        lanes.ExchangeState,
        (
            "_awaits_stop",
            "_left",
            "_started_unix",
            "_yielding",
            "blocks",
            "bodiless",
            "body",
            "bytes_sent",
            "code",
            "deadline",
            "details",
            "ends",
            "error",
            "errors",
            "head",
            "iterating",
            "limits",
            "outcome",
            "request_id",
            "server",
            "stalled",
            "started",
            "state",
            "stream",
            "task",
        ),
    )

    def __init__(
        self,
        stream: Stream,
        server: ApplicationServer,
        head: RequestHead,
        complete: bool = False,
    ) -> None:
        self.state = QUEUED
        self.outcome = "finished"
        self.stream = stream
        self.server = server
        self.head = head
        self.ends = stream.ends
        self.limits = limits = server.limits
        self.body: RequestBody | NoBody | UpgradedStream
        self.body = NO_BODY if complete else RequestBody(stream, head, limits)
        table = server.table
        self.request_id = table.next_id()
        seconds = server.hub.seconds
        self.started = now = seconds()
        self._started_unix = time() if table.observers else 0.0
        self.task: Task[None] | None = None
        self.errors: Errors | None = None
        self.error: BaseException | None = None
        self.code = 0
        self.bytes_sent = 0
        self.iterating = False
        self.bodiless = False
        self.blocks: list[Block] | None = None
        self.details: RecordDetails | None = None
        limit = limits.request_seconds
        self.deadline = now + limit if limit else _NEVER
        self.stalled = 0.0
        # Bytes of the response body still to be sent; _UNKNOWN if the application
        # gives no length.
        self._left = _UNKNOWN
        # Whether the application gets `Stopping` when the server stops.
        self._awaits_stop = False
        # Whether the task is parked because the application has yielded b"".
        self._yielding = False
        table.exchanges.add(self)

    def __repr__(self) -> str:
        target = self.head.target.decode("latin-1")
        return f"{self.head.method} {target} (request {self.request_id})"

    # Lifecycle. Called by the stream and the server, in the reactor greenlet.

    def admit(self) -> None:
        """Start the application, enqueue the request, or reject it.

        Call once, while the state is QUEUED.
        """
        if self.state is not QUEUED:
            LIFE.after(self.state, "start")  # raises
        limits = self.limits
        if limits.examines_heads and self._answer_by_head(limits):
            return
        length = self.head.content_length
        limit = limits.body_bytes
        if length and limit and length > limit:
            self._refuse("413 Content Too Large", f"at most {limit} bytes are accepted")
            return
        admission = self.server.admission
        if admission.acquire():
            self._start()
        elif not admission.enqueue(self):
            self._refuse("503 Service Unavailable", "too many requests at once", 1)

    def _answer_by_head(self, limits: Limits) -> bool:
        """Answer a request without the application; return False if it is needed."""
        head = self.head
        if limits.proxies is not None:
            try:
                self.ends = limits.proxies.ends_behind(head.variables, self.ends)
            except ProxyFieldError as error:
                self._refuse("400 Bad Request", str(error))
                return True
        if limits.health is not None and self._path_info() in limits.health.paths:
            self._answer_health(limits.health)
            return True
        if limits.methods and head.method not in limits.methods:
            self._refuse(
                "405 Method Not Allowed",
                f"the method {head.method} is not allowed",
                allow=", ".join(limits.methods),
            )
            return True
        return False

    def _answer_health(self, health: HealthPaths) -> None:
        """Answer a health check, after which the connection persists."""
        self.state = _ON_REFUSE[self.state]
        answer = health.answer_to(
            self.head.method, self._path_info(), self.server.unready_reason
        )
        if answer.allow:
            self.outcome = "refused"
        self._send_plain(*plain_response(*answer, no_store=True), last=False)
        self.server.exchange_ended(self)
        self.stream.ended(self)

    def _path_info(self) -> str:
        return path_info(self.server.environ, self.head)

    def start(self) -> None:
        """Run the application in the slot that the admission queue assigned."""
        if self.state is QUEUED:
            times = self.server.times
            if times is not None:
                times.dequeued(self)
            self._start()
        else:
            # Rejected, or the client disconnected, after the slot was assigned.
            self.server.release_slot()

    def _start(self) -> None:
        """Run the application until it first parks."""
        server = self.server
        self.state = _STARTED
        hub = server.hub
        self.task = task = Task(
            hub,
            self._run,
            (),
            None,
            server.context.copy(),
            "request",
            [self._task_ended],
        )
        note = server.note
        if note is None:
            hub.start(task)
        else:
            # Not a function: this is the hot path of a worker.
            head = self.head
            try:
                note.request_id = self.request_id
                note.method = head.method
                note.target = head.target
                note.running = 1
            except ValueError:
                note_request(note, self.request_id, head)
            hub.start(task)
            note.running = 0

    def _task_ended(self) -> None:
        self.state = _TASK_ENDED
        body = self.body
        if body is not NO_BODY and (
            body.held or not body.complete or body.error is not None
        ):
            body.drop()
        error = self.error
        if error is not None:
            # Drop the traceback: its frames refer to this object, and the cycle
            # would keep the whole request alive until the garbage collector runs.
            self.error = type(error)(*error.args)
        stream = self.stream
        writer = stream.waiting
        if writer is not None:
            # Another task of the application is parked in a write.
            writer.abandon(late_write_error())
        errors = self.errors
        if errors is not None and (errors.partial_line or errors.partial_output):
            errors.end()
        server = self.server
        task = self.task
        if task is not None and task.measured:
            server.measured_task_ended(task, self.head, self.code)
        admitted = server.admission.release()
        server.exchange_ended(self)
        stream.ended(self)
        if admitted is not None:
            # Start it from the reactor loop: a chain of short requests must not
            # recurse.
            server.hub.at_next_turn(admitted.start)

    def refuse(self, status: str, text: str, retry_after: int = 0) -> None:
        """Reject a queued request without calling the application."""
        self.server.admission.remove(self)
        self._refuse(status, text, retry_after)

    def _refuse(
        self, status: str, text: str, retry_after: int = 0, allow: str = ""
    ) -> None:
        self.state = _ON_REFUSE[self.state]
        self.outcome = "refused"
        self._send_answer(status, text, retry_after, allow)
        self.server.exchange_ended(self)
        self.stream.ended(self)

    def cut(self, error: BaseException, outcome: str, every_wait: bool = False) -> None:
        """Raise `error` in every further read and write of the application.

        Reads and writes in progress, and waits during the iteration of the response,
        raise it now. Other waits continue unless `every_wait` is set. A no-op if
        the response is complete or the exchange was already cut.
        """
        state = self.state
        if state is not RUNNING and state is not RESPONDING:
            return
        self.state = _ON_CUT[state]
        self.error = error
        self.outcome = outcome
        self.body.cut(error)
        task = self.task
        interrupted = False
        for wait in (self.body.reader, self.stream.waiting):
            if wait is not None:
                # The waiter may be another task that the application started.
                interrupted |= wait.task is task
                wait.abandon(error)
        if (
            task is not None
            and not interrupted
            and (every_wait or self.iterating)
            and task.state != "running"  # its current call raises the error
        ):
            task.interrupt(error)

    def peer_lost(self) -> None:
        """Handle the loss of the client."""
        state = self.state
        if state is QUEUED:
            self.state = _ON_LOSE[state]
            self.outcome = "disconnected"
            self.server.admission.remove(self)
            self.server.exchange_ended(self)
            self.stream.ended(self)
            return
        error = ClientDisconnected("the client has closed the connection")
        if isinstance(self.body, UpgradedStream):
            self._lose_upgraded(self.body, error)
        elif state is RUNNING or state is RESPONDING:
            self.cut(error, "disconnected", self.limits.cancel_on_disconnect)
        else:
            self.body.lose(error)  # close() may be reading it

    def server_stops(self) -> None:
        """Raise `Stopping` at the application's wait, if it has asked for it.

        Only in the application's own code, where it can be caught, and not in a wait
        of the server, such as that for a slow client: `check` tries again.
        """
        if isinstance(self.body, UpgradedStream):
            self.body.server_stops()
        if not self._awaits_stop:
            return
        task = self.task
        wait = None if task is None else task.suspension
        output = self.stream.output
        if (
            task is None
            or wait is None
            or task.shield_depth
            or self._yielding
            or wait is output.waiting
            or output.flushing
            or (self.state is not RUNNING and self.state is not RESPONDING)
        ):
            return
        self._awaits_stop = False
        task.interrupt(Stopping("the server is stopping"))

    def cancel(self, reason: str = "the server is stopping") -> None:
        """Raise `Cancelled` at the current wait, at the end of a grace period say."""
        if self.state is QUEUED:
            self.refuse("503 Service Unavailable", reason, 1)
        else:
            self._interrupt(Cancelled(reason), "cancelled")

    def kill(self) -> None:
        """End the task without waiting for it; only for a process that exits."""
        if self.state is RUNNING or self.state is RESPONDING:
            self.outcome = "cancelled"
        if self.task is not None:
            self.task.kill()

    def leave_to_parent(self) -> None:
        """Send nothing more: this is the child of a fork.

        The connection belongs to the parent. All further reads and writes of the
        application raise `Forked`.
        """
        if self.state is RUNNING or self.state is RESPONDING:
            self.state = _ON_CUT[self.state]
        self.error = error = Forked(
            f"{self} belongs to the parent process: the child of a fork can neither "
            "read its body nor send its response"
        )
        self.body.cut(error)

    def _interrupt(self, error: BaseException, outcome: str) -> None:
        """Raise `error` at the application's current wait, of any kind."""
        if self.state is RUNNING or self.state is RESPONDING:
            self.cut(error, outcome, every_wait=True)
        elif self.task is not None:
            # The response is complete or the client is gone.
            self.task.interrupt(error)

    # Deadlines. Called in the reactor greenlet.

    def check(self, now: float) -> None:
        """Apply the deadlines of the request; `now` is the reactor's clock."""
        limits = self.limits
        expired = now - self.stalled >= self.deadline
        if self.state is QUEUED:
            limit = limits.queue_seconds
            if expired:
                limit = now - self.started
            elif not limit or now - self.stalled - self.started < limit:
                return
            self.refuse(
                "503 Service Unavailable",
                f"no slot became free in {limit:g} seconds",
                1,
            )
            return
        if expired:
            self._time_out(now - self.started)
            return
        self.body.check(now)
        writer = self.stream.waiting
        limit = limits.write_seconds
        if writer is not None and limit and now - writer.idle_since >= limit:
            _log.info(
                "write timeout: the client of {request} accepted no byte for {limit:g} "
                "seconds, closing the connection",
                request=self,
                limit=limit,
            )
            text = f"the client accepted no byte for {limit:g} seconds"
            self.cut(ClientDisconnected(text), "timeout")
            self.stream.reset()
        if self._awaits_stop and self.server.shutdown.stopping:
            self.server_stops()

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""
        self.stalled += min(seconds, now - self.started)
        for wait in (self.body.reader, self.stream.waiting):
            if wait is not None:
                wait.discount(seconds, now)

    def _time_out(self, seconds: float) -> None:
        self.deadline = _NEVER
        _log.warn(
            "request timeout: {request} took longer than {seconds:.1f} seconds",
            request=self,
            seconds=seconds,
        )
        head = self.head
        failures.add_text(
            "request timeout",
            "" if self.task is None else stack_of_task(self.task),
            self.request_id,
            head.method,
            head.path,
        )
        error = RequestTimeout(f"the request took longer than {seconds:.1f} seconds")
        state = self.state
        if state is RUNNING:
            # Before the interruption, which runs the application to its end.
            self.body.cut(error)
            self._send_answer("504 Gateway Timeout", "Gateway Timeout")
        self._interrupt(error, "timeout")
        if state is RESPONDING:
            self.stream.reset()

    def set_request_timeout(self, seconds: float | None) -> None:
        """Set the deadline of this request to `seconds` from now; None for no limit.

        Overrides the server's setting for this request. Call from any task of the
        request; never parks.

        Raises:
            ValueError: `seconds` is not a number above 0, nor None.
        """
        if seconds is None:
            self.deadline = _NEVER
            return
        given: object = seconds
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if not number or not seconds > 0:
            raise ValueError(
                f"set_request_timeout({seconds!r}): not a number of seconds; give a "
                "number above 0, or None for no limit"
            )
        reactor = self.server.reactor
        stalled = self.stalled + self.server.deadlines.stalled_seconds(reactor)
        self.deadline = reactor.seconds() - stalled + seconds

    def replace_limits(self, limits: Limits) -> None:
        """Apply other limits to this request only.

        A changed `request_seconds` counts from the start of the request. Call from
        the reactor greenlet or from a task of the request; never parks.
        """
        if limits.request_seconds != self.limits.request_seconds:
            seconds = limits.request_seconds
            self.deadline = self.started + seconds if seconds else _NEVER
        self.limits = limits
        if isinstance(self.body, RequestBody):
            self.body.limits = limits

    # The application's side. Called in the task.

    def _run(self) -> None:
        """Call the application; answer its failure."""
        server = self.server
        body = self.body
        try:
            if body is not NO_BODY:
                self._run_with_body(body)  # type: ignore[arg-type]
                return
            if server.settings.buffer_input or self.stream.body_is_stored:
                environ = self._environ(SeekableInput(EmptyBody(self)))
            else:
                environ = self._environ(Input(self))
            if self.head.content_length is None and server.settings.chunked != "stream":
                _set_whole(environ, EmptyBody(self))
            # Not `server.runner(...)`, which is looked up as a method, in the class.
            runner = server.runner
            runner(server.application, environ, self)
        except BaseException as error:  # SystemExit ends only the request
            if self._propagates():
                raise
            self._failed(error)

    def _propagates(self) -> bool:
        """Return whether an exception of the application ends its task."""
        dying = self.task is not None and self.task.dying
        return dying or isinstance(self.error, Forked)  # `end_child` exits

    def _run_with_body(self, body: RequestBody) -> None:
        """Call the application, after its body was received if it must be complete."""
        server = self.server
        settings = server.settings
        runner = server.runner
        if self.head.upgrade and offers_websocket(self.head):
            # What follows the head belongs to the other protocol.
            runner(server.application, self._environ(Input(body)), self)
            return
        if self.stream.body_is_stored:
            file = self.stream.stored_body()
            if file is not None:
                stored = StoredBody(file, self.head.content_length or 0, body)
                environ = self._environ(SeekableInput(stored))
                runner(server.application, environ, self)
                return
        if self.head.content_length is not None and not settings.buffer_input:
            runner(server.application, self._environ(Input(body)), self)
            return
        memory = settings.buffer_memory
        if not settings.buffer_input:
            # Every client can send such a body: it must not take more memory than a
            # streamed one.
            memory = min(memory, self.limits.input_window // 2)
        ahead = BufferedBody(body, server.reactor, memory)
        try:
            if settings.buffer_input or settings.chunked != "stream":
                if settings.chunked == "auto" and not settings.buffer_input:
                    body.pause_seconds = PAUSE_SECONDS
                ahead.receive_ahead()
                body.pause_seconds = 0.0
            given = Input(ahead)
            environ = self._environ(given)
            if ahead.complete:
                _set_whole(environ, ahead)
            else:
                buffer_input = partial(_buffer_input, ahead, given)
                environ["txgreenwsgi.buffer_input"] = partial(in_task, buffer_input)
            runner(server.application, environ, self)
            if not ahead.begun and not ahead.complete and settings.chunked == "auto":
                _log.info(
                    "{request}: the application did not read the chunked request body, "
                    "whose client had paused; if it needs CONTENT_LENGTH, serve it "
                    "with --chunked buffer",
                    request=self,
                )
        finally:
            ahead.close()

    def _environ(self, body: Input) -> WSGIEnvironment:
        server = self.server
        head = self.head
        table = server.table
        environ = environ_of(server.environ, head, self.ends, table.observers)
        request_id = self.request_id
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = self.errors = errors = Errors(request_id)
        set_current_errors(errors)
        if "HTTP_TRACEPARENT" in environ:
            errors.traceparent = environ["HTTP_TRACEPARENT"]
        environ["txgreenwsgi.request_id"] = request_id
        environ["txgreenwsgi.client_disconnected"] = environ[
            "waitress.client_disconnected"
        ] = self.client_disconnected
        environ["txgreenwsgi.set_request_timeout"] = self.set_request_timeout
        environ["txgreenwsgi.stopping"] = self.stopping
        environ["wsgi.early_hints"] = self.send_early_hints
        if head.upgrade and offers_websocket(head):
            offer_upgrade(self, environ)
        if server.settings.environ:
            # The deployer's variables override those of the client and connection.
            environ.update(server.settings.environ)
        if table.needs:
            self.details = RecordDetails(environ)
        return environ

    def client_disconnected(self) -> bool:
        """Return whether the client is known to have disconnected. Never parks."""
        return not self.stream.connected

    def stopping(self) -> bool:
        """Return whether the server is stopping, and ask to be interrupted then.

        `environ["txgreenwsgi.stopping"]`, for endless responses. If it returns False,
        `Stopping` is raised once when the server stops, at a wait of the application,
        so that it can send its last block and end. Call from any task or thread of the
        request; never parks.
        """
        stopping = self.server.shutdown.stopping
        self._awaits_stop = not stopping
        return stopping

    def send_early_hints(self, headers: Iterable[tuple[str, str]]) -> None:
        """Send header fields in a 103 response, before the response. May park.

        `environ["wsgi.early_hints"]` (RFC 8297). May be called several times. A no-op
        for an HTTP/1.0 client, and without fields.

        Args:
            headers: pairs of name and value, such as `("Link", "</a.css>;
                rel=preload; as=style")`.

        Raises:
            ClientDisconnected: the client has disconnected.
            NotInGreenlet: not called from a task, so it could not park.
            RuntimeError: the response has begun.
            TypeError: `headers` are not pairs of str.
            ValueError: a field cannot be sent in an interim response.
        """
        if (call := in_task_of_thread()) is not None:
            call(self.send_early_hints, headers)
            return
        require_task("wsgi.early_hints()")
        hints = EarlyHints(headers)
        if self.error is not None:
            raise self.error
        if self.state is not RUNNING:
            raise RuntimeError(
                "wsgi.early_hints() was called after the response had begun: call it "
                "before the first block of the body (RFC 8297)"
            )
        if self.stream.output.waiting is not None:
            raise concurrent_write_error()
        if hints.fields() and self.head.version != "HTTP/1.0":
            self.stream.early_hints(hints)
            self._yield_if_due()

    # `wsgi.input` of a request without a body.

    def receive(self, wanted: int = 0) -> bytes:
        """Return b"", or raise as `RequestBody.receive` does. Never parks."""
        if self.error is not None:
            raise self.error
        if self.state is ENDED:
            raise read_after_end_error()
        return b""

    def reader_turn(self) -> None:
        """Park for a reactor turn. Raises the error of a cut exchange."""
        self.receive()
        sleep(0)

    # The sink of the gateway.

    def fields_dropped(self, names: Iterable[str], place: str) -> None:
        """Log dropped hop-by-hop fields, once for each place in the application."""
        seen = self.server.dropped_fields
        for name in names:
            key = (name.lower(), place)
            if key not in seen and len(seen) < _DROPPED_FIELDS:
                seen.add(key)
                _log.warn(
                    "hop-by-hop response field dropped: {name}, set at {place} for "
                    "{request}; remove it, because the server manages the connection "
                    "(PEP 3333). Logged once for this place.",
                    name=name,
                    place=place,
                    request=self,
                )

    @property
    def accepts_blocks(self) -> bool:
        """Whether `write` would neither raise nor wait, as far as is known."""
        return self.state is RESPONDING and self.stream.output.waiting is None

    def begin_iteration(self) -> None:
        """Mark the start of the iteration.

        From here on, a disconnect interrupts the waits of the iteration.
        """
        if self.error is not None:
            raise self.error
        self.iterating = True

    def end_iteration(self) -> None:
        """Mark the end of the iteration: a disconnect must not interrupt `close()`."""
        self.iterating = False
        if self.task is not None and isinstance(self.error, ClientDisconnected):
            self.task.withdraw(self.error)

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Send the head and the first block in one write. May park."""
        stream = self.stream
        if self.state is not RUNNING or stream.output.waiting is not None:
            self._refuse_write()
        if head.content_length is not None:
            length = head.content_length
        end = excess = False
        if head.code in BODILESS_CODES or self.head.method == "HEAD":
            self.bodiless = end = True
            block = b""
            self._left = 0
        elif length is not None:
            left = length - len(block)
            if left < 0:
                excess = True
                block = block[:length]
                left = 0
            self._left = left
            end = not left
        self.state = _RESPONDED
        self.code = head.code
        self.bytes_sent = len(block)
        metrics = self.server.metrics
        if metrics is not None:
            metrics.begun(self)
        if self.details is not None:
            self.details.head = head
        stream.start(head, length, block, end)
        if not end:
            self._yield_if_due()
        elif excess:
            if not block:
                raise _BodyTooLong
            self._log_too_long()

    def respond(self, head: ResponseHead, block: bytes) -> None:
        """Send a complete response whose body is one block. May park."""
        length = len(block)
        given = head.content_length
        if (
            (given is not None and given != length)
            or head.code in BODILESS_CODES
            or self.head.method == "HEAD"
        ):
            self.begin(head, length, block)
            self.finish()
            return
        # The common case of `begin` and `finish`.
        stream = self.stream
        if self.state is not RUNNING or stream.output.waiting is not None:
            self._refuse_write()
        self.state = _RESPONDED
        self.code = head.code
        self.bytes_sent = length
        self._left = 0
        if self.details is not None:
            self.details.head = head
        stream.start(head, length, block, True)
        if self.state is not RESPONDING:
            self._refuse_write()
        stream.finish()
        if self.state is RESPONDING:
            self.state = _FINISHED

    def write(self, block: bytes) -> None:
        """Send a further block. Parks under backpressure."""
        stream = self.stream
        if self.state is not RESPONDING or stream.output.waiting is not None:
            self._refuse_write()
        left = self._left
        if left >= 0:
            if len(block) > left:
                if self.bodiless:
                    self._yield_if_due()  # the application may write forever
                    return
                if not left:
                    raise _BodyTooLong
                self._log_too_long()
                block = block[:left]
            self._left = left - len(block)
        self.bytes_sent += len(block)
        stream.data(block)
        # `_yield_if_due`, inlined: this runs once for each block.
        hub = self.server.hub
        if hub.seconds() - hub.resumed_at > hub.slice_seconds:
            hub.yielded_at = hub.resumed_at
            stream.output.turn()

    def _yield_if_due(self) -> None:
        """Park for a reactor turn if the task has used up its time slice."""
        hub = self.server.hub
        if hub.seconds() - hub.resumed_at > hub.slice_seconds:
            self.stream.output.turn()

    def _refuse_write(self) -> NoReturn:
        if isinstance(self.body, UpgradedStream):
            raise ResponseAfterUpgrade
        if self.error is not None:
            raise self.error
        if self.state is not ENDED and self.stream.output.waiting is not None:
            # Not later: the block would be counted, and never be sent.
            raise concurrent_write_error()
        # Another task of the application still holds `write`. The client would
        # take its bytes for a part of the next response.
        raise late_write_error()

    def _log_too_long(self) -> None:
        if self.outcome != "error":
            self.outcome = "error"
            _log.error(
                "{request}: response body is longer than its Content-Length, truncated",
                request=self,
            )

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Send a whole body with sendfile(); return False if unusable. May park."""
        if head is None:
            return False
        found = body.regular_file()
        if found is None:
            return False
        stream = self.stream
        if self.state is not RUNNING or stream.output.waiting is not None:
            self._refuse_write()
        fd, offset, count = found
        if head.content_length is not None:
            count = min(count, head.content_length)
        if not count or head.code in BODILESS_CODES or self.head.method == "HEAD":
            self.begin(head, count, b"")
            return True
        length = count if head.content_length is None else head.content_length
        self.state = _RESPONDED
        self.code = head.code
        metrics = self.server.metrics
        if metrics is not None:
            metrics.begun(self)
        if self.details is not None:
            self.details.head = head
        self._left = length
        sent = stream.send_file(head, length, fd, offset, min(count, _FILE_BYTES))
        if sent is None:
            for block in body.blocks(count):
                self.write(block)
            return True
        while True:
            self._left -= sent
            self.bytes_sent += sent
            offset += sent
            count -= sent
            if not count or not sent:  # the end, also of a file that was truncated
                return True
            stream.output.turn()
            sent = stream.more_of_file(fd, offset, min(count, _FILE_BYTES))

    def turn(self) -> None:
        """Park until the event that the application asked for by yielding b""."""
        if self.error is not None:
            raise self.error
        self._yielding = True
        try:
            take_turn()
        finally:
            self._yielding = False

    def finish(self) -> None:
        """End the response; truncate it detectably if it is too short."""
        if self.state is not RESPONDING:
            self._refuse_write()
        if self._left > 0:
            _log.error(
                "{request}: response body ended {left} bytes before its "
                "Content-Length, closing the connection",
                request=self,
                left=self._left,
            )
            self.outcome = "error"
            self._break_off()
            return
        self.stream.finish()
        if self.state is RESPONDING:
            self.state = _FINISHED

    def _break_off(self) -> None:
        self.state = _ON_CUT[self.state]
        self.stream.break_off()

    # Switching to another protocol. Called in a task of the request.

    def upgrade(self, protocol: str, head: ResponseHead | None) -> UpgradedStream:
        """Switch to another protocol; return the byte stream. May park.

        Args:
            protocol: the new protocol, such as "websocket".
            head: the fields of the response; None if the application sends it.

        Raises:
            ClientDisconnected: the client has disconnected.
            RuntimeError: the response has begun.
        """
        if self.error is not None:
            raise self.error
        if self.state is not RUNNING or self.stream.output.waiting is not None:
            raise RuntimeError(
                f"{self}: the response has begun, so the connection cannot switch to "
                f"{protocol}: switch before start_response is called"
            )
        self.state = _RESPONDED
        self.deadline = _NEVER  # the requested time limit is that of a response
        if head is not None:
            self.code = 200 if self.head.method == "CONNECT" else 101
            metrics = self.server.metrics
            if metrics is not None:
                metrics.begun(self)
            if self.details is not None:
                self.details.head = head
        self.body = upgraded = UpgradedStream(self, self.body)
        self.stream.upgrade(protocol, head)
        return upgraded

    @property
    def is_upgraded(self) -> bool:
        """Whether the connection was switched to another protocol."""
        return isinstance(self.body, UpgradedStream) and self.outcome != "refused"

    def refuse_upgrade(self, error: WebSocketRefused) -> None:
        """Answer a request that cannot be upgraded. Never parks.

        Whatever the application sends afterwards is discarded.
        """
        if self.state is RUNNING:
            self.state = _ON_ANSWER[self.state]
            self.outcome = "refused"
            self._send_plain(*refusal(error))
            self.body = UpgradedStream(self, NO_BODY)
            self.body.drop()

    def end_upgraded_sending(self) -> None:
        """End the sending side of an upgraded stream; it still receives."""
        if self.state is RESPONDING:
            self.stream.end_sending()

    def end_upgraded(self) -> None:
        """End an upgraded stream. May park."""
        if self.state is RESPONDING:
            self.stream.finish()
            if self.state is RESPONDING:
                self.state = _FINISHED

    def _lose_upgraded(self, body: UpgradedStream, error: ClientDisconnected) -> None:
        """Handle the loss of the client of an upgraded stream: its end of input."""
        if self.state is RESPONDING:
            self.state = _ON_CUT[self.state]
            self.error = error
            task = self.task
            if self.limits.cancel_on_disconnect and task is not None:
                task.interrupt(error)
        if self.stream.output.waiting is not None:
            self.stream.output.waiting.abandon(error)
        body.ended()

    def _upgraded_call_ended(self, body: UpgradedStream, error: BaseException) -> None:
        """Close an upgraded stream at the end of the application's call."""
        failed = not is_end_of_call(error)
        if isinstance(error, ClientDisconnected):
            if self.outcome == "finished":
                self.outcome = "disconnected"
        elif isinstance(error, Cancelled):
            if self.outcome == "finished":
                self.outcome = "cancelled"
        elif failed:
            if error is not self.error:
                self._log_failure(error)
            if self.outcome == "finished":
                self.outcome = "error"
        body.call_ended(failed)

    # Failures of the application.

    def _failed(self, error: BaseException) -> None:
        """Answer an exception of the application, or truncate the response."""
        state = self.state
        if isinstance(self.body, UpgradedStream):
            self._upgraded_call_ended(self.body, error)
            return
        if isinstance(error, WebSocketRefused) and state is RUNNING:
            self.refuse_upgrade(error)
            return
        if isinstance(error, _BodyTooLong):
            # The client has received the whole Content-Length, unless it left.
            self._log_too_long()
            if state is RESPONDING:
                if self.stream.output.waiting is None:
                    self.finish()
                else:
                    self._break_off()
            return
        if state is COMPLETE:
            # close() failed.
            if not (isinstance(error, ClientDisconnected) and error is self.body.error):
                self._log_failure(error)
            return
        interrupted = self.error is not None and isinstance(
            error, (ClientDisconnected, RequestTimeout, Cancelled)
        )
        bad_body = error is self.body.error and isinstance(error, BadBody)
        stopped = isinstance(error, Stopping)
        if not interrupted and not bad_body and not stopped:
            self._log_failure(error)
        if self.error is None:
            self.outcome = "cancelled" if stopped else "error"
        if state is RESPONDING:
            self._break_off()
        elif state is RUNNING:
            self.state = _ON_ANSWER[state]
            if isinstance(error, BadBody) and bad_body:
                self._send_answer(STATUSES[error.status], self._failure_text(error))
            elif stopped:
                self._send_answer(
                    "503 Service Unavailable", "the server is stopping", 1
                )
            else:
                self._send_answer(
                    "500 Internal Server Error", self._failure_text(error)
                )
            # Another task of the application may be reading it.
            self.body.lose(read_after_end_error())
        elif isinstance(self.error, Cancelled):
            if self.code:
                self.stream.break_off()
            else:
                self._send_answer("503 Service Unavailable", "Service Unavailable")

    def _failure_text(self, error: BaseException) -> str:
        if isinstance(error, BadBody):
            return f"{STATUSES[error.status][4:]}\n{error}\n"
        text = "Internal Server Error\n"
        if self.server.settings.display_tracebacks:
            text += "\n" + "".join(traceback.format_exception(error))
        return text

    def _log_failure(self, error: BaseException) -> None:
        _log.failure("{request} failed", failure=Failure(error), request=self)
        failures.add(error, self.request_id, self.head.method, self.head.path)

    def _send_answer(
        self, status: str, text: str, retry_after: int = 0, allow: str = ""
    ) -> None:
        """Send a complete server response, unless the client is gone."""
        self._send_plain(*plain_response(status, text, retry_after, allow))

    def _send_plain(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        if not self.stream.connected:
            return
        self.code = head.code
        self.bytes_sent = 0 if self.head.method == "HEAD" else len(body)
        metrics = self.server.metrics
        if metrics is not None:
            metrics.begun(self)
        if self.server.table.needs:
            self.details = self.details or RecordDetails(self.head.variables)
            self.details.head = head
        self.stream.answer(head, body, last)

    # Observability.

    def record(self) -> ExchangeRecord:
        """Return the record of the ended exchange."""
        head = self.head
        ends = self.ends
        # The environ refers to this exchange: keep no cycle.
        details, self.details = self.details, None
        optional: dict[str, Any] = {}
        if self.server.table.needs:
            details = details or RecordDetails(head.variables)
            optional = details.fields(self.server.table.needs)
        if self.server.times is not None:
            times = self.server.times.of(self)
            optional["queued"], optional["waiting"] = times.queued, times.waiting
        health = self.limits.health
        return ExchangeRecord(
            remote_addr=ends.remote_addr,
            remote_port=ends.remote_port,
            started=self._started_unix,
            duration=self.server.reactor.seconds() - self.started,
            method=head.method,
            target=head.target.decode("latin-1"),
            version=head.version,
            status=self.code,
            bytes_sent=self.bytes_sent,
            request_id=self.request_id,
            referer=head.variables.get("HTTP_REFERER", ""),
            user_agent=head.variables.get("HTTP_USER_AGENT", ""),
            outcome=self.outcome,
            blocked=0.0 if self.blocks is None else seconds_blocked(self.blocks),
            traceparent=head.variables.get("HTTP_TRACEPARENT", ""),
            **optional,
            health=health is not None and self._path_info() in health.paths,
        )


lanes.lend(
    client_disconnected=Exchange.client_disconnected,
    set_request_timeout=Exchange.set_request_timeout,
    stopping=Exchange.stopping,
    send_early_hints=Exchange.send_early_hints,
)


def _buffer_input(ahead: BufferedBody, given: Input, environ: WSGIEnvironment) -> None:
    """Receive the rest of the body, so that `environ` describes a complete one.

    Sets CONTENT_LENGTH, and a `wsgi.input` that can seek. A no-op if the body is
    complete already, was read from, or if middleware has replaced `wsgi.input`. Call
    in a task of the request. May park.
    """
    current = environ.get("wsgi.input")
    proxy = current if isinstance(current, InputProxy) else None
    original = current if proxy is None else proxy.body
    if ahead.complete or ahead.begun or original is not given:
        return
    ahead.receive_ahead()
    _set_whole(environ, ahead)
    if proxy is not None:
        proxy.body = environ["wsgi.input"]
        environ["wsgi.input"] = proxy


def _set_whole(environ: WSGIEnvironment, body: BufferedBody | EmptyBody) -> None:
    environ["wsgi.input"] = SeekableInput(body)
    environ["CONTENT_LENGTH"] = str(body.length)
    environ.pop("HTTP_TRANSFER_ENCODING", None)


class _BodyTooLong(AssertionError):
    """The application continues after the end of its Content-Length."""

    def __init__(self) -> None:
        super().__init__("the response is longer than its Content-Length")
