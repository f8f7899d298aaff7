"""Tasks under real reactors: starts, threads, descriptors, and every way to end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .children import CHECKOUT, END_SECONDS, ChildTestCase

#: Messages of a greenlet that is destroyed while it waits.
NOISE = ("GreenletExit", "did not kill", "Exception ignored", "never awaited")


class ReactorTests(ChildTestCase):
    """Under the default reactor."""

    def assert_quiet(self, errors: str) -> None:
        """Check that the log has no message of a switch at the wrong time."""
        for noise in NOISE:
            self.assertNotIn(noise, errors)

    def test_react(self) -> None:
        """A sequential program that sleeps, waits, spawns and uses threads."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from twisted.internet.task import deferLater
            from twisted.internet.threads import deferToThread
            from txgreenwsgi import react, sleep, spawn, timeout, TimedOut, wait
            import threading

            def child(name):
                sleep(0.02)
                return name * 2

            def main(argument):
                print(argument)
                sleep(0.01)
                print(wait(deferLater(reactor, 0.01, str.upper, "deferred")))
                here = threading.get_ident()
                assert wait(deferToThread(threading.get_ident)) != here
                assert threading.get_ident() == here
                tasks = [spawn(child, name) for name in "ab"]
                print([task.wait() for task in tasks])
                try:
                    with timeout(0.05):
                        sleep(60)
                except TimedOut:
                    print("timed out")

                async def coroutine():
                    return await deferLater(reactor, 0.01, str.upper, "coroutine")

                print(wait(coroutine()))

            react(main, "argument")
            """
        )
        self.assertEqual(
            output.splitlines(),
            [
                "argument",
                "DEFERRED",
                "['aa', 'bb']",
                "timed out",
                "COROUTINE",
            ],
        )
        self.assertEqual(errors, "")

    def test_failure(self) -> None:
        """A program that fails ends with status 1, and its traceback is logged."""
        _, errors = self.run_program(
            """
            from txgreenwsgi import react, sleep

            def origin_of_the_failure():
                sleep(0.01)
                raise ValueError("the failure")

            react(origin_of_the_failure)
            """,
            status=1,
        )
        self.assertIn("the failure", errors)
        self.assertIn("in origin_of_the_failure", errors)
        self.assert_quiet(errors)

    def test_exit(self) -> None:
        """A program that exits has its own status, also from a spawned task's wait."""
        self.run_program(
            """
            import sys
            from txgreenwsgi import react, sleep, spawn

            def child():
                sleep(0.01)
                sys.exit(7)

            react(lambda: spawn(child).wait())
            """,
            status=7,
        )

    def test_interrupted(self) -> None:
        """Ctrl-C ends the wait of the program, which can clean up."""
        child = self.start(
            """
            from txgreenwsgi import react, sleep, Cancelled

            def main():
                try:
                    print("waiting")
                    sleep(60)
                except Cancelled:
                    sleep(0.1)
                    print("cleaned up")
                    raise

            react(main)
            """
        )
        self.interrupt(child, "waiting")
        output, errors = self.finish(child)
        self.assertEqual(output.strip(), "cleaned up")
        self.assert_quiet(errors)

    def test_tasks_that_are_left(self) -> None:
        """Tasks parked when the reactor stops run their `finally` blocks, quickly."""
        started = time.monotonic()
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from twisted.internet.defer import Deferred
            from txgreenwsgi import spawn, sleep, suspend, wait, NotInGreenlet
            from txgreenwsgi import wait_readable
            import os

            reading, writing = os.pipe()

            def work(name, *waits):
                try:
                    waits[0]()
                finally:
                    print(name)
                    try:
                        sleep(60)
                    except NotInGreenlet:
                        print("not now")

            def main():
                spawn(work, "sleeping", lambda: sleep(60))
                spawn(work, "waiting", lambda: wait(Deferred()))
                spawn(work, "suspended", lambda: suspend().wait())
                spawn(work, "reading", lambda: wait_readable(reading))
                sleep(0.05)
                spawn(work, "never began", lambda: None)
                reactor.stop()

            reactor.callWhenRunning(spawn, main)
            reactor.run()
            print("stopped")
            """
        )
        lines = output.splitlines()
        self.assertEqual(lines[-1], "stopped")
        names = {"sleeping", "waiting", "suspended", "reading"}
        self.assertEqual(names & set(lines), names)
        self.assertGreaterEqual(lines.count("not now"), len(names))
        self.assert_quiet(errors)
        self.assertLess(time.monotonic() - started, 20)

    def test_tasks_that_catch_everything(self) -> None:
        """A task that catches every exception does not keep the process alive."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from txgreenwsgi import spawn, sleep

            def stubborn():
                while True:
                    try:
                        sleep(60)
                    except BaseException:
                        pass

            def main():
                for _ in range(3):
                    spawn(stubborn)
                sleep(0.05)
                reactor.stop()

            reactor.callWhenRunning(spawn, main)
            reactor.run()
            print("stopped")
            """
        )
        self.assertEqual(output.strip(), "stopped")
        self.assert_quiet(errors)

    def test_exit_without_a_stop(self) -> None:
        """A process that exits with parked tasks and a running reactor just ends."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from txgreenwsgi import spawn, sleep

            def work():
                try:
                    sleep(60)
                finally:
                    while True:
                        try:
                            sleep(60)
                        except BaseException:
                            pass

            for _ in range(3):
                spawn(work)
            reactor.callLater(0.1, reactor.crash)
            reactor.run()
            print("left")
            """
        )
        self.assertEqual(output.strip(), "left")
        self.assert_quiet(errors)

    def test_deadlocks(self) -> None:
        """Waits that would hang forever raise, and the reactor keeps running."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from twisted.internet.threads import blockingCallFromThread, deferToThread
            from txgreenwsgi import react, sleep, wait, NotInGreenlet

            def attempt(function, *args):
                try:
                    function(*args)
                except NotInGreenlet as error:
                    print(str(error).split("(")[0].split(" was")[0])

            def main():
                attempt(reactor.iterate)
                attempt(reactor.run)
                attempt(blockingCallFromThread, reactor, str)
                sleep(0.01)
                print(wait(deferToThread(
                    blockingCallFromThread, reactor, lambda: "from a thread"
                )))

            react(main)
            """
        )
        self.assertEqual(
            output.splitlines(),
            [
                "reactor.iterate",
                "reactor.run",
                "blockingCallFromThread",
                "from a thread",
            ],
        )
        self.assertEqual(errors, "")

    def test_threads(self) -> None:
        """Threads may resume, cancel and fire; wait and spawn in them are refused."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from twisted.internet.defer import Deferred
            from txgreenwsgi import react, sleep, spawn, suspend, wait
            from txgreenwsgi import NotInGreenlet, Cancelled
            import threading

            def in_thread(function, *args):
                thread = threading.Thread(target=function, args=args, name="worker-1")
                thread.start()
                return thread

            def attempt(function, *args):
                try:
                    function(*args)
                except NotInGreenlet as error:
                    print("'worker-1'" in str(error), "callFromThread" in str(error)
                        or "blockingCallFromThread" in str(error))

            def main():
                handle = suspend()
                in_thread(handle.resume, "resumed")
                print(handle.wait())
                deferred = Deferred()
                in_thread(deferred.callback, "fired")
                print(wait(deferred))
                task = spawn(sleep, 60)
                sleep(0.01)
                in_thread(task.cancel)
                try:
                    task.wait()
                except Cancelled:
                    print("cancelled")
                for call in ((sleep, 1), (spawn, print), (suspend,)):
                    in_thread(attempt, *call).join()
                done = Deferred()
                in_thread(reactor.callFromThread, spawn, done.callback, "spawned")
                print(wait(done))

            react(main)
            """
        )
        self.assertEqual(
            output.splitlines(),
            ["resumed", "fired", "cancelled", *["True True"] * 3, "spawned"],
        )
        self.assertEqual(errors, "")

    def test_reactor_in_a_thread(self) -> None:
        """A reactor that runs in a thread has its tasks in that thread."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from twisted.internet.threads import blockingCallFromThread
            from txgreenwsgi import in_greenlet, sleep, spawn, suspend
            from txgreenwsgi import NotInGreenlet
            import threading

            handles = []

            def work():
                sleep(0.01)
                handles.append(suspend())
                handles[0].wait()
                return threading.current_thread().name

            early = spawn(work)  # before the reactor has a thread
            thread = threading.Thread(
                target=reactor.run, args=(False,), name="reactor-thread"
            )
            thread.start()
            while not handles:
                pass
            handles[0].resume()
            print(blockingCallFromThread(reactor, early.deferred))
            try:
                spawn(work)
            except NotInGreenlet as error:
                print("callFromThread" in str(error))
            print(blockingCallFromThread(reactor, in_greenlet(lambda: sleep(0))))
            reactor.callFromThread(reactor.stop)
            thread.join()
            """
        )
        self.assertEqual(output.splitlines(), ["reactor-thread", "True", "None"])
        self.assert_quiet(errors)

    def test_signals(self) -> None:
        """A signal handler cannot wait, but may schedule a task that does."""
        output, errors = self.run_program(
            """
            import os, signal
            from twisted.internet import reactor
            from txgreenwsgi import react, sleep, spawn, suspend, NotInGreenlet

            def handler(number, frame):
                try:
                    sleep(1)
                except NotInGreenlet as error:
                    print("'handler'" in str(error))
                reactor.callFromThread(spawn, later)

            def later():
                sleep(0.01)
                handle.resume("from a task")

            signal.signal(signal.SIGUSR1, handler)

            def main():
                global handle
                sleep(0)
                handle = suspend()
                os.kill(os.getpid(), signal.SIGUSR1)
                print(handle.wait())

            react(main)
            """
        )
        self.assertEqual(output.splitlines(), ["True", "from a task"])
        self.assertEqual(errors, "")

    def test_many_tasks(self) -> None:
        """Two thousand tasks sleep concurrently and leave nothing behind."""
        output, errors = self.run_program(
            """
            from twisted.internet import reactor
            from txgreenwsgi import react, sleep, spawn
            from txgreenwsgi._switching.greenlets import hub_of

            def main():
                tasks = [spawn(sleep, 0.2) for _ in range(2000)]
                for task in tasks:
                    task.wait()
                print(len(hub_of(reactor).tasks), len(reactor.getDelayedCalls()))

            react(main)
            """
        )
        self.assertEqual(output.strip(), "1 0")
        self.assertEqual(errors, "")

    def test_unobserved_failure(self) -> None:
        """An unobserved failure is logged before the process ends."""
        _, errors = self.run_program(
            """
            import sys
            from twisted.python import log
            from txgreenwsgi import react, sleep, spawn

            log.startLogging(sys.stderr)

            def failing():
                raise ValueError("unseen")

            def main():
                spawn(failing)
                sleep(0.02)

            react(main)
            """
        )
        self.assertIn("its error was never handled", errors)
        self.assertIn("unseen", errors)


class AsyncioReactorTests(ReactorTests):
    """Under the asyncio reactor."""

    reactor = "asyncioreactor"


class DescriptorsTests(ChildTestCase):
    """Descriptors under each kind of reactor, because each watches them differently."""

    def test_descriptors(self) -> None:
        """Pipes, sockets, terminals, many at the same time, and their ends."""
        output, errors = self.run_program(
            """
            import os, pty, socket, tty
            from txgreenwsgi import poll, react, select, sleep, spawn
            from txgreenwsgi import wait_readable, wait_writable

            def write_later(fd, data=b"x"):
                sleep(0.02)
                os.write(fd, data)

            def close_later(fd):
                sleep(0.02)
                os.close(fd)

            def main():
                reading, writing = os.pipe()
                assert not wait_readable(reading, 0.02)
                spawn(write_later, writing)
                assert wait_readable(reading)
                os.read(reading, 1)
                print("pipe")

                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                try:
                    while True:
                        ours.send(b"x" * 65536)
                except BlockingIOError:
                    pass
                assert not wait_writable(ours, 0.02)
                spawn(theirs.recv, 1 << 24)
                assert wait_writable(ours)
                spawn(write_later, theirs.fileno())
                assert select([ours], [], [], 5) == ([ours], [], [])
                print("socket")

                master, slave = pty.openpty()
                tty.setraw(slave)
                spawn(write_later, master)
                assert wait_readable(slave)
                print("terminal")

                pipes = [os.pipe() for _ in range(200)]
                watched = poll()
                for one, _ in pipes:
                    watched.register(one)
                spawn(write_later, pipes[150][1])
                assert watched.poll(5000) == [(pipes[150][0], 1)]
                assert watched.poll(0) == [(pipes[150][0], 1)]
                print("many")

                spawn(close_later, pipes[100][1])
                assert wait_readable(pipes[100][0])
                assert os.read(pipes[100][0], 1) == b""
                print("end")

                with open(__import__("sys").executable, "rb") as file:
                    assert wait_readable(file)
                    assert select([], [], [file], 0.02) == ([], [], [])
                print("file")

                task = spawn(wait_readable, reading, 0.3)
                sleep(0.02)
                os.close(reading)
                again, again_writing = os.pipe()
                if again != reading:
                    os.dup2(again, reading)
                os.write(again_writing, b"x")
                try:
                    task.wait()
                except ValueError as error:
                    print("closed" in str(error))

            react(main)
            """
        )
        self.assertEqual(
            output.splitlines(),
            ["pipe", "socket", "terminal", "many", "end", "file", "True"],
        )
        self.assertEqual(errors, "")

    def test_busy_tasks(self) -> None:
        """Tasks that always find data let the reactor run other calls."""
        output, errors = self.run_program(
            """
            import os
            from txgreenwsgi import react, sleep, spawn, timeout, TimedOut
            from txgreenwsgi import wait_readable, current_task

            reading, writing = os.pipe()
            os.write(writing, b"x")

            def busy():
                while True:
                    wait_readable(reading)

            def main():
                task = spawn(busy)
                sleep(0.1)
                task.cancel()
                try:
                    task.wait(5)
                except Exception as error:
                    print(type(error).__name__)
                try:
                    with timeout(0.1):
                        busy()
                except TimedOut:
                    print("timed out")

            react(main)
            """
        )
        self.assertEqual(output.splitlines(), ["Cancelled", "timed out"])
        self.assertEqual(errors, "")


class SelectReactorDescriptorsTests(DescriptorsTests):
    """Under the select() reactor."""

    reactor = "selectreactor"


class PollReactorDescriptorsTests(DescriptorsTests):
    """Under the poll() reactor."""

    reactor = "pollreactor"


class AsyncioReactorDescriptorsTests(DescriptorsTests):
    """Under the asyncio reactor."""

    reactor = "asyncioreactor"


class TrialTests(SynchronousTestCase):
    """Tests of other projects, in the ways in which trial runs them."""

    def run_trial(self, *options: str) -> str:
        """Run a module with tests of tasks; return the output of trial."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "test_of_tasks.py").write_text(
            textwrap.dedent(
                """
                from twisted.internet.defer import Deferred
                from twisted.trial.unittest import TestCase

                from txgreenwsgi import in_greenlet, sleep, wait
                from txgreenwsgi.green import socket


                class Tests(TestCase):
                    @in_greenlet
                    def test_sleep(self):
                        sleep(0.01)

                    @in_greenlet
                    def test_sleep_again(self):
                        sleep(0.01)

                    def test_deferred(self):
                        gate = Deferred()
                        result = in_greenlet(lambda: wait(gate) + 1)()
                        gate.callback(1)
                        return result.addCallback(self.assertEqual, 2)

                    @in_greenlet
                    def converse(self):
                        ours, theirs = socket.socketpair()
                        with ours, theirs:
                            ours.settimeout(0.01)
                            self.assertRaises(TimeoutError, ours.recv, 1)

                    test_socket = test_another_socket = converse
                """
            )
        )
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", *options, "test_of_tasks"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=END_SECONDS,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_one_process(self) -> None:
        """One test after the other, under one reactor."""
        self.assertIn("PASSED (successes=5)", self.run_trial())

    def test_workers(self) -> None:
        """In a worker of `trial -j`, whose reactor shuts down after each test."""
        self.assertIn("PASSED (successes=5)", self.run_trial("-j", "1"))
