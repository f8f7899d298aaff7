"""Patched programs that fork and handle signals."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from twisted.trial.unittest import TestCase

#: Prints a line at once, in one write.
_SAY = """
import os, sys, threading, time

parent = os.getpid()

def say(what):
    name = "parent" if os.getpid() == parent else "child"
    os.write(1, f"{name}: {what}\\n".encode())
"""


class ProgramTestCase(TestCase):
    """A program run by `python -m txgreenwsgi.monkey`."""

    timeout = 60

    def output_of(self, code: str) -> list[str]:
        """Run it, which must end soon with status 0; return the lines of its output."""
        script = Path(self.mktemp()).with_suffix(".py").resolve()
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(_SAY + textwrap.dedent(code))
        # Newer versions of Python warn about any fork of a process with threads.
        quiet = ["-W", "ignore::DeprecationWarning"]
        done = subprocess.run(
            [sys.executable, *quiet, "-m", "txgreenwsgi.monkey", str(script)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()


class ForkTests(ProgramTestCase):
    """`os.fork` in a task."""

    def test_lock_waiters_stay_in_the_parent(self) -> None:
        """A lock that the child releases wakes no copy of the parent's tasks."""
        said = self.output_of(
            """
            lock = threading.Lock()

            def wait():
                with lock:
                    say("has the lock")

            lock.acquire()
            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                lock.release()
                say("has released it")
                os._exit(0)
            os.waitpid(pid, 0)
            lock.release()
            waiting.join()
            """
        )
        self.assertEqual(said, ["child: has released it", "parent: has the lock"])

    def test_socket_readers_stay_in_the_parent(self) -> None:
        """A socket that the child closes ends no wait of the parent."""
        said = self.output_of(
            """
            import socket

            ours, theirs = socket.socketpair()

            def read():
                try:
                    say(ours.recv(1))
                except OSError as error:
                    say(error)

            reading = threading.Thread(target=read)
            reading.start()
            time.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                ours.close()
                say("has closed it")
                os._exit(0)
            os.waitpid(pid, 0)
            theirs.send(b"x")
            reading.join()
            """
        )
        self.assertEqual(said, ["child: has closed it", "parent: b'x'"])

    def test_a_thread_that_returns_ends_the_child(self) -> None:
        """The child of a fork in a thread ends with it, and runs no other task."""
        said = self.output_of(
            """
            def run():
                pid = os.fork()
                if pid:
                    say(os.waitpid(pid, 0)[1])
                else:
                    say("returns")

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            say("goes on")
            """
        )
        self.assertEqual(said, ["child: returns", "parent: 0", "parent: goes on"])

    def test_main_thread(self) -> None:
        """The thread that forks is the main thread of the child, whatever began it."""
        said = self.output_of(
            """
            import _thread

            def fork():
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                    return
                main = threading.main_thread()
                say(main is threading.current_thread())
                say(main.ident == threading.get_ident())
                say(threading.active_count())
                os._exit(0)

            def run(done):
                try:
                    fork()
                finally:
                    done.release()

            fork()
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            done = threading.Lock()
            done.acquire()
            _thread.start_new_thread(run, (done,))
            done.acquire()
            """
        )
        self.assertEqual(said, ["child: True", "child: True", "child: 1"] * 3)

    def test_threads_of_the_parent(self) -> None:
        """In the child, the other threads have ended, and its end waits for none."""
        said = self.output_of(
            """
            import multiprocessing

            context = multiprocessing.get_context("fork")
            waiting = threading.Event()
            others = [
                threading.Thread(target=waiting.wait, daemon=daemon)
                for daemon in (True, False)
            ]
            for other in others:
                other.start()

            def run():
                for other in others:
                    other.join()
                    say(other.is_alive())
                raise SystemExit(3)

            def fork():
                process = context.Process(target=run)
                process.start()
                process.join(10)
                say(process.exitcode)

            fork()
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            say([other.is_alive() for other in others])
            waiting.set()
            """
        )
        child = ["child: False", "child: False", "parent: 3"]
        self.assertEqual(said, [*child, *child, "parent: [True, True]"])

    def test_a_program_that_ends_in_the_child(self) -> None:
        """A child that exits has its own status, and the parent keeps its sockets."""
        said = self.output_of(
            """
            import atexit, socket

            ours, theirs = socket.socketpair()

            def read():
                try:
                    say(ours.recv(1))
                finally:
                    say("has read")

            reading = threading.Thread(target=read)
            reading.start()
            time.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                atexit.register(say, "at exit")
                thread = threading.Thread(target=say, args=("in a thread",))
                thread.start()
                time.sleep(0.01)
                sys.exit(3)
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            theirs.send(b"x")
            reading.join()
            ours.settimeout(5)
            threading.Timer(0.1, theirs.send, (b"y",)).start()
            say(ours.recv(1))
            """
        )
        self.assertEqual(
            said,
            [
                "child: in a thread",
                "child: at exit",
                "parent: 3",
                "parent: b'x'",
                "parent: has read",
                "parent: b'y'",
            ],
        )


