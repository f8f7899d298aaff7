"""Tests of `x-wsgiorg.suspend` and related interfaces, in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txgreenwsgi import NotInGreenlet, spawn
from txgreenwsgi.origins import pauses, suspend

from .serving import GET, TEXT, ServedTestCase, copies_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .serving import Application, Environ, StartResponse

SUSPEND = "x-wsgiorg.suspend"
STATUS = "x-wsgiorg.suspend_status"
READABLE = "x-wsgiorg.fdevent.readable"
TIMEOUT = "x-wsgiorg.fdevent.timeout"


class SuspendTests(ServedTestCase):
    """One suspension, and the events that end it."""

    def setUp(self) -> None:
        """Make a list of resume callables."""
        self.resumes: list[Callable[[], bool]] = []

    def suspended(self, *timeout: float | None) -> Application:
        """Return an application that stores its resume callable, and waits."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            self.resumes.append(environ[SUSPEND](*timeout))
            yield b""
            start_response("200 OK", TEXT)
            yield b"late" if environ[STATUS] else b"resumed"

        return app

    def test_resumed(self) -> None:
        """`resume()` resumes the application and returns True; then False."""
        server = self.serve(self.suspended())
        client = self.get(server)
        server.advance(3600.0)
        self.assertEqual(client.received, b"")
        (resume,) = self.resumes
        self.assertIs(resume(), True)
        self.assertIs(resume(), False)
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "resumed")
        self.assertIs(resume(), False)

    def test_timeout(self) -> None:
        """After its timeout the application continues, and can detect it."""
        server = self.serve(self.suspended(1500))
        client = self.get(server)
        server.advance(1.4)
        self.assertEqual(client.received, b"")
        server.advance(0.2)
        self.assertEqual(self.body(client), "late")
        self.assertIs(self.resumes[0](), False)

    def test_no_timeout_is_none(self) -> None:
        """A timeout of None is no limit."""
        server = self.serve(self.suspended(None))
        client = self.get(server)
        server.advance(3600.0)
        self.assertIs(self.resumes[0](), True)
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "resumed")

    def test_resumed_just_in_time(self) -> None:
        """A `resume` that returned True counts, even with a timeout in that turn."""
        server = self.serve(self.suspended(1000))
        client = self.get(server)
        answers: list[bool] = []
        server.reactor.callLater(0.999, lambda: answers.append(self.resumes[0]()))
        server.advance(1.0)  # both are due in one turn
        self.assertEqual(answers, [True])
        self.assertEqual(self.body(client), "resumed")

    def test_resumed_before_the_yield(self) -> None:
        """A resume before the yield is kept: the yield takes one turn only."""
        answers: list[bool] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            resume = environ[SUSPEND]()
            # False: the application was not suspended yet.
            answers.extend((resume(), resume()))
            yield b""
            start_response("200 OK", TEXT)
            yield b"late" if environ[STATUS] else b"resumed"

        self.assertEqual(self.body(self.get(self.serve(app))), "resumed")
        self.assertEqual(answers, [False, False])

    def test_resumed_before_the_yield_in_a_thread(self) -> None:
        """The same with a resume in a thread."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            thread = threading.Thread(target=environ[SUSPEND]())
            thread.start()
            thread.join()
            yield b""
            start_response("200 OK", TEXT)
            yield b"resumed"

        self.assertEqual(self.body(self.get(self.serve(app))), "resumed")

    def test_resumed_in_a_thread(self) -> None:
        """A resume in a thread returns True, and continues in the reactor's."""
        server = self.serve(self.suspended())
        client = self.get(server)
        asked: list[Callable[[], object]] = []
        self.patch(server.hub, "call_from_thread", asked.append)
        answers: list[bool] = []

        def work() -> None:
            answers.extend((self.resumes[0](), self.resumes[0]()))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual((answers, client.received), ([True, False], b""))
        (call,) = asked
        call()
        client.settle()
        self.assertEqual(self.body(client), "resumed")

    def test_deferred(self) -> None:
        """The main use: a Deferred's callback resumes the application."""
        deferred: Deferred[str] = Deferred()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            found: list[str] = []
            resume = environ[SUSPEND]()

            def fired(result: str) -> None:
                found.append(result)
                resume()

            deferred.addCallback(fired)
            yield b""
            start_response("200 OK", TEXT)
            yield found[0].encode()

        server = self.serve(copies_environ(app))
        client = self.get(server)
        self.assertEqual(client.received, b"")
        deferred.callback("fired")
        # Not inside the callback, which is not interrupted.
        self.assertEqual(client.socket.to_client, b"")
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "fired")

    def test_resumed_by_another_request(self) -> None:
        """One request may resume another; both continue."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            if environ["PATH_INFO"] == "/wake":
                start_response("200 OK", TEXT)
                yield str([resume() for resume in self.resumes]).encode()
            else:
                yield from self.suspended()(environ, start_response)

        server = self.serve(app)
        sleeper = self.get(server)
        waker = server.connect()
        waker.send(GET.replace(b"GET /", b"GET /wake"))
        sleeper.settle()
        self.assertEqual(self.body(waker), "[True]")
        self.assertEqual(self.body(sleeper), "resumed")

    def test_after_the_request(self) -> None:
        """A resume after the request has ended returns False."""
        server = self.serve(self.suspended())
        self.get(server).disconnect()
        self.assertEqual(server.tasks, [])
        self.assertIs(self.resumes[0](), False)

    def test_outside_a_request(self) -> None:
        """Outside a request the call raises; the status object is false."""
        with self.assertRaisesRegex(NotInGreenlet, r"x-wsgiorg\.suspend\(\)"):
            suspend.suspend()
        self.assertIs(bool(suspend.suspend_status), False)

    def test_negative_timeout(self) -> None:
        """A negative timeout is refused at the call."""
        self.get(self.serve(self.suspended(-1)))
        (error,) = self.flushLoggedErrors(ValueError)
        self.assertIn(">= 0, or None for no limit", error.getErrorMessage())

    def test_ten_thousand_suspensions(self) -> None:
        """Ten thousand suspensions leave no task, timer or reference behind."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            for number in range(10_000):
                self.resumes.append(environ[SUSPEND](60_000))
                if number % 3 == 0:
                    self.resumes.pop()()
                yield b""
            yield b"done"

        server = self.serve(app)
        client = self.get(server)
        for _ in range(20_000):
            if not server.tasks:
                break
            for resume in self.resumes:
                resume()
            self.resumes.clear()
            server.settle()
        client.settle()
        self.assertEqual(self.body(client), "done")
        self.assertEqual(pauses.pauses_by_task, {})


