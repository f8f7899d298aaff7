"""The cost of each step of a short request, in one process without a network.

`python -m benchmarks.breakdown` prints microseconds, the minimum of several rounds.
Each step is measured in a loop of its own, with warm CPU caches; a server with
hundreds of connections has cold caches and takes about twice as long. `python -m
benchmarks` measures real servers.
"""

from __future__ import annotations

import argparse
import socket
import timeit
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock

from txgreenwsgi import GreenSite
from txgreenwsgi._http.parser import RequestParser
from txgreenwsgi._http.writer import ResponseHead, date_field
from txgreenwsgi._serving.environ import environ_of
from txgreenwsgi._serving.exchange import Exchange
from txgreenwsgi._switching.greenlets import Task, hub_of

from .apps import HELLO, hello

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS = {
    "hello": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    "browser": (
        b"GET /items?page=%d HTTP/1.1\r\n"
        b"Host: 127.0.0.1:8080\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 "
        b"Firefox/143.0\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
        b"Accept-Language: en-GB,en;q=0.7\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\n"
        b"Referer: http://127.0.0.1:8080/items\r\n"
        b"Cookie: session=%d\r\n"
        b"Upgrade-Insecure-Requests: 1\r\n"
        b"Sec-Fetch-Dest: document\r\n"
        b"Sec-Fetch-Mode: navigate\r\n"
        b"Sec-Fetch-Site: same-origin\r\n\r\n"
    ),
}
_ROUNDS = 7
_CALLS = 4000


class _Transport:
    """A transport that accepts all data at once."""

    def write(self, data: bytes) -> None:
        """Discard the data."""

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802
        """Ignore the producer: the transport is never full."""

    def getHost(self) -> None:  # noqa: N802
        """Return no address."""

    getPeer = getHost  # noqa: N815


def microseconds(function: Callable[[], object]) -> float:
    """Return the minimum duration of a call."""
    seconds: list[float] = timeit.repeat(function, number=_CALLS, repeat=_ROUNDS)
    return min(seconds) / _CALLS * 1e6


def _changing(template: bytes) -> Callable[[], bytes]:
    """Return a function that fills `%d` in the template with a counter."""
    number = 0

    def request() -> bytes:
        nonlocal number
        number += 1
        return template % ((number,) * template.count(b"%d"))

    return request


def _kernel() -> float:
    """Return the duration of one recv and one send on a UNIX socket pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def turn() -> None:
            theirs.send(HELLO)
            ours.recv(65536)

        return microseconds(turn)


def breakdown(template: bytes) -> list[tuple[str, float]]:
    """Return the duration of each step of a request, of the rest and of the whole."""
    request = _changing(template)
    preparing = microseconds(request)
    site = GreenSite(hello, reactor=Clock())
    channel: Any = site.buildProtocol(None)
    channel.makeConnection(_Transport())
    whole = microseconds(lambda: channel.dataReceived(request())) - preparing

    parser = RequestParser()
    parsing = microseconds(lambda: parser.feed(request())) - preparing

    channel.exchange = None
    head: Any = RequestParser().feed(request())[0]
    variables = head.variables
    server = site.server
    exchange = Exchange(channel, server, head, complete=True)
    ends = exchange.stream.ends

    def environ() -> None:
        head.variables = variables
        environ_of(server.environ, head, ends, ())

    environ_seconds = microseconds(environ)
    hub = hub_of(Clock())

    def nothing() -> None:
        """Do nothing: the shortest task."""

    switching = microseconds(
        lambda: hub.start(Task(hub, nothing, (), None, server.context.copy()))
    )
    date = date_field(0)
    fields = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")]
    response = microseconds(
        lambda: ResponseHead("200 OK", fields).encode(date, b"Server: x\r\n", b"")
    )
    application = microseconds(lambda: hello({}, _start_nothing))
    steps = [
        ("parse the head", parsing),
        ("create, switch to and end a task", switching),
        ("environ", environ_seconds),
        ("check and encode the response head", response),
        ("application", application),
    ]
    rest = whole - sum(each for _, each in steps)
    return [*steps, ("channel, exchange, gateway, output", rest), ("total", whole)]


def _start_nothing(*_: object) -> Any:
    """Do nothing, in the place of start_response."""


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for name, template in REQUESTS.items():
        print(f"{name}: microseconds")
        for step, each in breakdown(template):
            print(f"  {each:6.2f}  {step}")
    print(
        f"\none recv and one send of the kernel, on a UNIX socket pair: {_kernel():.2f}"
    )


if __name__ == "__main__":
    main()