class SignalTests(ProgramTestCase):
    """A signal handler that wakes a task: `stop.set()` on SIGTERM."""

    def test_it_wakes_the_main_task(self) -> None:
        """The main task resumes at once, and its next wait has its full length."""
        said = self.output_of(
            """
            import signal

            stop = threading.Event()
            signal.signal(signal.SIGALRM, lambda *_: stop.set())
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            start = time.monotonic()
            # No time limit here: there is nothing else to wake the reactor.
            stop.wait()
            time.sleep(0.1)
            took = time.monotonic() - start
            say("in time" if took < 5 else took)
            """
        )
        self.assertEqual(said, ["parent: in time"])

    def test_it_wakes_another_task(self) -> None:
        """A handler that interrupts a task resumes it at the same point."""
        said = self.output_of(
            """
            import signal

            stop = threading.Event()

            def wait():
                stop.wait()
                say("woken")
                time.sleep(0.1)
                say("slept")

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.1)
            signal.signal(signal.SIGALRM, lambda *_: stop.set())
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            while not stop.is_set():
                pass
            say("was busy")
            time.sleep(0.01)
            waiting.join()
            say("joined")
            """
        )
        self.assertEqual(
            said,
            ["parent: was busy", "parent: woken", "parent: slept", "parent: joined"],
        )

    def test_pause(self) -> None:
        """`signal.pause` waits for a handler while other tasks run."""
        said = self.output_of(
            """
            import signal

            def run():
                say("others run")
                signal.setitimer(signal.ITIMER_REAL, 0.1)

            signal.signal(signal.SIGALRM, lambda *_: say("is called"))
            threading.Timer(0.05, run).start()
            signal.pause()
            say("goes on")

            def interrupt(*_):
                raise OSError("on purpose")

            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            try:
                signal.pause()
            except OSError as error:
                say(error)
            """
        )
        self.assertEqual(
            said,
            [
                "parent: others run",
                "parent: is called",
                "parent: goes on",
                "parent: on purpose",
            ],
        )


class MultiprocessingTests(ProgramTestCase):
    """`multiprocessing` in a task."""

    def test_a_pool(self) -> None:
        """A pool in a `with` block works while other tasks run, and is closed."""
        said = self.output_of(
            """
            import multiprocessing

            reader, writer = os.pipe()

            def double(number):
                os.read(reader, 1)
                return number * 2

            def run():
                say("others run")
                os.write(writer, b"1234")

            if __name__ == "__main__":
                threading.Timer(0.01, run).start()
                context = multiprocessing.get_context("fork")
                with context.Pool(2) as pool:
                    say(pool.map(double, range(4)))
                say("goes on")
            """
        )
        self.assertEqual(
            said, ["parent: others run", "parent: [0, 2, 4, 6]", "parent: goes on"]
        )

    def test_a_queue(self) -> None:
        """Two tasks get from one queue, into which another process puts."""
        said = self.output_of(
            """
            import multiprocessing, queue

            def put(items):
                for item in "ab":
                    time.sleep(0.1)
                    items.put(item)

            if __name__ == "__main__":
                context = multiprocessing.get_context("fork")
                items, got = context.Queue(), []
                threads = [
                    threading.Thread(target=lambda: got.append(items.get()))
                    for _ in range(2)
                ]
                process = context.Process(target=put, args=(items,))
                process.start()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                process.join()
                say(sorted(got))
                try:
                    items.get(timeout=0.1)
                except queue.Empty:
                    say("empty")
            """
        )
        self.assertEqual(said, ["parent: ['a', 'b']", "parent: empty"])

    def test_locks(self) -> None:
        """A task waits for a lock of another task, with and without a timeout."""
        said = self.output_of(
            """
            import multiprocessing

            lock = multiprocessing.get_context("fork").Lock()
            going = threading.Event()

            def hold():
                with lock:
                    going.wait()
                    time.sleep(0.05)
                    say("lets go")

            holding = threading.Thread(target=hold)
            holding.start()
            time.sleep(0.01)
            say(lock.acquire(timeout=0.05))
            say(lock.acquire(False))
            going.set()
            with lock:
                say("has it")
            """
        )
        self.assertEqual(
            said,
            ["parent: False", "parent: False", "parent: lets go", "parent: has it"],
        )