class SeveralTests(ServedTestCase):
    """Several calls before one empty block, and both interfaces together."""

    def setUp(self) -> None:
        """Make two sockets and a list of resume callables."""
        self.ours, self.theirs = self.pair()
        self.resumes: list[Any] = []

    def either(
        self, seconds: float | None = None, timeout: float | None = None
    ) -> Application:
        """Wait for a descriptor and a resume; report the event that came first."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            self.resumes.append(environ[SUSPEND](timeout))
            yield environ[READABLE](self.ours, seconds)
            start_response("200 OK", TEXT)
            told = {
                "readable": bool(environ[TIMEOUT].ready),
                "resumed": self.resumes[0].called,
                "late": bool(environ[TIMEOUT]),
                "suspended too long": bool(environ[STATUS]),
            }
            yield ", ".join(name for name, true in told.items() if true).encode()

        return app

    def test_first_resume_wins(self) -> None:
        """Of two suspensions the first to be resumed ends both."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            self.resumes += [environ[SUSPEND](), environ[SUSPEND](5000)]
            yield b""
            start_response("200 OK", TEXT)
            yield repr([resume.called for resume in self.resumes]).encode()

        server = self.serve(app)
        client = self.get(server)
        self.assertIs(self.resumes[1](), True)
        self.assertIs(self.resumes[0](), False)
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "[False, True]")

    def test_descriptor_first(self) -> None:
        """The descriptor is ready first; the resume comes too late."""
        server = self.serve(self.either())
        client = self.get(server)
        self.theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(client), "readable")
        self.assertIs(self.resumes[0](), False)

    def test_descriptor_ready_before(self) -> None:
        """A descriptor that is ready already ends the wait at once."""
        self.theirs.send(b"x")
        self.assertEqual(self.body(self.get(self.serve(self.either()))), "readable")

    def test_resume_first(self) -> None:
        """The resume comes first; the descriptor is no longer watched."""
        server = self.serve(self.either())
        client = self.get(server)
        server.settle()
        self.assertIs(self.resumes[0](), True)
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "resumed")
        self.assertEqual(server.reactor.getReaders(), [client.transport])

    def test_resume_in_the_same_turn(self) -> None:
        """A resume right after the yield is in time."""
        server = self.serve(self.either())
        client = server.connect()
        client.socket.to_server += GET
        while not self.resumes:
            server.reactor.turn()
        self.assertIs(self.resumes[0](), True)
        server.settle()
        client.settle()
        self.assertEqual(self.body(client), "resumed")

    def test_timeout_of_the_descriptor_first(self) -> None:
        """The descriptor's timeout comes first; only that one is reported."""
        server = self.serve(self.either(1.0, 5000))
        client = self.get(server)
        server.advance(1.0)
        self.assertEqual(self.body(client), "late")

    def test_timeout_of_the_suspension_first(self) -> None:
        """The suspension's timeout comes first; only that one is reported."""
        server = self.serve(self.either(5.0, 1000))
        client = self.get(server)
        server.advance(1.0)
        self.assertEqual(self.body(client), "suspended too long")

    def test_disconnect(self) -> None:
        """A disconnect during a wait for both leaves nothing behind."""
        server = self.serve(self.either(5.0, 1000))
        client = self.get(server)
        server.settle()
        client.disconnect()
        server.settle()
        self.assertEqual(server.tasks, [])
        self.assertEqual(server.reactor.getReaders(), [])
        self.assertEqual(server.reactor.getDelayedCalls(), [])

    def test_watching_fails(self) -> None:
        """A descriptor that another task waits on raises a clear error."""
        server = self.serve(self.either())

        def hold() -> None:
            pause = pauses.pause_of("a test")
            pause.watch(self.ours, pauses.READ, 3.0)
            pause.wait()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            holder = spawn(hold)
            yield b""
            yield b""
            try:
                yield from self.either()(environ, start_response)
            finally:
                holder.cancel()

        server.site.application = app
        client = self.get(server)
        server.settle()
        self.assertEqual(client.responses()[0].status, 500)
        (error,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("let one task wait for each direction", error.getErrorMessage())
        server.settle()
