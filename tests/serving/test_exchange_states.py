"""Tests of the states of an exchange: the whole table, and real exchanges."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.matrices import ILLEGAL, assert_event, assert_table, matrix
from txgreenwsgi import Cancelled, ClientDisconnected, NotInGreenlet, sleep
from txgreenwsgi._http.writer import ResponseHead
from txgreenwsgi._serving.exchange import LIFE
from txgreenwsgi._states import IllegalTransition

from .cases import STEP, ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.exchange import Exchange

    Act = Callable[[Exchange], object]

MATRIX = matrix(
    """
           | start   | refuse | lose  | respond    | answer   | finish   | cut | end
queued     | running | ended  | ended | -          | -        | -        | -   | -
running    | -       | -      | -     | responding | complete | -        | cut | ended
responding | -       | -      | -     | -          | -        | complete | cut | ended
complete   | -       | -      | -     | -          | -        | -        | -   | ended
cut        | -       | -      | -     | -          | -        | -        | -   | ended
ended      | -       | -      | -     | -          | -        | -        | -   | -
    """
)


class Body:
    """An iterable that sleeps in each state of its exchange."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._fails = environ["PATH_INFO"] == "/fails"

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        sleep(STEP)
        if self._fails:
            raise ZeroDivisionError
        yield b"b"

    def close(self) -> None:
        """Sleep: the response is complete, or cut."""
        sleep(STEP)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Body:
    """Sleep before the response, within it and after it."""
    sleep(STEP)
    if environ["PATH_INFO"] == "/fails at once":
        raise ZeroDivisionError
    start_response("200 OK", [])
    return Body(environ)


