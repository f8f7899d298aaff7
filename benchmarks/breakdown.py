"""Where the time of one short request goes, in this process and without a network.

`python -m benchmarks.breakdown` prints microseconds, each the least of several
rounds. The steps are measured one by one, in a loop that finds everything in the
CPU's caches; a server with hundreds of connections does not, and takes about
twice as long for each. What a real server's seconds are, tells `python -m
benchmarks`.
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
from txgreenwsgi._serving.environ import environ_of, take_variables
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
    """A transport that takes everything at once."""

    def write(self, data: bytes) -> None:
        """It is gone."""

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802
        """Nothing will be asked of it."""

    def getHost(self) -> Any:  # noqa: N802
        """No address."""

    getPeer = getHost  # noqa: N815


def microseconds(function: Callable[[], object]) -> float:
    """The least that one call takes."""
    seconds: list[float] = timeit.repeat(function, number=_CALLS, repeat=_ROUNDS)
    return min(seconds) / _CALLS * 1e6


def _changing(template: bytes) -> Callable[[], bytes]:
    """The request, with another number in it each time where it has a place."""
    number = 0

    def request() -> bytes:
        nonlocal number
        number += 1
        return template % ((number,) * template.count(b"%d"))

    return request


def _kernel() -> float:
    """One recv and one send, on the fastest socket there is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def turn() -> None:
            theirs.send(HELLO)
            ours.recv(65536)

        return microseconds(turn)


def breakdown(template: bytes) -> list[tuple[str, float]]:
    """The steps of a request, and what is left of the whole when they are done."""
    request = _changing(template)
    making = microseconds(request)
    site = GreenSite(hello, reactor=Clock())
    channel: Any = site.buildProtocol(None)
    channel.makeConnection(_Transport())
    whole = microseconds(lambda: channel.dataReceived(request())) - making

    parser = RequestParser()
    parsing = microseconds(lambda: parser.feed(request())) - making

    channel.exchange = None
    head: Any = RequestParser().feed(request())[0]
    variables = head.variables
    server = site.server
    exchange = Exchange(channel, server, head, complete=True)
    ends = exchange.stream.ends

    def environ() -> None:
        head.variables = variables
        environ_of(server.environ, take_variables(head, False), head, ends)

    environ_seconds = microseconds(environ)
    hub = hub_of(Clock())

    def nothing() -> None:
        """What a task must do at the least."""

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
        ("a task: made, switched to, ended", switching),
        ("environ", environ_seconds),
        ("check and encode the response's head", response),
        ("the application", application),
    ]
    rest = whole - sum(each for _, each in steps)
    return [*steps, ("channel, exchange, gateway, output", rest), ("all of it", whole)]


def _start_nothing(*_: object) -> Any:
    """A start_response that does nothing."""


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for name, template in REQUESTS.items():
        print(f"{name}: microseconds")
        for step, each in breakdown(template):
            print(f"  {each:6.2f}  {step}")
    print(f"\na recv and a send of the kernel's, on a pair of sockets: {_kernel():.2f}")


if __name__ == "__main__":
    main()
