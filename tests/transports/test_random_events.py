"""Random sequences of events: whatever happens, requests end and states are legal.

Each sequence is drawn from a seed, so a failure can be repeated: its message names
the seed. An application performs the random operations that its target lists;
meanwhile clients send, read, pause and leave, time passes, and the server stops.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from typing import TYPE_CHECKING, Any

import h11
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txgreenwsgi import GreenWSGIResource, spawn
from txgreenwsgi.testing import LeakCheckMixin

from .harness import TEXT, Cases, WebTransport, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from twisted.logger import ILogObserver, LogEvent

    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryClient

    from .harness import Environ, Server, Start
    from .harness_clients import Reply

#: Sequences for each transport. More are run by, for instance,
#: `TXGREENWSGI_FIRST_SEED=1000 TXGREENWSGI_SEEDS=500`.
SEQUENCES = 30

#: On sockets each event waits for the kernel: there are so many times fewer.
_FEWER = 6

#: Events in a sequence, at most.
EVENTS = 14

#: Longer than any deadline and any sleep of the operations together, in seconds.
LONG = 60

#: After graceful_timeout, connections are cut so many seconds later.
LAST_SECONDS = 1

SETTINGS: dict[str, list[Any]] = {
    "max_in_flight": [1, 2, 100],
    "max_queued": [0, 2, 100],
    "queue_timeout": [0, 2],
    "request_timeout": [0, 1, 4],
    "write_timeout": [1, 5],
    "on_disconnect": ["cancel", "continue"],
    "buffer_input": [True, False],
    "graceful_timeout": [0, 1, 3],
    "drain_idle": [0, 1, 2],
    "max_body": [50, 10_000_000],
}

#: Settings that twisted.web does not have.
OWN_SETTINGS: dict[str, list[Any]] = {
    "keep_alive": [0, 3],
    "body_timeout": [1, 5],
    "header_timeout": [1, 5],
    "input_window": [100, 65536],
}


#: The place of a resource that is not ours.
FOREIGN = "/foreign"


class Operations:
    """One call of the application: operations, each a letter of the target.

    A letter before "!" is performed with its exceptions suppressed.
    """

    def __init__(self, environ: Environ, start: Start, stop: Callable[[], Any]) -> None:
        self._environ = environ
        self._start = start
        self._stop = stop
        self._write: Callable[[bytes], Any] | None = None
        _, _, self._fields, self._calls, self._blocks, self._close = environ[
            "PATH_INFO"
        ].split("/")

    def begin(self) -> Callable[[bytes], Any]:
        """Call `start_response` once."""
        if self._write is None:
            fields = list(TEXT)
            if self._fields.isdigit():
                fields.append(("Content-Length", self._fields))
            status = "204 No Content" if self._fields == "none" else "200 OK"
            self._write = self._start(status, fields)
        return self._write

    def perform(self, letters: str) -> None:
        """Perform operations."""
        for place, letter in enumerate(letters):
            if letter == "!":
                continue
            try:
                self._perform(letter)
            except Exception:
                if letters[place + 1 : place + 2] != "!":
                    raise

    def _perform(self, letter: str) -> None:
        environ = self._environ
        stream = environ["wsgi.input"]
        if letter == "r":
            stream.read(10)
        elif letter == "R":
            stream.read()
        elif letter == "z":
            environ["txgreenwsgi.sleep"](0)
        elif letter == "s":
            environ["txgreenwsgi.sleep"](0.6)
        elif letter == "S":
            environ["txgreenwsgi.sleep"](3)
        elif letter == "w":
            self.begin()(b"small")
        elif letter == "W":
            self.begin()(b"L" * 100_000)
        elif letter == "c":
            # A child that outlives the request, perhaps.
            write = self.begin()
            spawn(lambda: _quietly(write, b"from a child"))
        elif letter == "C":
            write = self.begin()
            spawn(lambda: _quietly(write, b"C" * 100_000))
        elif letter == "i":
            spawn(lambda: _quietly(stream.read, 10))
        elif letter == "e":
            environ["txgreenwsgi.current_task"]().call_before_end(
                lambda: _quietly(environ["txgreenwsgi.sleep"], 1)
            )
        elif letter == "t":
            environ["txgreenwsgi.set_request_timeout"](0.5)
        elif letter == "T":
            environ["txgreenwsgi.set_request_timeout"](None)
        elif letter == "k":
            environ["txgreenwsgi.current_task"]().cancel()
        elif letter == "q":
            self._stop()
        elif letter == "x":
            raise ValueError("an operation raised")
        elif letter == "X":
            raise SystemExit("an operation left")
        elif letter == "g":
            raise GeneratorExit

    def response(self) -> Iterable[bytes]:
        """Perform the calls, and return the iterable."""
        self.perform(self._calls)
        self.begin()
        if self._blocks.startswith("one"):
            return [b"one block"]
        if self._blocks.startswith("none"):
            return []
        if self._blocks.startswith("file"):
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the server
            file.write(b"F" * int(self._blocks[4:]))
            file.seek(0)
            wrapper: Iterable[bytes] = self._environ["wsgi.file_wrapper"](file)
            return wrapper
        return _Blocks(self, self._blocks, self._close)


class _Blocks:
    def __init__(self, operations: Operations, letters: str, close: str) -> None:
        self._operations = operations
        self._letters = letters
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        for letter in self._letters:
            if letter == "b":
                yield b"block"
            elif letter == "B":
                yield b"B" * 90_000
            elif letter == "_":
                yield b""
            else:
                self._operations.perform(letter)

    def close(self) -> None:
        self._operations.perform(self._close)


def _quietly(function: Callable[..., Any], *args: Any) -> None:
    # Each exception is right once the request has ended.
    with contextlib.suppress(Exception):
        function(*args)


def random_target(chance: random.Random, number: int) -> str:
    """Return the target of a request, which lists the operations to perform."""
    calls = _letters(chance, "rRzsSwWcCietTkqxXg", 4, "!")
    blocks = chance.choice(
        [
            "one",
            "one",
            "none",
            "file0",
            "file10",
            f"file{chance.choice([70_000, 1_500_000])}",
            _letters(chance, "bbbBBB_rRsSxwWct", 5, "") + "b",
            _letters(chance, "bbbBBB_rRsSxwWct", 5, "") + "b",
        ]
    )
    close = _letters(chance, "rRzsSxwtcikg", 2, "!")
    fields = chance.choice(["", "", "", "9", "10", "0", "200000", "none"])
    return f"/{number}/{fields or 'free'}/{calls}/{blocks}/{close}"


def _letters(chance: random.Random, alphabet: str, most: int, mark: str) -> str:
    return "".join(
        chance.choice(alphabet) + chance.choice(["", mark])
        for _ in range(chance.randrange(most + 1))
    )


class _Foreign(Resource):
    """A resource of twisted.web itself: it answers some time later."""

    isLeaf = True  # noqa: N815 - the name of twisted.web

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    def render(self, request: Any) -> int:
        """Answer after a second, unless the client leaves."""
        call = self._reactor.callLater(1, self._answer, request)
        request.notifyFinish().addErrback(lambda _: call.cancel())
        return NOT_DONE_YET

    def _answer(self, request: Any) -> None:
        request.write(b"foreign" * 1000)
        request.finish()


class RandomEventsCases(Cases):
    """Sequences of random events."""

    def test_random_events(self) -> None:
        """All requests end, with one record each that fits what the client saw."""
        first, count = seeds()
        if not self.transport.accepts_in_shutdown:
            count //= _FEWER
        for seed in range(first, first + count):
            _Sequence(self, seed).run()


class _Sequence:
    """One sequence of events, and the checks at its end.

    Args:
        case: of the transport.
        seed: of the sequence.
    """

    def __init__(self, case: Any, seed: int) -> None:
        self._case = case
        self._seed = seed
        self._chance = chance = random.Random(seed)
        case.events.clear()
        self.own = case.transport.streams_bodies
        choices = SETTINGS | (OWN_SETTINGS if self.own else {})
        settings = {name: chance.choice(values) for name, values in choices.items()}
        self.settings = settings
        self.server: Server = case.serve(
            self._application, observers=[self._observe], **settings
        )
        self.resources: list[GreenWSGIResource] = []
        if isinstance(self.server, WebTransport):
            self.resources.append(self.server.resource)
        self._places = [""]
        if self.resources and chance.random() < 0.5:
            self._plant_tree(settings)
        self.records: dict[str, ExchangeRecord] = {}
        # By target: whether it ended when the server cut its connections anyway.
        self._forced: dict[str, bool] = {}
        self._forced_at = float("inf")
        self.replies: list[Reply] = []
        self.targets: list[str] = []
        self.methods: list[str] = []
        # Of replies: bytes of the body that the client still has to send.
        self._unsent: dict[int, int] = {}
        self._gone: set[int] = set()
        self._stops: list[Any] = []
        self.story: list[str] = []

    def _application(self, environ: Environ, start: Start) -> Iterable[bytes]:
        return Operations(environ, start, self._begin_stop).response()

    def _plant_tree(self, settings: dict[str, Any]) -> None:
        """Serve two applications and a resource of twisted.web beside each other."""
        server: Any = self.server
        other = GreenWSGIResource(
            server.app, reactor=server.reactor, observers=[self._observe], **settings
        )
        self.resources.append(other)
        root = Resource()
        root.putChild(b"one", server.resource)
        root.putChild(b"two", other)
        root.putChild(b"foreign", _Foreign(server.reactor))
        server.serve_tree(root)
        self._places = ["/one", "/two", "/two", FOREIGN]

    def _observe(self, record: ExchangeRecord) -> None:
        assert record.target not in self.records, f"two records: {record.target}"
        self.records[record.target] = record
        self._forced[record.target] = self.server.reactor.seconds() >= self._forced_at

    def _begin_stop(self) -> None:
        grace = self.settings["graceful_timeout"] + LAST_SECONDS
        self._forced_at = min(self._forced_at, self.server.reactor.seconds() + grace)
        self._stops.append(self.server.begin_stop())

    def run(self) -> None:
        """Let the events happen, then let all end, and check."""
        chance = self._chance
        try:
            for _ in range(chance.randrange(2, EVENTS)):
                event = chance.choice(
                    [
                        self._request,
                        self._request,
                        self._request,
                        self._follow,
                        self._follow,
                        self._send_body,
                        self._send_body,
                        self._pass_time,
                        self._pass_time,
                        self._read_some,
                        self._read,
                        self._disconnect,
                        self._abandon,
                        self._stop,
                    ]
                )
                event()
            self._finish()
        except Exception as error:
            raise AssertionError(
                f"seed {self._seed}: {error}\n{self.settings}\n{self.story}"
            ) from error

    # Events.

    def _note(self, *words: object) -> None:
        self.story.append(" ".join(map(str, words)))

    def _request(self, on: Reply | None = None) -> None:
        chance = self._chance
        if on is None and self._stops and not self.server.accepts_in_shutdown:
            return
        number = len(self.replies)
        place = chance.choice(self._places)
        target = place + random_target(chance, number)
        method = chance.choice(["GET", "GET", "POST", "POST", "PUT", "HEAD"])
        slow = chance.random() < 0.3
        stalled = chance.random() < 0.1
        fields = []
        body, length = b"", None
        if method in ("POST", "PUT"):
            size = chance.choice([0, 1, 30, 40, 300_000])
            part = chance.choice([size, size, size // 2, 0])
            body = b"p" * part
            if part < size:
                length = size
                self._unsent[number] = size - part
            if size and self.own and chance.random() < 0.3:
                fields.append(("Expect", "100-continue"))
        self._note(method, target, len(body), length, slow, stalled, on, fields)
        reply = self.server.begin(
            method,
            target,
            fields,
            body,
            length=length,
            slow=slow,
            stalled=stalled,
            on=on,
        )
        self.replies.append(reply)
        self.targets.append(target)
        self.methods.append(method)

    def _some(self) -> int | None:
        return self._chance.randrange(len(self.replies)) if self.replies else None

    def _follow(self) -> None:
        """Send a further request on a connection that allows it."""
        number = self._some()
        if number is None or number in self._gone:
            return
        reply = self.replies[number]
        connection = reply.connection
        if connection.link.ended or not connection.link.reading:
            return
        if connection.goes_away:
            return
        if self.server.version == "HTTP/1.1" and (
            connection.replies[-1].state != "complete"
            or any(self._unsent.get(each) for each in self._numbers(connection))
            or connection.replies[-1].header("Connection") == "close"
        ):
            return
        self._request(on=reply)

    def _numbers(self, connection: Any) -> list[int]:
        return [
            number
            for number, reply in enumerate(self.replies)
            if reply.connection is connection
        ]

    def _send_body(self) -> None:
        waiting = [
            number
            for number, left in self._unsent.items()
            if left and number not in self._gone and not self.replies[number].over
        ]
        if not waiting:
            return
        number = self._chance.choice(waiting)
        left = self._unsent[number]
        size = self._chance.choice([left, max(1, left // 2)])
        self._unsent[number] = left - size
        self._note("send", number, size)
        self.server.send_body(self.replies[number], b"q" * size, size == left)

    def _pass_time(self) -> None:
        seconds = self._chance.choice([0.25, 0.5, 1, 2, 6])
        self._note("advance", seconds)
        self.server.advance(seconds)

    def _read_some(self) -> None:
        number = self._some()
        if number is not None and not self.replies[number].connection.link.reading:
            self._note("read some", number)
            self.server.read_some(self.replies[number], 1000)

    def _read(self) -> None:
        number = self._some()
        if number is not None:
            self._note("read", number)
            self.server.read(self.replies[number])

    def _disconnect(self) -> None:
        number = self._some()
        if number is not None:
            self._note("disconnect", number)
            self._gone.update(self._numbers(self.replies[number].connection))
            self.server.disconnect(self.replies[number])

    def _abandon(self) -> None:
        number = self._some()
        if number is not None and number not in self._gone:
            self._note("abandon", number)
            if self.server.version != "HTTP/1.1":
                self._gone.add(number)
            else:
                self._gone.update(self._numbers(self.replies[number].connection))
            self.server.abandon(self.replies[number])

    def _stop(self) -> None:
        if self._chance.random() < 0.2:
            self._note("stop")
            self._begin_stop()
            self.server.settle()

    # The end.

    def _finish(self) -> None:
        server = self.server
        for reply in self.replies:
            server.read(reply)
        server.advance(LONG)
        self._check_replies()
        for number, reply in enumerate(self.replies):
            if reply.connection.link.ended:
                continue
            self._gone.add(number)
            server.disconnect(reply)
        server.advance(LONG)
        left = server.app.requests()
        left += [each for resource in self.resources for each in resource.requests()]
        tasks = [task for task in server.app.tasks if not task.done]
        assert not left and not tasks, (left, tasks)
        for stopped in self._stops:
            assert stopped.called, "the server never said that it has stopped"
        self._check_records()
        check_log(self._case.events)
        self._case.flushLoggedErrors()

    def _check_replies(self) -> None:
        """The clients have read all and waited long: no response is missing."""
        for number, reply in enumerate(self.replies):
            assert reply.state != "malformed", (number, reply)
            if not reply.over and number not in self._gone:
                # twisted.web calls no application before the whole body has come.
                assert not self.own and self._unsent.get(number), (number, reply)

    def _check_records(self) -> None:
        """Each request has one record, which fits what its client saw."""
        records = self.records
        called = [environ["RAW_URI"] for environ in self.server.app.environs]
        assert len(called) == len(set(called)), called
        for target in called:
            assert target in records, f"no record: {target}"
        for number, reply in enumerate(self.replies):
            record = records.get(self.targets[number])
            if self.targets[number].startswith(FOREIGN):
                assert record is None
                continue
            if record is None:
                assert reply.status is None, (number, reply)
                continue
            about = (
                number,
                reply,
                {
                    name: getattr(record, name)
                    for name in ("status", "bytes_sent", "outcome")
                },
            )
            assert record.status or record.outcome != "finished", about
            if record.outcome == "refused":
                assert self.targets[number] not in called, about
            if reply.state == "complete":
                assert record.status == reply.status, about
                assert record.bytes_sent == len(reply.body), about
            elif number not in self._gone and not self._forced[record.target]:
                assert record.outcome not in ("finished", "refused"), about
            if reply.status is not None:
                assert record.status == reply.status, about


class PipelineTests(LeakCheckMixin, SynchronousTestCase):
    """Requests in one stream of bytes, in pieces, with other events between them."""

    def test_random_pipelines(self) -> None:
        """Responses come in the order of their requests, each with one record."""
        events: list[LogEvent] = []
        observer: ILogObserver = events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        first, count = seeds()
        for seed in range(first, first + 2 * count):
            events.clear()
            _Pipeline(self, seed, events).run()
            self.flushLoggedErrors()


class _Pipeline:
    """The pipelines of some clients, and the checks at their end."""

    def __init__(
        self, case: PipelineTests, seed: int, events: Sequence[LogEvent]
    ) -> None:
        self._seed = seed
        self._events = events
        self._chance = chance = random.Random(seed)
        settings = {
            name: chance.choice(values)
            for name, values in (SETTINGS | OWN_SETTINGS).items()
        }
        self.settings = settings
        self.records: list[ExchangeRecord] = []
        self.called: list[str] = []
        self.server = case.serve(
            self._application,
            [self.records.append],
            **settings,
        )
        self.clients: list[MemoryClient] = []
        self.methods: list[list[str]] = []
        self._unsent: list[bytes] = []
        self._gone: set[int] = set()
        self._stopped: list[Any] = []
        self.story: list[str] = []
        self._count = 0

    def _application(self, environ: Environ, start: Start) -> Iterable[bytes]:
        self.called.append(environ["RAW_URI"])
        return Operations(environ, start, self._stop).response()

    def _stop(self) -> None:
        self._stopped.append(self.server.site.stop())

    def run(self) -> None:
        """Let the events happen, then let all end, and check."""
        chance = self._chance
        try:
            for _ in range(chance.randrange(4, 2 * EVENTS)):
                events = [self._connect, *[self._send] * 4, self._pass_time]
                events += [self._read, self._leave, self._half_close, self._fail]
                events += [self._rarely_stop]
                chance.choice(events)()
            self._finish()
        except Exception as error:
            raise AssertionError(
                f"seed {self._seed}: {error}\n{self.settings}\n{self.story}"
            ) from error

    def _connect(self) -> None:
        chance = self._chance
        room = chance.choice([float("inf"), float("inf"), 30, 20_000])
        self.clients.append(self.server.connect(room=room))
        methods: list[str] = []
        pipeline = b"".join(
            self._request(methods) for _ in range(chance.randrange(1, 6))
        )
        self.methods.append(methods)
        self._unsent.append(pipeline)
        self.story.append(f"connect {room} {pipeline[:2000]!r}")

    def _request(self, methods: list[str]) -> bytes:
        chance = self._chance
        if chance.random() < 0.05:
            methods.append("GET")
            return b"no request\r\n\r\n"
        target = random_target(chance, self._count)
        self._count += 1
        if chance.random() < 0.1:
            target = f"http://test.example{target}"
        method = chance.choice(["GET", "GET", "GET", "POST", "POST", "HEAD"])
        methods.append(method)
        version = chance.choice(["1.1", "1.1", "1.1", "1.0"])
        fields = ["Host: test.example"]
        fields += chance.choice(
            [[], [], [], ["Connection: close"], ["Connection: keep-alive"]]
        )
        body = b""
        if method == "POST":
            content = b"p" * chance.choice([0, 1, 30, 70_000])
            if version == "1.1" and chance.random() < 0.3:
                fields.append("Expect: 100-continue")
            if version == "1.1" and chance.random() < 0.4:
                fields.append("Transfer-Encoding: chunked")
                if content:
                    body = b"%x\r\n%b\r\n" % (len(content), content)
                body += chance.choice([b"0\r\n\r\n"] * 5 + [b"bad\r\n\r\n"])
            else:
                fields.append(f"Content-Length: {len(content)}")
                body = content
        head = "\r\n".join([f"{method} {target} HTTP/{version}", *fields, "", ""])
        return head.encode() + body

    def _some(self) -> int:
        if not self.clients:
            self._connect()
        return self._chance.randrange(len(self.clients))

    def _send(self) -> None:
        chance = self._chance
        number = self._some()
        unsent = self._unsent[number]
        if unsent and number not in self._gone:
            some = chance.randrange(1, len(unsent) + 1)
            size = chance.choice([len(unsent), some, min(some, 100)])
            self._unsent[number] = unsent[size:]
            self.story.append(f"send {number} {size}")
            self.clients[number].send(unsent[:size], chance.choice([0, 0, 1000]))

    def _pass_time(self) -> None:
        seconds = self._chance.choice([0.25, 0.5, 1, 2, 6])
        self.story.append(f"advance {seconds}")
        self._advance(seconds)

    def _advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.server.advance(0.25)

    def _read(self) -> None:
        number = self._some()
        size = self._chance.choice([1, 1000, None])
        self.story.append(f"read {number} {size}")
        self.clients[number].read(size)

    def _leave(self) -> None:
        if self._chance.random() < 0.3:
            number = self._some()
            self.story.append(f"leave {number}")
            self._gone.add(number)
            self.clients[number].disconnect()

    def _half_close(self) -> None:
        if self._chance.random() < 0.2:
            number = self._some()
            self.story.append(f"half close {number}")
            self._gone.add(number)
            self.clients[number].end()

    def _fail(self) -> None:
        """Have a client leave, or the connection break, in the middle of a send."""
        chance = self._chance
        number = self._some()
        if chance.random() < 0.5 or number in self._gone:
            return
        self._gone.add(number)
        client = self.clients[number]
        size = chance.choice([0, 100, 1000, 50_000])
        kind = chance.choice(["leave", "break", "abort", "stop"])
        self.story.append(f"{kind} {number} after {size} bytes")
        if kind == "leave":
            client.disconnect_after(size)
            return
        send = client.socket.send

        def fail(data: bytes | memoryview, flags: int = 0) -> int:
            if client.socket.sent >= size:
                if kind == "stop":
                    self._stop()
                elif kind == "abort":
                    client.channel.abort()
                client.socket.send = send  # type: ignore[method-assign]
                raise ConnectionResetError("the connection broke")
            return send(data, flags)

        client.socket.send = fail  # type: ignore[method-assign]

    def _rarely_stop(self) -> None:
        if self._chance.random() < 0.1:
            self.story.append("stop")
            self._stop()
            self.server.settle()

    def _finish(self) -> None:
        for number, client in enumerate(self.clients):
            client.socket.room = float("inf")
            if number not in self._gone:
                client.send(self._unsent[number])
        for _ in range(4 * LONG):
            self.server.advance(0.25)
            for client in self.clients:
                if client.socket.to_client:
                    client.read()
        site = self.server.site
        assert not site.requests(), site.requests()
        assert not self.server.tasks, self.server.tasks
        for number, client in enumerate(self.clients):
            if number not in self._gone:
                self._check_client(number, client)
        self.server.close()
        self._advance(LONG)
        targets = [record.target for record in self.records if record.target]
        assert len(targets) == len(set(targets)), targets
        assert set(self.called) <= set(targets), (self.called, targets)
        for record in self.records:
            assert record.status or record.outcome != "finished", vars_of(record)
        assert all(stopped.called for stopped in self._stopped)
        check_log(self._events)

    def _check_client(self, number: int, client: MemoryClient) -> None:
        """The client has got a sequence of responses, the last one cut perhaps."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)
        left = client.received
        for method in self.methods[number]:
            if not left:
                break
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)
            connection.send(
                h11.Request(method=method, target="/", headers=[("Host", "x")])
            )
            connection.send(h11.EndOfMessage())
            connection.receive_data(left)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    assert client.closed, (number, client.received[-300:])
                    return
                if isinstance(event, h11.EndOfMessage):
                    break
                if event is h11.PAUSED:
                    break
            left = connection.trailing_data[0]
            # Of a head that is not complete, the server does not know the method.
            if b" 408 " in client.received[-300:]:
                return
        assert not left, (number, left[:300])


def vars_of(record: ExchangeRecord) -> dict[str, Any]:
    """Return what is of interest of a record."""
    return {
        name: getattr(record, name)
        for name in ("target", "status", "bytes_sent", "outcome")
    }


def check_log(events: Iterable[LogEvent]) -> None:
    """Fail if a defect of the server was logged."""
    for event in events:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text += failure.getTraceback()
        for word in ("Illegal", "AttributeError", "KeyError", "AssertionError: t"):
            assert word not in text or "PEP 3333" in text, text


def seeds() -> tuple[int, int]:
    """Return the first seed, and how many there are."""
    first = int(os.environ.get("TXGREENWSGI_FIRST_SEED", "0"))
    return first, int(os.environ.get("TXGREENWSGI_SEEDS", str(SEQUENCES)))


globals().update(
    on_every_transport(
        RandomEventsCases,
        only=[
            "Http2",
            "Memory",
            "SocketHttp2",
            "Sockets",
            "Tls",
            "TlsHttp2",
            "WebHttp1",
            "WebHttp2",
        ],
    )
)
