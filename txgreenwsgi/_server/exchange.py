"""One request and its response.

An exchange begins at the end of the request's head, before the body has come,
and lives in a task of its own. The gateway puts the response in by `begin`,
`write` and `finish`. Whatever ends the exchange early sets `cut`, the error that
any further use of the connection raises.

This file knows one connection's channel. It must never know the parser.
"""

from __future__ import annotations

import traceback
from time import time
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from txgreenwsgi._http.framing import CHUNKED, CLOSE, LENGTH, NONE, choose_framing
from txgreenwsgi._http.writer import LAST_CHUNK, STATUSES, ResponseHead
from txgreenwsgi._switching.errors import Cancelled, ClientDisconnected, RequestTimeout
from txgreenwsgi._switching.greenlets import SLICE_SECONDS, Task
from txgreenwsgi._switching.waiting import sleep
from txgreenwsgi._wsgi.gateway import serve
from txgreenwsgi._wsgi.read_ahead import read_ahead
from txgreenwsgi.monitoring.records import ExchangeRecord
from txgreenwsgi.origins import take_turn

from .body import NO_BODY, BadBody, NoBody, RequestBody, after_the_end
from .environ import environ_of
from .output import late_writer, two_writers

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._wsgi.errors import Errors
    from txgreenwsgi._wsgi.files import FileWrapper

    from .channel import Channel

__all__ = ["Exchange"]

_log = Logger()

#: Blocks at least this long are sent beside their head and chunk framing, not
#: copied behind it.
_LONG_BLOCK = 16384

#: More than this at once would keep the kernel, and so the reactor, busy with
#: one file.
_FILE_BYTES = 1024 * 1024

_NEVER = float("inf")


