"""Waiting for one descriptor of any kind, and the reactor's part in it."""

from __future__ import annotations

import errno
import os
import pty
import select as stdlib_select
import socket
import tempfile
import tty
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.folders import short_folder
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
from txgreenwsgi._switching.greenlets import SLICE_SECONDS

from .clocked import ClockTestCase
from .descriptors import (
    DescriptorTestCase,
    WithoutEpollMixin,
    close,
    fill,
    make_pipe,
    make_sockets,
    wait_for_the_kernel,
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
        path = str(short_folder(self) / "socket")
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


class WaitWithoutEpollTests(WithoutEpollMixin, WaitTests):
    """`wait_readable()` and `wait_writable()`."""


class KindsWithoutEpollTests(WithoutEpollMixin, KindsTests):
    """Descriptors of each kind."""


class ReactorWithoutEpollTests(WithoutEpollMixin, ReactorTests):
    """What the reactor has to do with it."""
