"""A single process and a master behind the control socket."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi import sleep
from txgreenwsgi._command.status import status_text
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.service import GreenService
from txgreenwsgi._twistd.master_process import MasterProcess
from txgreenwsgi._twistd.single_process import SingleProcess
from txgreenwsgi._twistd.surroundings import SurroundedService
from txgreenwsgi._workers.interface import (
    MasterObserver,
    MasterStatus,
    ReloadResult,
    WorkerStatus,
)
from txgreenwsgi.monitoring.failures import failures
from txgreenwsgi.testing import MemoryServer


class SingleProcessTests(SynchronousTestCase):
    """`SingleProcess`."""

    def setUp(self) -> None:
        """Serve an application that sleeps."""

        def app(environ: Any, start: Any) -> list[bytes]:
            sleep(10)
            start("200 OK", [])
            return [b"x"]

        self.memory = MemoryServer(app)
        server = GreenService(lambda: app, [], reactor=cast("Any", self.memory.reactor))
        server.site.server = self.memory.site.server
        server.urls = ["http://127.0.0.1:8080/"]
        self.single = SingleProcess("shop:app", server)

    def test_status(self) -> None:
        """The status has the process and its requests in flight."""
        client = self.memory.connect()
        client.send(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.memory.reactor.advance(3)
        status = self.successResultOf(self.single.status())
        (worker,) = status["workers"]
        assert worker["in_flight"] is not None
        (request,) = worker["in_flight"]
        self.assertEqual(status["pid"], os.getpid())
        self.assertEqual(status["target"], 0)
        self.assertEqual(worker["requests"], 1)
        self.assertEqual(worker["connections"], 1)
        self.assertEqual(worker["served"], 0)
        self.assertGreater(worker["rss"] or 0, 1 << 20)
        self.assertEqual(request["method"], "GET")
        self.assertEqual(request["path"], "/a")
        self.assertEqual(request["age"], 3)
        self.assertEqual(request["state"], "parked")
        self.assertIn("sleep(10)", request["waiting_on"])
        self.assertIn("serves shop:app at http://127.0.0.1:8080/", status_text(status))
        stacks = self.successResultOf(self.single.stacks(request["request_id"]))
        self.assertIn("test_control.py", stacks)
        self.assertNotIn("thread ", stacks)
        for of in ("", "1"):
            self.assertIn("thread ", self.successResultOf(self.single.stacks(of)))
        self.memory.reactor.advance(7)
        status = self.successResultOf(self.single.status())
        self.assertEqual(status["workers"][0]["served"], 1)
        self.assertEqual(status["workers"][0]["in_flight"], [])

    def test_snapshot(self) -> None:
        """A snapshot has the lag of the reactor, and routes since the first one."""
        self.successResultOf(self.single.snapshot())
        client = self.memory.connect()
        client.send(b"GET /a/17 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.memory.reactor.advance(4)
        found = self.successResultOf(self.single.snapshot())
        (worker,) = found["workers"]
        self.assertEqual(worker["requests"], 1)
        self.assertEqual(found["routes"], [])
        self.assertFalse(found["can_cancel"])
        self.memory.reactor.advance(6)
        found = self.successResultOf(self.single.snapshot())
        (route,) = found["routes"]
        self.assertEqual((route["method"], route["pattern"]), ("GET", "/a/*"))
        self.assertEqual((route["requests"], route["mean"]), (1, 10.0))
        self.assertEqual(found["watched_seconds"], 10)

    def test_cancel(self) -> None:
        """A request can be cancelled if the operator may."""
        client = self.memory.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.memory.reactor.advance(1)
        server = self.memory.site.server
        (row,) = server.requests()
        refused = self.failureResultOf(self.single.cancel(row.request_id), ControlError)
        self.assertIn("--status-cancel", str(refused.value))
        service = GreenService(cast("Any", None), [], reactor=cast("Any", None))
        service.site.server = server
        single = SingleProcess("shop:app", service, can_cancel=True)
        self.successResultOf(single.cancel(row.request_id))
        self.memory.advance(0.01)
        (response,) = client.responses()
        self.assertEqual(response.status, 503)
        self.assertEqual(server.requests(), [])
        unknown = self.failureResultOf(single.cancel(row.request_id), ControlError)
        self.assertIn("there is no request", str(unknown.value))

    def test_failure(self) -> None:
        """A failure has its traceback only if it is asked for."""
        failures.add(ValueError("x"), "1f-7", "GET", "/a")
        self.addCleanup(failures.reset)
        found = self.successResultOf(self.single.snapshot())
        first = found["failures"][0]
        self.assertEqual((first["error"], first["traceback"]), ("ValueError: x", ""))
        whole = self.successResultOf(self.single.failure(first["failure_id"]))
        self.assertIn("ValueError: x", whole["traceback"])
        self.assertEqual(whole["worker"], 1)

    def test_refused(self) -> None:
        """A single process has no workers."""
        for answer, reason in [
            (self.single.reload(), "cannot reload its code: start it with --workers"),
            (self.single.scale(2, relative=False), "cannot be scaled: start it with"),
            (self.single.stacks("1f-2"), "there is no request 1f-2 in flight"),
        ]:
            waiting = cast("Deferred[Any]", answer)
            failure = self.failureResultOf(waiting, ControlError)
            self.assertIn(reason, str(failure.value))


ROW = {
    "request_id": "1f-2",
    "method": "GET",
    "path": "/",
    "age": 1.0,
    "state": "parked",
    "waiting_on": "sleep(30)",
    "waiting_seconds": 0.5,
    "status": 0,
    "bytes_sent": 0,
    "remote_addr": "192.0.2.1",
    "user_agent": "",
}


def failure(identity: str, last: float, **more: Any) -> dict[str, Any]:
    """Return a failure as a worker sends it."""
    return {
        "failure_id": identity,
        "error": f"ValueError: {identity}",
        "place": "shop.py:3 in view",
        "count": 2,
        "first": last - 5,
        "last": last,
        "request_id": "1f-1",
        "method": "GET",
        "path": "/",
        "traceback": f"Traceback of {identity}",
        **more,
    }


def snapshot(**more: Any) -> dict[str, Any]:
    """Return the snapshot of a worker."""
    route = {
        "method": "GET",
        "pattern": "/a",
        "requests": 4,
        "failures": 1,
        "seconds": 2.0,
        "longest": 1.5,
        "durations": [0] * 9 + [3, 0, 1] + [0] * 7,
        "mean": 0.5,
        "p95": 1.5,
    }
    line = {
        "filename": "shop.py",
        "line": 7,
        "function": "view",
        "kind": "",
        "blocks": 1,
        "seconds": 0.5,
        "longest": 0.5,
        "request": "GET /a",
    }
    return {
        "in_flight": [ROW],
        "connections": 1,
        "served": 4,
        "requests": 1,
        "queued": 3,
        "lag": 0.25,
        "watched_seconds": 8.0,
        "routes": [route],
        "blocked": [line],
        "failures": [],
        "last_change": 0,
        **more,
    }


def worker(number: int, **more: Any) -> WorkerStatus:
    """Return the status of a worker."""
    given: dict[str, Any] = {
        "number": number,
        "slot": number - 1,
        "pid": 10**9 + number,
        "state": "ready",
        "age": 5.0,
        "slots": (number - 1,),
        **more,
    }
    return WorkerStatus(**given)


class FakeMaster:
    """A master with the workers of the test."""

    def __init__(self) -> None:
        self.workers = [worker(1), worker(2)]
        self.answers: dict[int, Any] = {
            1: {"in_flight": [], "connections": 3, "served": 7},
            2: {"in_flight": [ROW], "connections": 1, "served": 0},
        }
        self.snapshots: dict[int, Any] = {}
        self.asked: list[tuple[int, object]] = []
        self.scaled: list[int] = []
        self.last: ReloadResult | None = None
        self.reloading: Deferred[ReloadResult] = Deferred()

    def status(self) -> MasterStatus:
        """Return the status."""
        return MasterStatus(
            pid=9,
            target=2,
            listening=("127.0.0.1:80",),
            reloading=False,
            stopping=False,
            workers=tuple(self.workers),
            restarts=1,
            reloads=2,
            last_reload=self.last,
        )

    def details(self, number: int) -> Deferred[Any]:
        """Return the details of a worker."""
        return succeed(self.answers.get(number))

    def snapshot(self, number: int, known_change: int) -> Deferred[Any]:
        """Record the question, and return the snapshot of a worker."""
        self.asked.append((number, known_change))
        return succeed(self.snapshots.get(number))

    def cancel(self, number: int, request: str) -> Deferred[bool | None]:
        """Return whether the worker has the request."""
        self.asked.append((number, request))
        found = self.snapshots.get(number)
        if found is None:
            return succeed(None)
        rows = found["in_flight"]
        return succeed(any(row["request_id"] == request for row in rows))

    def stacks(self, number: int, request: str = "") -> Deferred[str]:
        """Return text with the arguments."""
        if number not in self.answers:
            return fail(LookupError(f"there is no worker {number}"))
        if request == "gone":
            return succeed("")
        return succeed(f"stacks of {number} {request}\n")

    def reload(self) -> Deferred[ReloadResult]:
        """Return a Deferred that the test fires."""
        return self.reloading

    def scale(self, count: int) -> None:
        """Record the number."""
        self.scaled.append(count)

    def restart_slot(
        self, slot: int, grace_seconds: float = 0.0
    ) -> Deferred[ReloadResult]:
        """Fail: unused."""
        raise NotImplementedError

    def observe(self, observer: MasterObserver) -> None:
        """No-op."""


class MasterProcessTests(SynchronousTestCase):
    """`MasterProcess`."""

    def setUp(self) -> None:
        """Attach a master."""
        self.master = FakeMaster()
        self.process = MasterProcess("shop:app", lambda status: status.listening)
        self.process.attach(self.master)

    def refusal(self, answer: Deferred[Any]) -> str:
        """Return the message of a failed command."""
        return str(self.failureResultOf(answer, ControlError).value)

    def test_starting(self) -> None:
        """Before the master has started, the command may be repeated."""
        process = MasterProcess("shop:app", lambda status: [])
        for answer in (
            cast("Deferred[Any]", process.status()),
            cast("Deferred[Any]", process.reload()),
            cast("Deferred[Any]", process.scale(2, relative=False)),
            cast("Deferred[Any]", process.stacks("")),
            cast("Deferred[Any]", process.snapshot()),
            cast("Deferred[Any]", process.cancel("1f-2")),
        ):
            self.assertEqual(self.refusal(answer), "the server is starting: try again")

    def test_status(self) -> None:
        """The status joins the master's knowledge and the workers' answers."""
        self.master.last = ReloadResult(False, 1, "Traceback\nOSError: x")
        status = self.successResultOf(self.process.status())
        self.assertEqual(status["version"], txgreenwsgi.__version__)
        self.assertEqual(status["listening"], ["127.0.0.1:80"])
        self.assertEqual((status["restarts"], status["reloads"]), (1, 2))
        first, second = status["workers"]
        self.assertEqual(first["in_flight"], [])
        self.assertEqual((first["requests"], first["served"]), (0, 7))
        self.assertEqual((first["connections"], first["lag"]), (3, None))
        self.assertEqual(second["in_flight"], [ROW])
        self.assertIsNone(second["rss"])
        self.assertIn("after 1 worker: OSError: x", status_text(status))

    def test_silent_worker(self) -> None:
        """Of a worker that does not answer, the status has the last notice."""
        self.master.answers[1] = None
        self.master.workers[0] = worker(
            1,
            beat_age=9.0,
            lag=0.5,
            requests=2,
            connections=4,
            served=8,
            current="1f-9 GET /",
        )
        status = self.successResultOf(self.process.status())
        silent = status["workers"][0]
        self.assertIsNone(silent["in_flight"])
        self.assertEqual((silent["requests"], silent["served"]), (2, 8))
        self.assertEqual((silent["connections"], silent["lag"]), (4, 0.5))
        self.assertIn("turned 9.0 s ago and runs 1f-9 GET /", status_text(status))
        self.master.workers[0] = worker(1)
        status = self.successResultOf(self.process.status())
        self.assertIsNone(status["workers"][0]["requests"])
        self.assertIsNone(status["workers"][0]["connections"])

    def test_booting_worker(self) -> None:
        """A worker that boots has no requests."""
        self.master.workers.append(worker(3, state="booting", pid=0))
        status = self.successResultOf(self.process.status())
        booting = status["workers"][2]
        self.assertEqual(booting["in_flight"], [])
        self.assertEqual(booting["requests"], 0)
        self.assertIsNone(booting["served"])
        self.assertIsNone(booting["rss"])

    def test_reload(self) -> None:
        """The answer is that of the master."""
        answer = self.process.reload()
        self.assertNoResult(answer)
        self.master.reloading.callback(ReloadResult(False, 1, "ImportError"))
        self.assertEqual(
            self.successResultOf(answer),
            {"succeeded": False, "replaced": 1, "reason": "ImportError"},
        )

    def test_scale(self) -> None:
        """A number or a difference sets the number of workers."""
        for number, relative, target in [(5, False, 5), (1, True, 3), (-1, True, 1)]:
            answer = self.process.scale(number, relative=relative)
            self.assertEqual(self.successResultOf(answer), target)
        self.assertEqual(self.master.scaled, [5, 3, 1])
        for number, relative in [(0, False), (-2, True), (1001, False)]:
            answer = self.process.scale(number, relative=relative)
            self.assertIn("give 1 to 1000", self.refusal(answer))
        self.assertEqual(len(self.master.scaled), 3)

    def test_stacks_of_workers(self) -> None:
        """The stacks are those of all workers, or of one."""
        text = self.successResultOf(self.process.stacks(""))
        self.assertIn("worker 1 (pid 1000000001), ready:\nstacks of 1 \n", text)
        self.assertIn("worker 2 (pid 1000000002), ready:\nstacks of 2 \n", text)
        text = self.successResultOf(self.process.stacks("2"))
        self.assertNotIn("worker 1", text)
        self.assertEqual(
            self.refusal(self.process.stacks("7")),
            "there is no worker 7: the workers are 1, 2",
        )

    def test_worker_that_ends(self) -> None:
        """A worker that ends meanwhile does not hide the others."""
        self.master.workers.append(worker(3))
        text = self.successResultOf(self.process.stacks(""))
        self.assertIn("there is no worker 3\n", text)
        self.assertIn("stacks of 1", text)

    def test_stacks_of_request(self) -> None:
        """The worker with the request is asked for it."""
        text = self.successResultOf(self.process.stacks("1f-2"))
        self.assertEqual(text, "stacks of 2 1f-2\n")
        self.assertEqual(
            self.refusal(self.process.stacks("1f-3")),
            "there is no request 1f-3 in flight",
        )
        self.master.answers[2]["in_flight"] = [{**ROW, "request_id": "gone"}]
        self.assertEqual(
            self.refusal(self.process.stacks("gone")), "the request gone has ended"
        )

    def test_stacks_of_request_that_blocks(self) -> None:
        """For a request that blocks its worker, the answer is all its stacks."""
        self.master.answers[2] = None
        self.master.workers[1] = worker(2, current="1f-9 GET /")
        text = self.successResultOf(self.process.stacks("1f-9"))
        self.assertIn("worker 2 (pid 1000000002), ready:\nstacks of 2", text)
        self.assertIn(
            "these workers do not answer: 2; give the number",
            self.refusal(self.process.stacks("1f-8")),
        )


class MasterSnapshotTests(SynchronousTestCase):
    """Snapshots, failures and cancellations of `MasterProcess`."""

    def setUp(self) -> None:
        """Attach a master with two workers."""
        self.master = FakeMaster()
        self.process = MasterProcess("shop:app", lambda _: [], can_cancel=True)
        self.process.attach(self.master)

    def test_sums(self) -> None:
        """Routes and lines of all workers are added up."""
        self.master.snapshots = {1: snapshot(), 2: snapshot(lag=0.5)}
        found = self.successResultOf(self.process.snapshot())
        self.assertTrue(found["can_cancel"])
        self.assertEqual(found["queued"], 6)
        self.assertEqual(found["watched_seconds"], 8.0)
        (route,) = found["routes"]
        self.assertEqual((route["requests"], route["failures"]), (8, 2))
        self.assertEqual((route["seconds"], route["longest"]), (4.0, 1.5))
        self.assertEqual((route["mean"], route["p95"]), (0.5, 1.5))
        self.assertEqual(route["durations"][9:12], [6, 0, 2])
        (line,) = found["blocked"]
        self.assertEqual((line["blocks"], line["seconds"]), (2, 1.0))
        self.assertEqual([each["lag"] for each in found["workers"]], [0.25, 0.5])
        self.assertEqual(found["workers"][0]["in_flight"], [ROW])

    def test_silent(self) -> None:
        """A worker whose reactor does not turn is not asked: others need no patience.

        Its lag is the time since its last beat.
        """
        self.master.snapshots = {2: snapshot()}
        self.master.workers[0] = worker(1, beat_age=1.5, current="1f-9 GET /")
        found = self.successResultOf(self.process.snapshot())
        self.assertEqual(self.master.asked, [(2, 0)])
        silent = found["workers"][0]
        self.assertIsNone(silent["in_flight"])
        self.assertEqual((silent["lag"], silent["current"]), (1.5, "1f-9 GET /"))

    def test_failures(self) -> None:
        """Only failures that have changed are asked for; all are known."""
        self.master.snapshots = {
            1: snapshot(failures=[failure("b-1", 200.0)], last_change=4)
        }
        self.successResultOf(self.process.snapshot())
        self.master.snapshots = {
            1: snapshot(failures=[failure("b-2", 300.0, place="x")], last_change=5)
        }
        found = self.successResultOf(self.process.snapshot())
        self.assertEqual(self.master.asked[2:], [(1, 4), (2, 0)])
        self.assertEqual(
            [each["failure_id"] for each in found["failures"]], ["b-2", "b-1"]
        )
        self.assertEqual({each["traceback"] for each in found["failures"]}, {""})
        one = self.successResultOf(self.process.failure("b-1"))
        self.assertEqual((one["traceback"], one["worker"]), ("Traceback of b-1", 1))
        reason = self.failureResultOf(self.process.failure("c-1"), ControlError)
        self.assertEqual(str(reason.value), "there is no recent failure c-1")

    def test_equal_failures(self) -> None:
        """Equal failures of two workers are one, with the last traceback."""
        self.master.snapshots = {
            1: snapshot(failures=[failure("b-1", 200.0)], last_change=1),
            2: snapshot(failures=[failure("c-1", 100.0)], last_change=1),
        }
        found = self.successResultOf(self.process.snapshot())
        (one,) = found["failures"]
        self.assertEqual((one["count"], one["first"], one["last"]), (4, 95.0, 200.0))
        for identity in ("b-1", "c-1"):
            whole = self.successResultOf(self.process.failure(identity))
            self.assertEqual(whole["traceback"], "Traceback of b-1")

    def test_many_failures(self) -> None:
        """The latest failures are kept."""
        many = [failure(f"b-{n}", float(n), place=str(n)) for n in range(150, 0, -1)]
        self.master.snapshots = {1: snapshot(failures=many)}
        found = self.successResultOf(self.process.snapshot())
        self.assertEqual(len(found["failures"]), 100)
        self.assertEqual(found["failures"][0]["failure_id"], "b-150")

    def test_cancel(self) -> None:
        """The worker with the request cancels it."""
        self.master.snapshots = {1: snapshot(in_flight=[]), 2: snapshot()}
        answer = self.process.cancel("1f-2")
        self.assertEqual(self.successResultOf(answer), "1f-2")
        failed = self.failureResultOf(self.process.cancel("1f-3"), ControlError)
        self.assertEqual(str(failed.value), "there is no request 1f-3 in flight")
        del self.master.snapshots[1]
        failed = self.failureResultOf(self.process.cancel("1f-3"), ControlError)
        self.assertIn("some workers do not answer", str(failed.value))

    def test_cancel_is_off(self) -> None:
        """By default, no worker is asked to cancel."""
        process = MasterProcess("shop:app", lambda _: [])
        process.attach(self.master)
        failed = self.failureResultOf(process.cancel("1f-2"), ControlError)
        self.assertIn("start the server with --status-cancel", str(failed.value))
        self.assertEqual(self.master.asked, [])


class RecordingService(Service):
    """A service that records its calls."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.stopped: Deferred[None] = Deferred()

    def privilegedStartService(self) -> None:
        """Record it."""
        self.calls.append("privileged")

    def startService(self) -> None:
        """Record it."""
        self.calls.append("start")

    def stopService(self) -> Deferred[None]:
        """Return a Deferred that the test fires."""
        self.calls.append("stop")
        return self.stopped