class Exchange:
    """One request and its response, from the end of the head to the last byte.

    Attributes:
        channel: the connection's.
        site: what all connections share.
        head: the request's.
        errors: its `wsgi.errors`, once it has one.
        request_id: what logs call it.
        started: when the head was complete, by the reactor's clock.
        task: the one that runs the application; None before it begins.
        body: the request's, as it comes.
        over: whether nothing more is sent for it.
        keep_alive: whether the connection may serve another request after it.
        cut: what a further use of the connection raises; None while all is well.
        code: the status that was sent; 0 before.
        iterating: whether the application's iterable is being asked for blocks.
        bodiless: whether this kind of response has no body.
        deadline: when the request has taken too long, by the reactor's clock.
    """

    __slots__ = (
        "_framing",
        "_left",
        "_outcome",
        "_output",
        "_started_unix",
        "bodiless",
        "body",
        "bytes_sent",
        "channel",
        "code",
        "cut",
        "deadline",
        "errors",
        "head",
        "iterating",
        "keep_alive",
        "over",
        "request_id",
        "site",
        "started",
        "task",
    )

    def __init__(
        self, channel: Channel, head: RequestHead, complete: bool = False
    ) -> None:
        self.channel = channel
        self.site = site = channel.site
        self._output = channel.output
        self.head = head
        self.body: RequestBody | NoBody
        self.body = NO_BODY if complete else RequestBody(channel, head)
        self.request_id = site.next_request_id()
        self.started = now = channel.hub.reactor.seconds()
        self._started_unix = time() if site.observers else 0.0
        self.task: Task[None] | None = None
        self.errors: Errors | None = None
        self.over = False
        self.keep_alive = False
        self.cut: BaseException | None = None
        self.code = 0
        self.bytes_sent = 0
        self.iterating = False
        self.bodiless = False
        limit = site.settings.request_timeout
        self.deadline = now + limit if limit else _NEVER
        self._framing = NONE
        self._left = 0
        self._outcome = "finished"

    # Its life: called by the channel and the site, in the reactor greenlet.

    def begin_task(self) -> None:
        """Run the application, until it first parks. A place is taken for it."""
        hub = self.channel.hub
        self.task = task = Task(
            hub,
            self._run,
            context=self.site.context.copy(),
            name="request",
            on_end=[self._task_ended],
        )
        hub.start(task)

    def _task_ended(self) -> None:
        body = self.body
        if body.held or not body.complete or body.error is not None:
            body.drop()
        cut = self.cut
        if cut is not None:
            # The frames it came through lead back to here: a cycle, which would
            # keep all of the request until the garbage collector comes.
            self.cut = type(cut)(*cut.args)
        writer = self._output.waiting
        if writer is not None:
            # Another task of its. No further response may go into this one.
            self.keep_alive = False
            writer.abandon(late_writer())
        errors = self.errors
        if errors is not None and errors.held:
            errors.flush()
        self.channel.exchange_ended(self)

    @property
    def served(self) -> bool:
        """Whether the application is through with it."""
        return self.task is not None and self.task.done

    def end_early(
        self, error: BaseException, outcome: str, every_wait: bool = False
    ) -> None:
        """Nothing more can be read or written: raise `error` wherever it is tried.

        What is waited for in order to read or write ends now, and a response
        that is being iterated ends with it. Otherwise the application goes on,
        unless `every_wait` is to end.
        """
        if self.over or self.cut is not None:
            return
        self.cut = error
        self._outcome = outcome
        self.body.cut(error)
        task = self.task
        told = False
        for wait in (self.body.reader, self._output.waiting):
            if wait is not None:
                # It may be the wait of another task, which the application made.
                told |= wait.task is task
                wait.abandon(error)
        if (
            task is not None
            and not told
            and (every_wait or self.iterating)
            and task.state != "running"  # then it is told by what it has called
        ):
            task.interrupt(error)

    def client_lost(self) -> None:
        """The connection is gone."""
        error = ClientDisconnected("the client has closed the connection")
        self.end_early(
            error,
            "disconnected",
            every_wait=self.site.settings.on_disconnect == "cancel",
        )
        if self.over:
            self.body.lose(error)  # which close() may be reading

    def cancel(self) -> None:
        """The server stops and has waited long enough."""
        if self.task is None:
            self.channel.refuse_queued("the server is stopping")
        else:
            self._interrupt(Cancelled("the server is stopping"), "cancelled")

    def _interrupt(self, error: BaseException, outcome: str) -> None:
        """End the wait that the application is in, whatever it waits for."""
        if self.task is not None and (self.over or self.cut is not None):
            # The client has its response, or is gone.
            self.task.interrupt(error)
        else:
            self.end_early(error, outcome, every_wait=True)

    def check(self, now: float) -> None:
        """See to the deadlines of the request, and of a client that sends or reads."""
        settings = self.site.settings
        if now >= self.deadline:
            self._time_out(now - self.started)
            return
        self.body.check(now)
        writer = self._output.waiting
        if writer is not None:
            limit = settings.write_timeout
            if limit and now - writer.since >= limit:
                _log.info(
                    "{request}: the client took no byte for {limit:g} seconds, "
                    "the connection is closed",
                    request=self,
                    limit=limit,
                )
                self.end_early(
                    ClientDisconnected(
                        f"the client took no byte for {limit:g} seconds"
                    ),
                    "timeout",
                )
                self.channel.abort()

    def _time_out(self, seconds: float) -> None:
        self.deadline = _NEVER
        if self.task is None:
            self.channel.refuse_queued(f"no place became free in {seconds:.1f} seconds")
            return
        _log.warn(
            "{request} timed out after {seconds:.1f} seconds",
            request=self,
            seconds=seconds,
        )
        error = RequestTimeout(f"the request took longer than {seconds:.1f} seconds")
        if self.over or self.cut is not None:
            self._interrupt(error, "timeout")
            return
        answered = self.code
        if not answered:
            self._answer_last("504 Gateway Timeout")
        self._interrupt(error, "timeout")
        if answered:
            self.channel.abort()
        else:
            self.channel.close_lingering()

    def __repr__(self) -> str:
        target = self.head.target.decode("latin-1")
        return f"{self.head.method} {target} (request {self.request_id})"

    # The task's side.

    def _run(self) -> None:
        """The life of the task: call the application, answer its failure."""
        site = self.site
        try:
            if isinstance(self.body, NoBody):
                serve(site.application, environ_of(self, self), self)
            elif site.settings.buffer_input:
                memory = site.settings.buffer_memory
                with read_ahead(self.body, site.reactor, memory) as body:
                    serve(site.application, environ_of(self, body), self)
            else:
                serve(site.application, environ_of(self, self.body), self)
        except BaseException as error:  # SystemExit too: it is only a request
            if self.task is not None and self.task.dying:
                raise
            self._failed(error)

    # What `wsgi.input` asks where there is no body.

    def receive(self, wanted: int = 0) -> bytes:
        """It is at its end. Never parks."""
        if self.cut is not None:
            raise self.cut
        if self.served:
            raise after_the_end()
        return b""

    def reader_turn(self) -> None:
        """Park for a turn; a request that ended early raises. May park."""
        self.receive()
        sleep(0)

    def client_disconnected(self) -> bool:
        """Whether the client is known to be gone. Never parks."""
        return not self.channel.connected

    def set_request_timeout(self, seconds: float | None) -> None:
        """Give this request `seconds` from now; None for as long as it takes.

        Never parks. Replaces the server's setting for this request.
        """
        if seconds is not None and not seconds > 0:
            raise ValueError(
                f"a request timeout is a number of seconds > 0 or None, not {seconds!r}"
            )
        self.deadline = (
            _NEVER if seconds is None else self.site.reactor.seconds() + seconds
        )

    # What the gateway writes.

    def begin_iteration(self) -> None:
        """The application's iterable is asked for blocks from here on.

        A client that is gone then interrupts whatever the iterable waits for.
        """
        if self.cut is not None:
            raise self.cut
        self.iterating = True

    def end_iteration(self) -> None:
        """`close()` is called next: what was to end the iteration is not for it."""
        self.iterating = False
        if self.task is not None and isinstance(self.cut, ClientDisconnected):
            self.task.withdraw(self.cut)

    def _refuse_more(self) -> None:
        if self.cut is not None:
            raise self.cut
        # Another task has kept the `write` of this request. What it sends would
        # be taken for a part of the next response.
        raise late_writer()

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Send the head and the first block in one piece. May park."""
        if self.over or self.cut is not None:
            self._refuse_more()
        start = self._start(head, length)
        if self.bodiless or not block:
            self._output.send(start)
            return
        end = b""
        if self._framing is LENGTH:
            if not self._left:
                self._output.send(start)
            if len(block) > self._left:
                block = self._cut_to_length(block)
            else:
                self._left -= len(block)
        elif self._framing is CHUNKED:
            start += b"%x\r\n" % len(block)
            end = b"\r\n"
        self.bytes_sent = len(block)
        if len(block) < _LONG_BLOCK:
            self._output.send(start + block + end)
        else:
            self._output.send_parts(start, block, end)
        if self._left or self._framing is not LENGTH:
            self._handed_over()

    def _start(self, head: ResponseHead, length: int | None) -> bytes:
        """Decide on the framing; the bytes of the head that tells it."""
        request = self.head
        site = self.site
        lines = site.lines_to_add(head) if site.adds_lines else b""
        declared = head.content_length
        known = length if declared is None else declared
        self._framing = framing = choose_framing(
            request.method, request.version, head.code, known
        )
        if framing is LENGTH:
            self._left = known or 0
            if declared is None:
                lines += b"Content-Length: %d\r\n" % (known or 0)
        elif framing is CHUNKED:
            lines += b"Transfer-Encoding: chunked\r\n"
        elif framing is NONE:
            self.bodiless = True
            if length and declared is None and head.code not in (204, 304):
                # HEAD: the length that GET would have, as it is known.
                lines += b"Content-Length: %d\r\n" % length
        keep_alive = request.keep_alive and framing is not CLOSE
        if keep_alive:
            keep_alive = self.channel.may_live_on(self)
        if not keep_alive:
            lines += b"Connection: close\r\n"
        elif request.version == "HTTP/1.0":
            lines += b"Connection: keep-alive\r\n"
        self.keep_alive = keep_alive
        self.code = head.code
        # A client that has the response asks for no 100 Continue any more.
        if self.body.client_waits:
            self.body.client_waits = False  # type: ignore[misc]
        return head.encode(*site.common_lines(), lines)

    def write(self, block: bytes) -> None:
        """Send a further block. Parks while the client is behind."""
        if self.over or self.cut is not None:
            self._refuse_more()
        if self.bodiless:
            self._handed_over()  # it may write for ever
            return
        framing = self._framing
        if framing is LENGTH:
            block = self._cut_to_length(block)
        self.bytes_sent += len(block)
        if framing is CHUNKED:
            if len(block) < _LONG_BLOCK:
                self._output.send(b"%x\r\n%b\r\n" % (len(block), block))
            else:
                self._output.send_parts(b"%x\r\n" % len(block), block, b"\r\n")
        else:
            self._output.send(block)
        self._handed_over()

    def _handed_over(self) -> None:
        """No block is delayed behind what the application does next (PEP 3333)."""
        self._output.hand_over()
        hub = self.channel.hub
        # A fast client must not be fed for ever while the others wait.
        if hub.reactor.seconds() - hub.resumed_at > SLICE_SECONDS:
            self._output.turn()

    def _cut_to_length(self, block: bytes) -> bytes:
        """As much of `block` as Content-Length leaves room for."""
        if len(block) > self._left:
            if not self._left:
                raise _TooLong
            block = block[: self._left]
            self._left = 0
            self._log_too_long()
            return block
        self._left -= len(block)
        return block

    def _log_too_long(self) -> None:
        if self._outcome != "error":
            self._outcome = "error"
            _log.error(
                "{request}: the body is longer than its Content-Length; it was cut "
                "there",
                request=self,
            )

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Send a whole body by the kernel; False where it cannot. May park."""
        if head is None:
            return False
        found = body.regular_file()
        if found is None:
            return False
        fd, offset, count = found
        if self.cut is not None:
            raise self.cut
        if head.content_length is not None:
            count = min(count, head.content_length)
        start = self._start(head, count)
        if self.bodiless or not count:
            self._output.send(start)
            return True
        while count:
            sent = self._output.send_file(start, fd, offset, min(count, _FILE_BYTES))
            if sent is None:
                self._output.send(start)
                for block in body.blocks(count):
                    self.write(block)
                return True
            start = b""
            offset += sent
            count = count - sent if sent else 0  # the file has become shorter
            self._left -= sent
            self.bytes_sent += sent
            if count:
                self._output.turn()
        return True

    def turn(self) -> None:
        """The application yielded b"": wait for what it asked for. May park."""
        if self.cut is not None:
            raise self.cut
        take_turn()

    def finish(self) -> None:
        """The body is complete; a client that was promised more is cut off."""
        if self.cut is not None:
            raise self.cut
        if self._output.waiting is not None:
            raise two_writers()
        if self._framing is CHUNKED:
            self._output.send(LAST_CHUNK)
        elif self._framing is LENGTH and self._left:
            _log.error(
                "{request}: the body ended {left} bytes before its Content-Length; "
                "the connection is closed",
                request=self,
                left=self._left,
            )
            self._outcome = "error"
            self.keep_alive = False
        self.over = True

    # When the application fails.

    def _failed(self, error: BaseException) -> None:
        """Answer an exception of the application, or cut the connection."""
        if isinstance(error, _TooLong):
            # The client has all that it was promised.
            self._log_too_long()
            self.over = True
            return
        if self.over:
            # The response was complete: it was close() that failed.
            if not (isinstance(error, ClientDisconnected) and error is self.body.error):
                self._log_failure(error)
            return
        ours = self.cut is not None and isinstance(
            error, (ClientDisconnected, RequestTimeout, Cancelled)
        )
        bad_body = error is self.body.error and isinstance(error, BadBody)
        if not ours and not bad_body:
            self._log_failure(error)
        self.keep_alive = False
        if self.cut is None:
            self._outcome = "error"
        self.over = True
        if not self.channel.connected or self.channel.closing_now:
            return
        if self.code:
            # RFC 9112 section 8: an incomplete message, for the client to see.
            if self._framing is CLOSE:
                self.channel.abort()
            return
        if isinstance(self.cut, Cancelled):
            self._answer_last("503 Service Unavailable")
        elif bad_body and isinstance(error, BadBody):
            self._answer_last(STATUSES[error.status], error)
        else:
            self._answer_last("500 Internal Server Error", error)

    def _log_failure(self, error: BaseException) -> None:
        _log.failure("{request} failed", failure=Failure(error), request=self)

    def _answer_last(self, status: str, error: BaseException | None = None) -> None:
        """A plain answer of the server's own, after which the connection closes."""
        text = status[4:] + "\n"
        if error is not None:
            if isinstance(error, BadBody):
                text += f"{error}\n"
            elif self.site.settings.display_tracebacks:
                text += "\n" + "".join(traceback.format_exception(error))
        data, self.code, self.bytes_sent = self.site.plain_response(
            status, text, bodiless=self.head.method == "HEAD"
        )
        self.keep_alive = False
        self._output.send_last(data)

    def refuse(self, status: str, text: str, retry_after: int = 0) -> None:
        """Answer without the application. Call from the reactor greenlet."""
        data, self.code, self.bytes_sent = self.site.plain_response(
            status, text, retry_after, bodiless=self.head.method == "HEAD"
        )
        self._outcome = "refused"
        self.over = True
        self._output.send_last(data)

    # For those who watch.

    def record(self) -> ExchangeRecord:
        """What is known of it, now that it has ended."""
        head = self.head
        channel = self.channel
        _, _, address, port, _ = channel.names()
        return ExchangeRecord(
            remote_addr=address,
            remote_port=port,
            started=self._started_unix,
            duration=self.site.reactor.seconds() - self.started,
            method=head.method,
            target=head.target.decode("latin-1"),
            version=head.version,
            status=self.code,
            bytes_sent=self.bytes_sent,
            request_id=self.request_id,
            referer=head.variables.get("HTTP_REFERER", ""),
            user_agent=head.variables.get("HTTP_USER_AGENT", ""),
            outcome=self._outcome,
        )


class _TooLong(AssertionError):
    """Raised into an application that goes on after its Content-Length."""

    def __init__(self) -> None:
        super().__init__("the response is longer than its Content-Length")
