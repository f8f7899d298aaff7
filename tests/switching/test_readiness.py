"""Waiting for descriptors of each kind, and what can happen to them meanwhile."""

from __future__ import annotations

import errno
import gc
import os
import pty
import select as stdlib_select
import socket
import tempfile
import tty
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    TimedOut,
    current_task,
    poll,
    select,
    sleep,
    timeout,
    wait_readable,
    wait_writable,
)
from txgreenwsgi._switching import readiness
from txgreenwsgi._switching.greenlets import SLICE_SECONDS

from .clocked import ClockTestCase
from .descriptors import (
    DescriptorClock,
    close,
    fill,
    make_pipe,
    make_sockets,
    open_descriptors,
)

POLLIN, POLLOUT, POLLPRI = (
    stdlib_select.POLLIN,
    stdlib_select.POLLOUT,
    stdlib_select.POLLPRI,
)
POLLHUP, POLLERR, POLLNVAL = (
    stdlib_select.POLLHUP,
    stdlib_select.POLLERR,
    stdlib_select.POLLNVAL,
)


def wait_for_the_kernel(readable: list[Any], exceptional: list[Any]) -> None:
    """Terminals and TCP take a moment to hand on what was written."""
    if not any(stdlib_select.select(readable, [], exceptional, 10)):
        raise AssertionError("the kernel does not hand it on")


class DescriptorTestCase(ClockTestCase):
    """A reactor that watches descriptors, and a pipe."""

    clock: DescriptorClock

    def setUp(self) -> None:
        """Make them; after the test nothing may be watched or left open."""
        super().setUp()
        gc.collect()
        self.opened = open_descriptors()
        self.addCleanup(self.assert_nothing_watched)
        self.reading, self.writing = make_pipe(self)

    def make_clock(self) -> DescriptorClock:
        """One that watches descriptors."""
        return DescriptorClock()

    def assert_nothing_watched(self) -> None:
        """No reader, no writer, no descriptor of ours."""
        self.hub.close()
        self.assertEqual((self.clock.readers, self.clock.writers), ([], []))
        self.assertEqual(open_descriptors(), self.opened)
        self.assertEqual(readiness._claims_of(self.hub), {})