class FakeControl:
    """A control socket that records its calls."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.error: Exception | None = None

    def open(self, reactor: object) -> None:
        """Record it, or fail as the test demands."""
        self.calls.append("open")
        if self.error is not None:
            raise self.error

    def close(self) -> Deferred[None]:
        """Record it."""
        self.calls.append("close")
        return succeed(None)


class FakeFormat:
    """A log format that records its calls."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.is_late = False

    def enter_application(self, application: object) -> None:
        """Record it."""
        self.calls.append("format")

    def enter_log(self) -> None:
        """Record it."""
        self.calls.append("late format")


class FakeListener:
    """A listener that records its name when it opens; without one, it cannot."""

    def __init__(self, name: str, opened: list[str]) -> None:
        self._name = name
        self._opened = opened

    def open(self, reactor: object) -> None:
        """Record it."""
        if not self._name:
            raise StartError("the port is taken")
        self._opened.append(self._name)

    def close(self) -> Deferred[None]:
        """No-op."""
        return succeed(None)


class SurroundedServiceTests(SynchronousTestCase):
    """The order of a start and of an end."""

    def setUp(self) -> None:
        """Make the service."""
        self.calls: list[str] = []
        self.before_control: Deferred[None] = succeed(None)
        self.inner = RecordingService(self.calls)
        self.control = FakeControl(self.calls)
        self.format = FakeFormat(self.calls)
        self.reactor = MemoryReactorClock()
        self.service = SurroundedService(
            self.inner,
            cast("Any", self.format),
            cast("Any", self.control),
            self.reactor,
            lambda: self.calls.append("started"),
            self.before_control,
        )

    def test_order(self) -> None:
        """The control socket is open from before the import until after the end."""
        self.service.setServiceParent(Application("web"))
        self.service.privilegedStartService()
        self.service.startService()
        self.assertEqual(self.calls, ["format", "privileged", "open", "start"])
        for function, arguments, keywords in self.reactor.whenRunningHooks:
            function(*arguments, **keywords)
        stopped = self.service.stopService()
        self.assertEqual(self.calls[4:], ["started", "stop"])
        self.assertNoResult(stopped)
        self.inner.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.calls[-1], "close")

    def test_failed_end(self) -> None:
        """The socket is closed after an end that fails, whose failure is kept."""
        self.service.startService()
        stopped = self.service.stopService()
        self.inner.stopped.errback(ZeroDivisionError())
        self.failureResultOf(stopped, ZeroDivisionError)
        self.assertEqual(self.calls[-1], "close")

    def test_wrong_path(self) -> None:
        """A control socket that cannot be opened prevents the start."""
        self.control.error = ControlError("--control 'x' cannot be opened")
        self.patch(sys, "excepthook", None)
        error = self.assertRaises(StartError, self.service.startService)
        self.assertEqual(str(error), "--control 'x' cannot be opened")
        self.assertNotIn("start", self.calls)

    def test_late_listeners(self) -> None:
        """If one listener of a new master cannot be opened, the others open."""
        opened: list[str] = []
        before_control: Deferred[None] = Deferred()
        service = SurroundedService(
            self.inner,
            cast("Any", self.format),
            cast("Any", self.control),
            self.reactor,
            lambda: None,
            before_control,
            [FakeListener("", opened), FakeListener("status", opened)],
        )
        service.startService()
        self.assertEqual(opened, [])
        with capturedLogs() as events:
            before_control.callback(None)
        self.assertEqual(opened, ["status"])
        self.assertEqual(self.calls[-1], "open")
        [event] = events
        self.assertEqual(formatEvent(event), "the port is taken")

    def test_late_log(self) -> None:
        """Twist begins its log when the reactor runs."""
        self.format.is_late = True
        self.service.startService()
        self.assertNotIn("late format", self.calls)
        for function, args, kwargs in self.reactor.whenRunningHooks:
            function(*args, **kwargs)
        self.assertIn("late format", self.calls)
