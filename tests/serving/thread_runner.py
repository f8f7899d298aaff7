"""A runner in miniature that calls the application in a real thread.

The exchange's task stays parked and performs, one at a time, the calls that cross
from the thread. It proves that the runner is the only part that knows where the
application runs. It must never know a transport.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread, get_ident
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._wsgi.gateway import serve
from txgreenwsgi.testing import MemoryReactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse

    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._wsgi.files import FileWrapper
    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

__all__ = ["SECONDS", "ThreadRunner", "ThreadsReactor"]

#: Maximum time for a thread to answer; a test that takes longer fails.
SECONDS = 10.0


@implementer(IReactorFromThreads)
class ThreadsReactor(MemoryReactor):
    """A reactor in memory that other threads can call."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(  # type: ignore[override]
        self, function: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """Call `function` in the next turn of `run_until`."""
        self._calls.put(partial(function, *args, **kwargs))

    def run_until(self, done: Callable[[], bool]) -> None:
        """Wait for calls of other threads and make them, until `done` returns True."""
        self.settle()
        while not done():
            self._calls.get(timeout=SECONDS)()
            self.settle()


class _Crossing:
    """The calls of one thread that are made in the task of its exchange."""

    def __init__(self, reactor: ThreadsReactor) -> None:
        self._reactor = reactor
        self._reactor_thread = get_ident()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake: Suspension | None = None
        self._ended = False
        # The interruption of the task while the thread was in no call; the next
        # call raises it.
        self._error: Exception | None = None
        # The exception of the application.
        self._failure: BaseException | None = None

    # In the thread.

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Call `function` in the task; block the thread until it returns."""
        if get_ident() == self._reactor_thread:
            return function(*args)  # called by a call that has crossed
        done = Event()
        result: list[Any] = []
        error: list[BaseException] = []

        def perform() -> None:
            try:
                interruption, self._error = self._error, None
                if interruption is not None:
                    raise interruption
                result.append(function(*args))
            except Exception as raised:
                error.append(raised)
            finally:
                done.set()

        self._reactor.callFromThread(self._deliver, perform)
        assert done.wait(SECONDS), "the task does not answer"
        if error:
            raise error.pop()
        return result.pop()

    def run(self, function: Callable[[], None]) -> None:
        """Call `function`, and let the task end with its result."""
        try:
            function()
        except BaseException as error:
            self._failure = error
        self._reactor.callFromThread(self._deliver, self._end)

    # In the reactor greenlet.

    def _deliver(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        if self._wake is not None:
            self._wake.resume()

    # In the task.

    def _end(self) -> None:
        self._ended = True

    def perform_all(self) -> None:
        """Perform the calls of the thread until the application has ended."""
        while not self._ended:
            if self._calls:
                self._calls.popleft()()
                continue
            self._wake = wake = Suspension(
                require_task("the runner"), "the application's thread"
            )
            try:
                wake.wait()
            except Exception as error:
                self._error = error
            finally:
                self._wake = None
        if self._failure is not None:
            raise self._failure


class _Input:
    """`wsgi.input` in the thread."""

    def __init__(self, crossing: _Crossing, body: Any) -> None:
        self._crossing = crossing
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """Read in the task."""
        data: bytes = self._crossing.call(self._body.read, size)
        return data


class _Sink:
    """The sink of the gateway in the thread."""

    def __init__(self, crossing: _Crossing, sink: ResponseSink) -> None:
        self._call = crossing.call
        self._sink = sink

    @property
    def code(self) -> int:
        """The status code that was sent."""
        return self._sink.code

    @property
    def crosses(self) -> bool:
        """True: each method crosses to the task."""
        return True

    @property
    def error(self) -> BaseException | None:
        """The error that each further call raises."""
        return self._sink.error

    @property
    def accepts_blocks(self) -> bool:
        """Whether a write would neither raise nor wait."""
        return self._sink.accepts_blocks

    @property
    def bodiless(self) -> bool:
        """Whether the response has no body."""
        return self._sink.bodiless

    @bodiless.setter
    def bodiless(self, value: bool) -> None:
        raise AttributeError("bodiless is read-only")

    def fields_dropped(self, names: Iterable[str], place: str) -> None:
        """Cross to the task."""
        self._call(self._sink.fields_dropped, names, place)

    def begin_iteration(self) -> None:
        """Cross to the task."""
        self._call(self._sink.begin_iteration)

    def end_iteration(self) -> None:
        """Cross to the task."""
        self._call(self._sink.end_iteration)

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Cross to the task."""
        self._call(self._sink.begin, head, length, block)

    def respond(self, head: ResponseHead, block: bytes) -> None:
        """Cross to the task."""
        self._call(self._sink.respond, head, block)

    def write(self, block: bytes) -> None:
        """Cross to the task."""
        self._call(self._sink.write, block)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Cross to the task."""
        sent: bool = self._call(self._sink.send_file, head, body)
        return sent

    def turn(self) -> None:
        """Cross to the task."""
        self._call(self._sink.turn)

    def finish(self) -> None:
        """Cross to the task."""
        self._call(self._sink.finish)


def _call_application(
    crossing: _Crossing,
    application: Application,
    environ: dict[str, Any],
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Call `application` with a `write` callable that crosses to the task."""

    def start(
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], object]:
        return partial(crossing.call, start_response(status, headers, exc_info))

    return application(environ, start)


class ThreadRunner:
    """Calls each application in a new thread.

    Args:
        reactor: the server's.

    Attributes:
        calls: the number of applications that have ended.
    """

    def __init__(self, reactor: ThreadsReactor) -> None:
        self._reactor = reactor
        self.calls = 0

    def __call__(
        self, application: Application, environ: dict[str, Any], sink: ResponseSink
    ) -> None:
        """Call `application` in a thread. Parks until it has ended."""
        crossing = _Crossing(self._reactor)
        environ["wsgi.input"] = _Input(crossing, environ["wsgi.input"])
        for name in (
            "txgreenwsgi.client_disconnected",
            "txgreenwsgi.set_request_timeout",
            "txgreenwsgi.stopping",
            "wsgi.early_hints",
        ):
            environ[name] = partial(crossing.call, environ[name])
        called = partial(_call_application, crossing, application)
        run = partial(serve, called, environ, _Sink(crossing, sink))
        thread = Thread(target=crossing.run, args=(run,), daemon=True)
        thread.start()
        try:
            crossing.perform_all()
        finally:
            self.calls += 1
            thread.join(SECONDS)