class WaitTests(DescriptorTestCase):
    """`wait_readable()` and `wait_writable()`, watched by epoll where there is one."""

    def test_readable(self) -> None:
        """It returns True as soon as something can be read."""
        task = self.start(wait_readable, self.reading)
        self.turn()
        self.assertEqual(task.state, "parked")
        os.write(self.writing, b"x")
        self.turn()
        self.assertIs(self.result_of(task), True)
        self.assert_nothing_left()

    def test_readable_already(self) -> None:
        """If something can be read already, it does not park."""
        os.write(self.writing, b"x")
        self.assertIs(self.result_of(self.start(wait_readable, self.reading)), True)

    def test_writable(self) -> None:
        """Likewise for writing."""
        self.assertIs(self.result_of(self.start(wait_writable, self.writing)), True)
        fill(self.writing)
        task = self.start(wait_writable, self.writing)
        self.turn()
        self.assertEqual(task.state, "parked")
        os.read(self.reading, 1 << 20)
        self.turn()
        self.assertIs(self.result_of(task), True)

    def test_objects(self) -> None:
        """Anything with `fileno()` will do."""
        ours, theirs = make_sockets(self)
        task = self.start(wait_readable, ours)
        theirs.send(b"x")
        self.turn()
        self.assertTrue(self.result_of(task))
        self.assertTrue(self.result_of(self.start(wait_writable, ours)))

    def test_timeout(self) -> None:
        """When the time is over first it returns False, not an error."""
        for function, fd in (
            (wait_readable, self.reading),
            (wait_writable, self.writing),
        ):
            task = self.start(function, fd, 2)
            self.clock.advance(1.5)
            self.assertEqual(task.state, "parked")
            self.clock.advance(0.5)
            self.assertIs(self.result_of(task), False)
            self.assert_nothing_left()
            fill(self.writing)  # for the second round

    def test_timeout_of_nothing(self) -> None:
        """A timeout of 0 asks, and never parks."""
        self.assertIs(self.result_of(self.start(wait_readable, self.reading, 0)), False)
        os.write(self.writing, b"x")
        self.assertIs(self.result_of(self.start(wait_readable, self.reading, 0)), True)

    def test_in_time(self) -> None:
        """What is ready in time leaves nothing of the timeout."""
        task = self.start(wait_readable, self.reading, 2)
        os.write(self.writing, b"x")
        self.clock.advance(1)
        self.assertIs(self.result_of(task), True)
        self.assert_nothing_left()

    def test_ready_at_the_last_moment(self) -> None:
        """What is ready when the time is over counts as ready."""
        task = self.start(wait_readable, self.reading, 2)
        self.clock.callLater(2, os.write, self.writing, b"x")
        calls = self.clock.getDelayedCalls()
        self.assertEqual(len(calls), 2)
        calls[0].delay(0.1)  # the timeout comes behind the write
        self.clock.advance(2.2)
        self.assertIs(self.result_of(task), True)

    def test_another_was_faster(self) -> None:
        """Woken in vain, because the data were read meanwhile, it waits on."""
        task = self.start(wait_readable, self.reading)
        [watched] = self.clock.readers
        watched.doRead()
        self.assertEqual(task.state, "parked")
        os.write(self.writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_woken_in_vain_with_a_timeout(self) -> None:
        """And its time is not longer for it."""
        task = self.start(wait_readable, self.reading, 2)
        self.clock.advance(1)
        self.clock.readers[0].doRead()
        self.clock.advance(1)
        self.assertIs(self.result_of(task), False)
        self.assert_nothing_left()

    def test_interrupted(self) -> None:
        """A cancellation or a timeout around it leaves nothing behind."""

        def with_limit() -> None:
            with timeout(1):
                wait_readable(self.reading)

        cancelled = self.start(wait_readable, self.reading)
        cancelled.cancel()
        self.error_of(cancelled, Cancelled)
        limited = self.start(with_limit)
        self.clock.advance(1)
        self.error_of(limited, TimedOut)
        self.assert_nothing_left()

    def test_reactor_lets_go(self) -> None:
        """A reactor that drops its descriptors, as it does to stop, harms nobody."""
        task = self.start(wait_readable, self.reading)
        for watched in self.clock.removeAll():
            watched.connectionLost(Failure(ValueError()))
        self.assertEqual(task.state, "parked")
        os.write(self.writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_ten_thousand_waits(self) -> None:
        """Many waits leave no watch and no descriptor."""

        def work() -> None:
            for _ in range(1000):
                wait_readable(self.reading, 5)
                os.read(self.reading, 1)

        task = self.start(work)
        for _ in range(1000):
            os.write(self.writing, b"x")
            self.turn()
        self.assertTrue(task.done)
        self.assert_nothing_left()

    def test_bad_descriptors(self) -> None:
        """What is no open descriptor is told clearly."""
        closed = socket.socket()
        closed.close()
        self.error_of(self.start(wait_readable, closed), ValueError)
        self.error_of(self.start(wait_readable, -1), ValueError)
        error = self.error_of(self.start(wait_readable, "socket"), TypeError)
        self.assertIn("'socket'", str(error))

    def test_bad_timeout(self) -> None:
        """A timeout that is no number of seconds is told by name and value."""
        error = self.error_of(self.start(wait_writable, self.writing, -2), ValueError)
        self.assertIn("wait_writable(timeout)", str(error))
        self.assertIn("-2", str(error))

    def test_outside_of_tasks(self) -> None:
        """Outside of a task it is refused, even if there is nothing to wait for."""
        os.write(self.writing, b"x")
        self.assertRaises(NotInGreenlet, wait_readable, self.reading)

    def test_what_a_table_shows(self) -> None:
        """A task that waits tells on which descriptor."""
        task = self.start(wait_readable, self.reading)
        self.assertEqual(task.waiting_on, f"wait_readable({self.reading})")


class KindsTests(DescriptorTestCase):
    """Descriptors of each kind, and their ends."""

    def test_end_of_a_pipe(self) -> None:
        """A pipe whose writer is gone is readable: there is its end."""
        task = self.start(wait_readable, self.reading)
        os.close(self.writing)
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_broken_pipe(self) -> None:
        """One whose reader is gone is writable: there is the error."""
        fill(self.writing)
        task = self.start(wait_writable, self.writing)
        os.close(self.reading)
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_end_of_a_socket(self) -> None:
        """A socket whose peer is gone is readable and writable."""
        ours, theirs = make_sockets(self)
        task = self.start(wait_readable, ours)
        theirs.close()
        self.turn()
        self.assertTrue(self.result_of(task))
        self.assertEqual(ours.recv(1), b"")

    def test_listening_socket(self) -> None:
        """A socket that listens is readable when somebody wants to connect."""
        path = self.mktemp()
        listening, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        self.addCleanup(client.close)
        listening.bind(path)
        listening.listen()
        task = self.start(wait_readable, listening)
        self.turn()
        self.assertEqual(task.state, "parked")
        client.connect(path)
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_fifo(self) -> None:
        """A named pipe."""
        path = self.mktemp()
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(close, reading)
        writing = os.open(path, os.O_WRONLY)
        self.addCleanup(close, writing)
        task = self.start(wait_readable, reading)
        self.turn()
        self.assertEqual(task.state, "parked")
        os.write(writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_terminal(self) -> None:
        """A terminal, and its hang-up."""
        master, slave = pty.openpty()
        self.addCleanup(close, master)
        self.addCleanup(close, slave)
        tty.setraw(slave)
        task = self.start(wait_readable, slave)
        self.turn()
        self.assertEqual(task.state, "parked")
        os.write(master, b"x")
        wait_for_the_kernel([slave], [])
        self.turn()
        self.assertTrue(self.result_of(task))
        os.read(slave, 1)
        hung_up = self.start(wait_readable, slave)
        os.close(master)
        wait_for_the_kernel([slave], [])
        self.turn()
        self.assertTrue(self.result_of(hung_up))

    def test_regular_file(self) -> None:
        """A file is always readable and writable, and never anything else."""
        with tempfile.TemporaryFile() as file:
            self.assertTrue(self.result_of(self.start(wait_readable, file)))
            self.assertTrue(self.result_of(self.start(wait_writable, file)))
            task = self.start(select, [], [], [file], 2)
            self.clock.advance(1)
            self.assertEqual(task.state, "parked")
            self.clock.advance(1)
            self.assertEqual(self.result_of(task), ([], [], []))

    def test_dev_null(self) -> None:
        """So is /dev/null."""
        with open(os.devnull, "r+b", buffering=0) as null:
            self.assertTrue(self.result_of(self.start(wait_readable, null)))
            self.assertTrue(self.result_of(self.start(wait_writable, null)))


class DescriptorsTests(DescriptorTestCase):
    """Several tasks, closed descriptors, numbers that are used again."""

    def test_two_tasks_one_direction(self) -> None:
        """Two that want to read from one descriptor: the second is told so."""
        first = self.start(wait_readable, self.reading)
        second = self.start(wait_readable, self.reading)
        error = str(self.error_of(second, RuntimeError))
        self.assertIn(f"file descriptor {self.reading}", error)
        self.assertIn("for reading", error)
        self.assertIn(repr(first), error)
        os.write(self.writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(first))

    def test_two_that_write(self) -> None:
        """Two that want to write to one: likewise."""
        fill(self.writing)
        self.start(wait_writable, self.writing)
        second = self.start(wait_writable, self.writing)
        self.assertIn("for writing", str(self.error_of(second, RuntimeError)))

    def test_two_directions(self) -> None:
        """One may read what another writes to."""
        ours, theirs = make_sockets(self)
        fill(ours.fileno())
        reader = self.start(wait_readable, ours)
        writer = self.start(wait_writable, ours)
        theirs.send(b"x")
        self.turn()
        self.assertTrue(self.result_of(reader))
        self.assertEqual(writer.state, "parked")
        while not writer.done:
            theirs.recv(1 << 20)
            self.turn()
        self.assertTrue(self.result_of(writer))

    def test_one_after_the_other(self) -> None:
        """Who has stopped waiting, in whatever way, is in nobody's way."""
        self.start(wait_readable, self.reading).cancel()
        self.start(wait_readable, self.reading, 0)
        timed_out = self.start(wait_readable, self.reading, 1)
        self.clock.advance(1)
        self.assertTrue(timed_out.done)
        task = self.start(wait_readable, self.reading)
        os.write(self.writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_duplicates(self) -> None:
        """A duplicate of a descriptor is another descriptor."""
        duplicate = os.dup(self.reading)
        self.addCleanup(close, duplicate)
        tasks = [self.start(wait_readable, fd) for fd in (self.reading, duplicate)]
        os.write(self.writing, b"x")
        self.turn()
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_closed_before(self) -> None:
        """A descriptor that is not open is told at once."""
        os.close(self.reading)
        error = self.error_of(self.start(wait_readable, self.reading), ValueError)
        self.assertIn(f"file descriptor {self.reading} is not open", str(error))

    def test_closed_meanwhile(self) -> None:
        """One that is closed while it is waited on is told when the time is over."""
        task = self.start(wait_readable, self.reading, 2)
        os.close(self.reading)
        self.turn()
        self.clock.advance(2)
        self.error_of(task, ValueError)
        self.assert_nothing_left()

    def reuse(self, number: int) -> tuple[int, int]:
        """Close a descriptor and open a pipe whose reading end has its number."""
        os.close(number)
        reading, writing = os.pipe()
        self.addCleanup(close, writing)
        if reading != number:
            os.dup2(reading, number)
            os.close(reading)
        return number, writing

    def test_number_used_again(self) -> None:
        """What is ready on a new file of the same number wakes nobody."""
        task = self.start(wait_readable, self.reading, 5)
        number, writing = self.reuse(self.reading)
        os.write(writing, b"x")
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(4)
        self.error_of(task, ValueError)
        # And the new file can be waited on meanwhile or later.
        self.assertTrue(self.result_of(self.start(wait_readable, number)))

    def test_both_wait_on_the_number(self) -> None:
        """The task of the old file and that of the new one do not meet."""
        old = self.start(wait_readable, self.reading, 5)
        number, writing = self.reuse(self.reading)
        new = self.start(wait_readable, number)
        self.assertEqual(new.state, "parked")
        os.write(writing, b"x")
        self.turn()
        self.assertTrue(self.result_of(new))
        self.assertEqual(old.state, "parked")
        self.clock.advance(5)
        self.error_of(old, ValueError)

    def test_old_file_lives_on(self) -> None:
        """Nor is the old file's readiness taken for the new one's."""
        elsewhere = os.dup(self.reading)
        self.addCleanup(close, elsewhere)
        task = self.start(wait_readable, self.reading, 5)
        number, _ = self.reuse(self.reading)
        os.write(self.writing, b"x")  # the old file is readable, the new one is not
        self.turn()
        self.error_of(task, ValueError)
        self.assertFalse(self.result_of(self.start(wait_readable, number, 0)))

    def test_one_of_several_used_again(self) -> None:
        """In a wait on several, what is ready on the new file is not reported."""
        other, other_writing = make_pipe(self)

        def work() -> list[tuple[int, int]]:
            watched = poll()
            watched.register(self.reading, POLLIN)
            watched.register(other, POLLIN)
            return watched.poll()

        task = self.start(work)
        _, writing = self.reuse(self.reading)
        os.write(writing, b"x")
        os.write(other_writing, b"x")
        self.turn()
        self.assertEqual(self.result_of(task), [(other, POLLIN)])


class ReactorTests(DescriptorTestCase):
    """What the reactor has to do with it."""

    def test_log_prefix(self) -> None:
        """What the reactor logs about it says whose it is."""
        self.start(wait_readable, self.reading)
        [watched] = self.clock.readers
        self.assertIn("txgreenwsgi", watched.logPrefix())

    def test_reactor_that_refuses(self) -> None:
        """A reactor that cannot watch the descriptor tells why, and nothing is left."""
        with patch.object(self.clock, "addReader", side_effect=OSError(errno.EPERM)):
            self.error_of(self.start(wait_readable, self.reading, 5), OSError)
        self.assert_nothing_left()

    def test_fast_data(self) -> None:
        """A loop over data that are always there leaves the reactor its turns."""
        os.write(self.writing, b"x")
        ticks: list[float] = []

        def work() -> int:
            for rounds in range(1000):
                self.assertTrue(wait_readable(self.reading))
                # Some work on what was read takes its time.
                self.clock.rightNow += SLICE_SECONDS / 4
                if len(ticks) == 3:
                    return rounds
            raise AssertionError("the reactor had no turns")

        def tick() -> None:
            ticks.append(self.clock.seconds())
            if len(ticks) < 3:
                self.clock.callLater(0, tick)

        self.clock.callLater(0, tick)
        task = self.start(work)
        self.turn()
        self.assertGreater(self.result_of(task), 9)

    def test_cancelled_over_fast_data(self) -> None:
        """A task that was cancelled is told at a wait that is over at once, too."""
        os.write(self.writing, b"x")

        def work() -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            wait_readable(self.reading, 0)  # asking is no wait
            wait_readable(self.reading)

        self.error_of(self.start(work), Cancelled)

    def test_fast_data_and_a_timeout(self) -> None:
        """And such a loop is ended by its timeout."""
        os.write(self.writing, b"x")

        def work() -> None:
            with timeout(1):
                for _ in range(1000):
                    wait_readable(self.reading)
                    self.clock.rightNow += SLICE_SECONDS / 4

        task = self.start(work)
        self.turn()
        self.error_of(task, TimedOut)

    def test_asking_does_not_take_a_turn(self) -> None:
        """A timeout of 0 does not park, however long the task has been running."""
        os.write(self.writing, b"x")

        def work() -> bool:
            self.clock.rightNow += 10 * SLICE_SECONDS
            return wait_readable(self.reading, 0)

        self.assertTrue(self.result_of(self.start(work)))

    def test_data_taken_during_the_turn(self) -> None:
        """What another task reads in that turn is not reported as ready."""
        os.write(self.writing, b"x")

        def work() -> bool:
            self.clock.rightNow += 10 * SLICE_SECONDS
            return wait_readable(self.reading, 1)

        task = self.start(work)
        self.assertEqual(task.state, "parked")
        os.read(self.reading, 1)
        self.turn()
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.assertFalse(self.result_of(task))

    def test_dying_task(self) -> None:
        """A task that is ended may still ask, and read what is there."""
        os.write(self.writing, b"x")
        got: list[bool] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                self.clock.rightNow += 10 * SLICE_SECONDS
                got.append(wait_readable(self.reading))

        self.start(work)
        self.hub.close()
        self.assertEqual(got, [True])


class EpollTests(DescriptorTestCase):
    """What only epoll can do."""

    if not hasattr(stdlib_select, "epoll"):
        skip = "this platform has no epoll"

    def test_one_reader_for_many(self) -> None:
        """A wait on many descriptors is one reader to the reactor."""
        watched = poll()
        for _ in range(50):
            watched.register(make_pipe(self)[0], POLLIN)
        task = self.start(watched.poll)
        self.assertEqual((len(self.clock.readers), self.clock.writers), (1, []))
        self.assertEqual(task.waiting_on, "poll of 50 descriptors")

    def test_out_of_band(self) -> None:
        """Out-of-band data of a TCP socket are what is exceptional."""
        listening = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
        for sock in (listening, ours, theirs):
            self.addCleanup(sock.close)
        task = self.start(select, [ours], [], [ours])
        theirs.send(b"!", socket.MSG_OOB)
        wait_for_the_kernel([], [ours])
        self.turn()
        readable, _, exceptional = self.result_of(task)
        self.assertEqual((readable, exceptional), ([], [ours]))


class NoDescriptorsTests(ClockTestCase):
    """A reactor that does not watch descriptors, as a test's clock."""

    def setUp(self) -> None:
        """A pipe."""
        super().setUp()
        self.reading, self.writing = make_pipe(self)

    def make_clock(self) -> Clock:
        """A plain one."""
        return Clock()

    def test_clear_error(self) -> None:
        """Waiting is refused by a clear error, asking is not."""
        error = self.error_of(self.start(wait_readable, self.reading), NotInGreenlet)
        self.assertIn("a reactor that watches file descriptors", str(error))
        self.assertIs(self.result_of(self.start(wait_readable, self.reading, 0)), False)

    def test_no_descriptors(self) -> None:
        """`select` of nothing is a sleep, everywhere."""
        task = self.start(select, [], [], [], 2)
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), ([], [], []))
        self.assert_nothing_left()


class PollTests(DescriptorTestCase):
    """`poll()`, of the shape of `select.poll`."""

    def polling(
        self, *registered: tuple[Any, int], timeout: float | None = None
    ) -> Any:
        """A task that polls."""
        watched = poll()
        for fd, events in registered:
            watched.register(fd, events)
        return self.start(watched.poll, timeout)

    def test_ready(self) -> None:
        """It returns pairs of descriptor and events, in the order of registration."""
        other, other_writing = make_pipe(self)
        task = self.polling((other, POLLIN), (self.reading, POLLIN))
        os.write(self.writing, b"x")
        os.write(other_writing, b"x")
        self.turn()
        self.assertEqual(
            self.result_of(task), [(other, POLLIN), (self.reading, POLLIN)]
        )

    def test_ready_already(self) -> None:
        """What is ready at once is what the kernel's own poll says."""
        task = self.polling((self.reading, POLLIN), (self.writing, POLLOUT))
        self.assertEqual(self.result_of(task), [(self.writing, POLLOUT)])

    def test_default_events(self) -> None:
        """A registration without events is for reading, urgent data and writing."""
        watched = poll()
        watched.register(self.writing)
        task = self.start(watched.poll)
        self.assertEqual(self.result_of(task), [(self.writing, POLLOUT)])

    def test_hang_up(self) -> None:
        """POLLHUP comes unasked."""
        task = self.polling((self.reading, 0))
        os.close(self.writing)
        self.turn()
        self.assertEqual(self.result_of(task), [(self.reading, POLLHUP)])

    def test_error(self) -> None:
        """So does POLLERR."""
        fill(self.writing)
        task = self.polling((self.writing, POLLOUT))
        os.close(self.reading)
        self.turn()
        [(fd, events)] = self.result_of(task)
        self.assertEqual((fd, events & POLLERR), (self.writing, POLLERR))

    def test_closed(self) -> None:
        """And POLLNVAL for one that is not open, beside what is ready."""
        closed, _ = make_pipe(self)
        os.close(closed)
        task = self.polling((closed, POLLIN), (self.writing, POLLOUT))
        self.assertEqual(
            self.result_of(task), [(closed, POLLNVAL), (self.writing, POLLOUT)]
        )

    def test_closed_meanwhile(self) -> None:
        """One that is closed while it is polled is reported so at the end."""
        task = self.polling((self.reading, POLLIN), timeout=2000)
        os.close(self.reading)
        self.clock.advance(2)
        self.assertEqual(self.result_of(task), [(self.reading, POLLNVAL)])

    def test_milliseconds(self) -> None:
        """The timeout is in milliseconds; when it is over the list is empty."""
        task = self.polling((self.reading, POLLIN), timeout=1500)
        self.clock.advance(1.4)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.2)
        self.assertEqual(self.result_of(task), [])
        self.assert_nothing_left()

    def test_negative_is_no_limit(self) -> None:
        """A negative timeout is no limit, as select.poll has it."""
        for no_limit in (-1, -0.5, None):
            task = self.polling((self.reading, POLLIN), timeout=no_limit)
            self.clock.advance(1e6)
            self.assertEqual(task.state, "parked")
            task.cancel()

    def test_zero(self) -> None:
        """0 asks without parking."""
        task = self.polling((self.reading, POLLIN), timeout=0)
        self.assertEqual(self.result_of(task), [])

    def test_modify(self) -> None:
        """What is watched of a descriptor can be changed."""
        ours, _ = make_sockets(self)
        watched = poll()
        watched.register(ours, POLLIN)
        watched.modify(ours, POLLOUT)
        self.assertEqual(
            self.result_of(self.start(watched.poll)), [(ours.fileno(), POLLOUT)]
        )

    def test_unregister(self) -> None:
        """A descriptor that is no longer registered is not watched."""
        watched = poll()
        watched.register(self.writing)
        watched.unregister(self.writing)
        self.assertEqual(self.result_of(self.start(watched.poll, 0)), [])

    def test_not_registered(self) -> None:
        """Changing or removing what was never registered raises as select.poll does."""
        watched, stdlib = poll(), stdlib_select.poll()
        for fd in (self.reading, make_sockets(self)[0]):
            expected = self.assertRaises(OSError, stdlib.modify, fd, POLLIN)
            error = self.assertRaises(FileNotFoundError, watched.modify, fd, POLLIN)
            self.assertEqual(error.errno, expected.errno)
            self.assertRaises(KeyError, stdlib.unregister, fd)
            self.assertRaises(KeyError, watched.unregister, fd)

    def test_changed_while_it_is_polled(self) -> None:
        """What another task registers meanwhile counts from the next poll on."""
        other, other_writing = make_pipe(self)
        watched = poll()
        watched.register(self.reading, POLLIN)
        task = self.start(watched.poll)
        watched.register(other, POLLIN)
        os.write(other_writing, b"x")
        self.turn()
        self.assertEqual(task.state, "parked")
        os.write(self.writing, b"x")
        self.turn()
        self.assertEqual(self.result_of(task), [(self.reading, POLLIN)])

    def test_changed_while_it_is_polled_in_vain(self) -> None:
        """Also when the time is over."""
        watched = poll()
        watched.register(self.reading, POLLIN)
        task = self.start(watched.poll, 2000)
        watched.register(self.writing, POLLOUT)
        self.clock.advance(2)
        self.assertEqual(self.result_of(task), [])

    def test_many(self) -> None:
        """Of many descriptors those are reported that are ready, and only those."""
        pipes = [make_pipe(self) for _ in range(100)]
        task = self.polling(*((reading, POLLIN) for reading, _ in pipes))
        for _, writing in pipes[::3]:
            os.write(writing, b"x")
        self.turn()
        self.assertEqual(
            self.result_of(task), [(reading, POLLIN) for reading, _ in pipes[::3]]
        )

    def test_read_and_write_at_once(self) -> None:
        """One descriptor may be watched for both."""
        ours, theirs = make_sockets(self)
        fill(ours.fileno())
        task = self.polling((ours, POLLIN | POLLOUT))
        self.turn()
        self.assertEqual(task.state, "parked")
        theirs.send(b"x")
        self.turn()
        self.assertEqual(self.result_of(task), [(ours.fileno(), POLLIN)])


class SelectTests(DescriptorTestCase):
    """`select()`, of the shape of `select.select`."""

    def test_the_three_lists(self) -> None:
        """It returns the objects that were given, by what they are ready for."""
        ours, theirs = make_sockets(self)
        theirs.send(b"x")
        task = self.start(select, [ours, self.reading], [ours, self.writing], [ours])
        self.assertEqual(self.result_of(task), ([ours], [ours, self.writing], []))

    def test_parks(self) -> None:
        """It parks until one of them is ready."""
        task = self.start(select, iter([self.reading]), (), [])
        self.turn()
        self.assertEqual(task.state, "parked")
        self.assertEqual(task.waiting_on, "select of 1 descriptors")
        os.write(self.writing, b"x")
        self.turn()
        self.assertEqual(self.result_of(task), ([self.reading], [], []))

    def test_timeout(self) -> None:
        """When the time is over all three are empty."""
        task = self.start(select, [self.reading], [], [], 1.5)
        self.clock.advance(1.5)
        self.assertEqual(self.result_of(task), ([], [], []))
        asked = self.start(select, [self.reading], [], [], 0)
        self.assertEqual(self.result_of(asked), ([], [], []))
        self.assert_nothing_left()

    def test_ends(self) -> None:
        """Ends and errors make readable and writable, as with the kernel's select."""
        ours, theirs = make_sockets(self)
        theirs.close()
        os.close(self.reading)
        writing: list[Any] = [ours, self.writing]
        expected = stdlib_select.select([ours], writing, [ours], 0)
        found = self.start(select, [ours], [ours, self.writing], [ours])
        self.assertEqual(self.result_of(found), expected)
        self.assertEqual(expected, ([ours], [ours, self.writing], []))

    def test_end_of_what_is_watched_for_nothing_else(self) -> None:
        """One that is watched for what is exceptional only, and ends, is reported."""
        ours, theirs = make_sockets(self)
        task = self.start(select, [], [], [ours], 60)
        theirs.close()
        self.turn()
        self.assertEqual(self.result_of(task), ([], [], [ours]))

    def test_closed(self) -> None:
        """A descriptor that is not open raises what the kernel's select raises."""
        os.close(self.reading)
        expected = self.assertRaises(
            OSError, stdlib_select.select, [self.reading], [], [], 0
        )
        error = self.error_of(self.start(select, [self.reading], [], []), OSError)
        assert isinstance(error, OSError)
        self.assertEqual(error.errno, expected.errno)
        self.error_of(self.start(select, [-1], [], []), ValueError)

    def test_bad_timeout(self) -> None:
        """A negative timeout is refused, as the kernel's select refuses it."""
        self.assertRaises(ValueError, stdlib_select.select, [], [], [], -1)
        self.error_of(self.start(select, [], [], [], -1), ValueError)

    def test_the_same_twice(self) -> None:
        """A descriptor given twice is returned twice."""
        os.write(self.writing, b"x")
        task = self.start(select, [self.reading, self.reading], [], [])
        self.assertEqual(self.result_of(task)[0], [self.reading, self.reading])


class WithoutEpollMixin:
    """The same tests where there is no epoll: the reactor watches duplicates."""

    def setUp(self) -> None:
        """Do without epoll."""
        patched = patch.object(readiness, "_watch", readiness._DuplicateWatch)
        patched.start()
        super().setUp()  # type: ignore[misc]
        self.addCleanup(patched.stop)  # type: ignore[attr-defined]


class WaitWithoutEpollTests(WithoutEpollMixin, WaitTests):
    """`wait_readable()` and `wait_writable()`."""


class KindsWithoutEpollTests(WithoutEpollMixin, KindsTests):
    """Descriptors of each kind."""


class DescriptorsWithoutEpollTests(WithoutEpollMixin, DescriptorsTests):
    """Several tasks, closed descriptors, numbers that are used again."""


class ReactorWithoutEpollTests(WithoutEpollMixin, ReactorTests):
    """What the reactor has to do with it."""


class PollWithoutEpollTests(WithoutEpollMixin, PollTests):
    """`poll()`."""


class SelectWithoutEpollTests(WithoutEpollMixin, SelectTests):
    """`select()`."""