class ExchangeStateTests(ServingTestCase):
    """Exchanges in each state."""

    STATES = ("queued", "running", "responding", "complete", "cut", "ended")

    def in_state(self, state: str, server: ApplicationServer) -> MemoryStream:
        """Return a stream whose exchange was brought into `state`."""
        stream = MemoryStream(server)
        exchange = stream.exchange
        if state == "queued":
            server.admission.acquire()
            server.admission.enqueue(exchange)
            self.addCleanup(server.release_slot)
            self.addCleanup(self.end, stream)
        else:
            exchange.admit()
            steps = {"responding": 1, "complete": 2, "ended": 3}
            for _ in range(steps.get(state, 0)):
                self.step(server)
            if state == "cut":
                stream.leave()
        self.assertEqual(exchange.state, state)
        return stream

    def end(self, stream: MemoryStream) -> None:
        """End an exchange that waits in the queue."""
        if stream.exchange.state == "queued":
            stream.exchange.peer_lost()

    def fail_late(self) -> None:
        """Let the applications fail, whose responses the test has sent."""
        for server in self.servers:
            for _ in range(3):
                self.step(server)
        self.flushLoggedErrors(ValueError)

    def assert_moves(self, event: str, act: Act, states: tuple[str, ...]) -> None:
        """Fail unless `act` moves an exchange in each of `states` as tabulated."""
        for state in states:
            stream = self.in_state(state, self.server_of(application))
            assert_event(
                self,
                MATRIX[state][event],
                partial(act, stream.exchange),
                partial(getattr, stream.exchange, "state"),
                f"{event!r} in {state!r}",
            )

    def assert_stays(self, act: Act, states: tuple[str, ...]) -> None:
        """Fail unless `act` is a no-op for the state of an exchange in `states`."""
        for state in states:
            stream = self.in_state(state, self.server_of(application))
            act(stream.exchange)
            self.assertEqual(stream.exchange.state, state)

    def test_table(self) -> None:
        """The table allows the listed events in each state, and no others."""
        assert_table(self, LIFE, MATRIX)

    def test_start(self) -> None:
        """A request is admitted once; in all other states that is illegal."""
        self.assert_moves("start", lambda exchange: exchange.admit(), self.STATES[1:])
        stream = MemoryStream(self.server_of(application))
        stream.exchange.admit()
        self.assertEqual(stream.exchange.state, "running")

    def test_illegal_admit_keeps_the_slots(self) -> None:
        """A second admission takes no slot."""
        server = self.server_of(application)
        stream = self.in_state("running", server)
        self.assertRaises(IllegalTransition, stream.exchange.admit)
        self.assertEqual(server.admission.running, 1)

    def test_start_with_a_slot(self) -> None:
        """A slot that was passed on starts a queued request, and is freed else."""
        for state in self.STATES:
            server = self.server_of(application)
            stream = self.in_state(state, server)
            running = server.admission.running
            if state == "queued":
                server.admission.remove(stream.exchange)
                server.admission.limit = 2
            server.admission.acquire()
            stream.exchange.start()
            started = state == "queued"
            self.assertEqual(
                stream.exchange.state, "running" if started else state, state
            )
            self.assertEqual(server.admission.running, running + started, state)

    def test_refuse(self) -> None:
        """A queued request is refused and ends; others cannot be refused."""
        self.assert_moves(
            "refuse",
            lambda exchange: exchange.refuse("503 Service Unavailable", "full"),
            self.STATES,
        )

    def test_lose(self) -> None:
        """A queued request whose client disconnects ends."""
        self.assert_moves("lose", lambda exchange: exchange.peer_lost(), ("queued",))

    def test_lose_later(self) -> None:
        """A disconnect before the end of the response cuts the exchange."""
        for state in self.STATES[1:]:
            stream = self.in_state(state, self.server_of(application))
            stream.leave()
            following = MATRIX[state]["cut"]
            if state == "responding":
                # The interruption ends the iteration; close() sleeps.
                self.assertEqual(stream.exchange.outcome, "disconnected")
            self.assertEqual(
                stream.exchange.state, state if following == ILLEGAL else following
            )

    def test_cut(self) -> None:
        """A cut ends what can still be sent; it is a no-op in the other states."""
        error = ClientDisconnected("gone")

        def cut(exchange: Exchange) -> None:
            exchange.cut(error, "disconnected")

        self.assert_moves("cut", cut, ("running", "responding"))
        self.assert_stays(cut, ("queued", "complete", "cut", "ended"))

    def test_respond(self) -> None:
        """The head is sent once; later heads raise an ordinary error."""

        def begin(exchange: Exchange) -> None:
            exchange.begin(ResponseHead("200 OK", []), 1, b"a")

        self.assert_moves("respond", begin, ("running",))
        for state in ("queued", "responding", "complete", "cut", "ended"):
            stream = self.in_state(state, self.server_of(application))
            error = self.assertRaises((ValueError, OSError), begin, stream.exchange)
            self.assertEqual(stream.exchange.state, state)
            self.assertNotIsInstance(error, IllegalTransition)
        self.fail_late()

    def test_finish(self) -> None:
        """A response that has begun can be finished; others raise."""

        def finish(exchange: Exchange) -> None:
            exchange.finish()

        self.assert_moves("finish", finish, ("responding",))
        for state in ("queued", "running", "complete", "cut", "ended"):
            stream = self.in_state(state, self.server_of(application))
            self.assertRaises((ValueError, OSError), finish, stream.exchange)
            self.assertEqual(stream.exchange.state, state)
        self.fail_late()

    def test_finish_of_a_short_response(self) -> None:
        """A response shorter than its Content-Length is cut."""
        stream = self.in_state("running", self.server_of(application))
        exchange = stream.exchange
        exchange.begin(ResponseHead("200 OK", [("Content-Length", "3")]), None, b"a")
        exchange.finish()
        self.assertEqual(exchange.state, "cut")
        self.assertEqual(stream.calls, ["start", "break_off"])
        self.fail_late()

    def test_write(self) -> None:
        """Blocks are sent within a response only."""

        def write(exchange: Exchange) -> None:
            exchange.write(b"x")

        self.assert_stays(write, ("responding",))
        for state in ("queued", "running", "complete", "cut", "ended"):
            stream = self.in_state(state, self.server_of(application))
            self.assertRaises((ValueError, OSError), write, stream.exchange)
            self.assertEqual(stream.exchange.state, state)

    def test_answer(self) -> None:
        """A failure before the head is answered, which completes the response."""
        server = self.server_of(application)
        stream = self.served(server, request_head("GET", "/fails at once"))
        states: list[str] = []

        def answer(head: ResponseHead, body: bytes, last: bool = True) -> None:
            states.append(stream.exchange.state)

        stream.answer = answer  # type: ignore[method-assign]
        self.step(server)
        self.assertEqual(states, [MATRIX["running"]["answer"]])
        self.assertEqual(stream.exchange.state, "ended")
        self.assertEqual(self.outcomes(), [(500, "error")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_within_a_response(self) -> None:
        """A failure after the head cuts the response."""
        server = self.server_of(application)
        stream = self.served(server, request_head("GET", "/fails"))
        states = []
        stream.break_off = lambda: states.append(  # type: ignore[method-assign]
            stream.exchange.state
        )
        for _ in range(3):
            self.step(server)
        self.assertEqual(states, [MATRIX["responding"]["cut"]])
        self.assertEqual(stream.exchange.state, "ended")
        self.assertEqual(self.outcomes(), [(200, "error")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_end(self) -> None:
        """The kill of its task ends an exchange in every state after the start."""

        def kill(exchange: Exchange) -> None:
            if exchange.task is not None:
                exchange.task.kill()

        self.assert_moves("end", kill, ("running", "responding", "complete", "cut"))
        self.assert_stays(kill, ("queued", "ended"))
        # close() cannot sleep in a task that is killed.
        self.flushLoggedErrors(NotInGreenlet)

    def test_cancel(self) -> None:
        """A shutdown ends the exchange in every state, within its next wait."""
        for state in self.STATES:
            server = self.server_of(application)
            stream = self.in_state(state, server)
            stream.exchange.cancel()
            self.step(server)
            self.assertEqual(stream.exchange.state, "ended", state)
            failed = self.flushLoggedErrors(Cancelled)
            # It is an error of the application only where close() was cancelled.
            self.assertEqual(len(failed), state == "complete", state)

    def test_whole_life(self) -> None:
        """An exchange without incidents is queued, runs, responds and ends."""
        server = self.server_of(application)
        stream = MemoryStream(server)
        states = [stream.exchange.state]
        stream.exchange.admit()
        for _ in range(4):
            states.append(stream.exchange.state)
            self.step(server)
        self.assertEqual(
            states, ["queued", "running", "responding", "complete", "ended"]
        )
        self.assertEqual(stream.body, b"ab")
        self.assertEqual(stream.calls, ["start", "data", "finish", "ended"])
        self.assertEqual(self.outcomes(), [(200, "finished")])
