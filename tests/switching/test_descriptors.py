"""Tests of descriptors that are shared, closed or reused while tasks wait."""

from __future__ import annotations

import os
import select as stdlib_select

from txgreenwsgi import (
    poll,
    wait_readable,
    wait_writable,
)
from txgreenwsgi._switching.readiness import notify_closed

from .descriptors import (
    DescriptorTestCase,
    WithoutEpollMixin,
    close,
    fill,
    make_pipe,
    make_sockets,
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


class DescriptorsTests(DescriptorTestCase):
    """Several tasks, closed descriptors, reused descriptor numbers."""

    def test_two_tasks_one_direction(self) -> None:
        """The second task that waits to read from a descriptor gets an error."""
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
        """The second task that waits to write to a descriptor gets an error."""
        fill(self.writing)
        self.start(wait_writable, self.writing)
        second = self.start(wait_writable, self.writing)
        self.assertIn("for writing", str(self.error_of(second, RuntimeError)))

    def test_two_directions(self) -> None:
        """One task may read while another writes."""
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
        """A wait that has ended in any way does not block the next waiter."""
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
        """A duplicate counts as another descriptor."""
        duplicate = os.dup(self.reading)
        self.addCleanup(close, duplicate)
        tasks = [self.start(wait_readable, fd) for fd in (self.reading, duplicate)]
        os.write(self.writing, b"x")
        self.turn()
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_closed_before(self) -> None:
        """A descriptor that is not open is reported at once."""
        os.close(self.reading)
        error = self.error_of(self.start(wait_readable, self.reading), ValueError)
        self.assertIn(f"file descriptor {self.reading} is not open", str(error))

    def test_closed_meanwhile(self) -> None:
        """A descriptor closed during the wait is reported after the timeout."""
        task = self.start(wait_readable, self.reading, 2)
        os.close(self.reading)
        self.turn()
        self.clock.advance(2)
        self.error_of(task, ValueError)
        self.assert_nothing_left()

    def test_notify_closed(self) -> None:
        """`notify_closed` ends the waits on a descriptor that has been closed."""
        task = self.start(wait_readable, self.reading)
        os.close(self.reading)
        self.turn()
        self.assertFalse(task.done)
        notify_closed(self.hub, self.reading)
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
        """Data on a new file with the same number wakes no earlier waiter."""
        task = self.start(wait_readable, self.reading, 5)
        number, writing = self.reuse(self.reading)
        os.write(writing, b"x")
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(4)
        self.error_of(task, ValueError)
        # The new file can be waited on meanwhile or later.
        self.assertTrue(self.result_of(self.start(wait_readable, number)))

    def test_both_wait_on_the_number(self) -> None:
        """The waiters of the old and the new file do not conflict."""
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
        """Readiness of the old file is not reported for the new one."""
        elsewhere = os.dup(self.reading)
        self.addCleanup(close, elsewhere)
        task = self.start(wait_readable, self.reading, 5)
        number, _ = self.reuse(self.reading)
        os.write(self.writing, b"x")  # the old file is readable, the new one is not
        self.turn()
        self.error_of(task, ValueError)
        self.assertFalse(self.result_of(self.start(wait_readable, number, 0)))

    def test_one_of_several_used_again(self) -> None:
        """In a wait on several, readiness of the new file is not reported."""
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


class DescriptorsWithoutEpollTests(WithoutEpollMixin, DescriptorsTests):
    """Several tasks, closed descriptors, reused numbers, without epoll."""
