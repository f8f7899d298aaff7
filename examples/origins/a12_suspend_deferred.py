"""Waiting for a Deferred by `x-wsgiorg.suspend`, with its error cases.

In 2010 Manlio Perillo wrote a WSGI server for Twisted that ran applications in the
reactor thread. An application requested a suspension, yielded an empty string, and
was resumed by the callback that had its result. Each path shows one case.

    /deferred   the callback of a Deferred resumes the application
    /timeout    the timeout resumes it
    /early      it is resumed before the yield
    /twice      it is resumed twice
    /thread     a thread resumes it
    /fails      a Deferred fails; start_response is called after that

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a12_suspend_deferred:app
    curl http://localhost:8080/deferred

It knows the extension and Twisted. It must never know greenlets.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.internet.defer import Deferred

    Resume = Callable[[], bool]
    Case = Callable[[Resume, list[str]], None]


def later(seconds: float, *result: Any) -> Deferred[Any]:
    """Return a Deferred that fires with a result, or fails without one."""
    from twisted.internet import reactor

    def outcome() -> Any:
        if not result:
            raise LookupError("nothing was found")
        return result[0]

    return deferLater(reactor, seconds, outcome)


def deferred(resume: Resume, events: list[str]) -> None:
    """Resume when a Deferred fires."""

    def fired(result: str) -> None:
        events.append(result)
        events.append(f"resumed: {resume()}")

    later(0.1, "the Deferred's result").addCallback(fired)


def never(resume: Resume, events: list[str]) -> None:
    """Resume after the timeout."""

    def too_late(_: object) -> None:
        print(f"resumed too late: {resume()}")

    later(0.6, "").addCallback(too_late)


def early(resume: Resume, events: list[str]) -> None:
    """Resume before the application has yielded."""
    events.append(f"resumed before the yield: {resume()}")


def twice(resume: Resume, events: list[str]) -> None:
    """Resume twice."""

    def fired(_: object) -> None:
        events.append(f"resumed: {[resume(), resume()]}")

    later(0.1, "").addCallback(fired)


def thread(resume: Resume, events: list[str]) -> None:
    """Resume from a thread."""

    def work() -> None:
        time.sleep(0.1)
        events.append(f"in a thread: {threading.current_thread().name}")
        resume()

    threading.Thread(target=work, name="worker").start()


def fails(resume: Resume, events: list[str]) -> None:
    """Resume when a Deferred fails."""

    def failed(failure: Any) -> None:
        events.append(failure.getErrorMessage())
        resume()

    later(0.1).addErrback(failed)


CASES: dict[str, Case] = {
    "/deferred": deferred,
    "/timeout": never,
    "/early": early,
    "/twice": twice,
    "/thread": thread,
    "/fails": fails,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Run one case and report its events."""
    case = CASES.get(environ["PATH_INFO"])
    if case is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        yield ("give one of " + " ".join(CASES) + "\n").encode()
        return
    events: list[str] = []
    resume = environ["x-wsgiorg.suspend"](300 if case is never else 5000)
    case(resume, events)
    yield b""
    if environ["x-wsgiorg.suspend_status"]:
        events.append("timed out")
    status = "404 Not Found" if case is fails else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    events.append(f"resumed afterwards: {resume()}")
    yield "".join(f"{line}\n" for line in events).encode()
