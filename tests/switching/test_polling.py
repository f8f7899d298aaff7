"""Tests of waits for several descriptors: `poll()` and `select()`."""

from __future__ import annotations

import os
import select as stdlib_select
from typing import Any

from txgreenwsgi import (
    poll,
    select,
)

from .descriptors import (
    DescriptorTestCase,
    WithoutEpollMixin,
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


class PollTests(DescriptorTestCase):
    """`poll()`, the counterpart of `select.poll`."""

    def polling(
        self, *registered: tuple[Any, int], timeout: float | None = None
    ) -> Any:
        """Start a task that polls."""
        watched = poll()
        for fd, events in registered:
            watched.register(fd, events)
        return self.start(watched.poll, timeout)

    def test_ready(self) -> None:
        """It returns (fd, events) pairs in the order of registration."""
        other, other_writing = make_pipe(self)
        task = self.polling((other, POLLIN), (self.reading, POLLIN))
        os.write(self.writing, b"x")
        os.write(other_writing, b"x")
        self.turn()
        self.assertEqual(
            self.result_of(task), [(other, POLLIN), (self.reading, POLLIN)]
        )

    def test_ready_already(self) -> None:
        """Descriptors that are ready at once are reported as by the kernel."""
        task = self.polling((self.reading, POLLIN), (self.writing, POLLOUT))
        self.assertEqual(self.result_of(task), [(self.writing, POLLOUT)])

    def test_default_events(self) -> None:
        """The default events are input, urgent data and output."""
        watched = poll()
        watched.register(self.writing)
        task = self.start(watched.poll)
        self.assertEqual(self.result_of(task), [(self.writing, POLLOUT)])

    def test_hang_up(self) -> None:
        """POLLHUP is reported without being requested."""
        task = self.polling((self.reading, 0))
        os.close(self.writing)
        self.turn()
        self.assertEqual(self.result_of(task), [(self.reading, POLLHUP)])

    def test_error(self) -> None:
        """POLLERR is reported without being requested."""
        fill(self.writing)
        task = self.polling((self.writing, POLLOUT))
        os.close(self.reading)
        self.turn()
        [(fd, events)] = self.result_of(task)
        self.assertEqual((fd, events & POLLERR), (self.writing, POLLERR))

    def test_closed(self) -> None:
        """POLLNVAL is reported for a closed descriptor, beside ready ones."""
        closed, _ = make_pipe(self)
        os.close(closed)
        task = self.polling((closed, POLLIN), (self.writing, POLLOUT))
        self.assertEqual(
            self.result_of(task), [(closed, POLLNVAL), (self.writing, POLLOUT)]
        )

    def test_closed_meanwhile(self) -> None:
        """A descriptor closed during the wait is reported after the timeout."""
        task = self.polling((self.reading, POLLIN), timeout=2000)
        os.close(self.reading)
        self.clock.advance(2)
        self.assertEqual(self.result_of(task), [(self.reading, POLLNVAL)])

    def test_milliseconds(self) -> None:
        """The timeout is in milliseconds; after it the list is empty."""
        task = self.polling((self.reading, POLLIN), timeout=1500)
        self.clock.advance(1.4)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.2)
        self.assertEqual(self.result_of(task), [])
        self.assert_nothing_left()

    def test_negative_is_no_limit(self) -> None:
        """A negative timeout is no limit, as in select.poll."""
        for no_limit in (-1, -0.5, None):
            task = self.polling((self.reading, POLLIN), timeout=no_limit)
            self.clock.advance(1e6)
            self.assertEqual(task.state, "parked")
            task.cancel()

    def test_zero(self) -> None:
        """A timeout of 0 polls without parking."""
        task = self.polling((self.reading, POLLIN), timeout=0)
        self.assertEqual(self.result_of(task), [])

    def test_modify(self) -> None:
        """The events of a descriptor can be changed."""
        ours, _ = make_sockets(self)
        watched = poll()
        watched.register(ours, POLLIN)
        watched.modify(ours, POLLOUT)
        self.assertEqual(
            self.result_of(self.start(watched.poll)), [(ours.fileno(), POLLOUT)]
        )

    def test_unregister(self) -> None:
        """An unregistered descriptor is not watched."""
        watched = poll()
        watched.register(self.writing)
        watched.unregister(self.writing)
        self.assertEqual(self.result_of(self.start(watched.poll, 0)), [])

    def test_not_registered(self) -> None:
        """Changing or removing an unknown descriptor raises as in select.poll."""
        watched, stdlib = poll(), stdlib_select.poll()
        for fd in (self.reading, make_sockets(self)[0]):
            expected = self.assertRaises(OSError, stdlib.modify, fd, POLLIN)
            error = self.assertRaises(FileNotFoundError, watched.modify, fd, POLLIN)
            self.assertEqual(error.errno, expected.errno)
            self.assertRaises(KeyError, stdlib.unregister, fd)
            self.assertRaises(KeyError, watched.unregister, fd)

    def test_changed_while_it_is_polled(self) -> None:
        """A registration by another task applies from the next poll on."""
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
        """The same when the wait times out."""
        watched = poll()
        watched.register(self.reading, POLLIN)
        task = self.start(watched.poll, 2000)
        watched.register(self.writing, POLLOUT)
        self.clock.advance(2)
        self.assertEqual(self.result_of(task), [])

    def test_many(self) -> None:
        """Of many descriptors only the ready ones are reported."""
        pipes = [make_pipe(self) for _ in range(100)]
        task = self.polling(*((reading, POLLIN) for reading, _ in pipes))
        for _, writing in pipes[::3]:
            os.write(writing, b"x")
        self.turn()
        self.assertEqual(
            self.result_of(task), [(reading, POLLIN) for reading, _ in pipes[::3]]
        )

    def test_read_and_write_at_once(self) -> None:
        """A descriptor may be watched for reading and writing."""
        ours, theirs = make_sockets(self)
        fill(ours.fileno())
        task = self.polling((ours, POLLIN | POLLOUT))
        self.turn()
        self.assertEqual(task.state, "parked")
        theirs.send(b"x")
        self.turn()
        self.assertEqual(self.result_of(task), [(ours.fileno(), POLLIN)])


class SelectTests(DescriptorTestCase):
    """`select()`, the counterpart of `select.select`."""

    def test_the_three_lists(self) -> None:
        """It returns the given objects by kind of readiness."""
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
        """On timeout all three lists are empty."""
        task = self.start(select, [self.reading], [], [], 1.5)
        self.clock.advance(1.5)
        self.assertEqual(self.result_of(task), ([], [], []))
        asked = self.start(select, [self.reading], [], [], 0)
        self.assertEqual(self.result_of(asked), ([], [], []))
        self.assert_nothing_left()

    def test_ends(self) -> None:
        """Hang-ups and errors count as readable and writable, as in the kernel."""
        ours, theirs = make_sockets(self)
        theirs.close()
        os.close(self.reading)
        writing: list[Any] = [ours, self.writing]
        expected = stdlib_select.select([ours], writing, [ours], 0)
        found = self.start(select, [ours], [ours, self.writing], [ours])
        self.assertEqual(self.result_of(found), expected)
        self.assertEqual(expected, ([ours], [ours, self.writing], []))

    def test_end_of_what_is_watched_for_nothing_else(self) -> None:
        """The end of a file that is watched for exceptions only is reported."""
        ours, theirs = make_sockets(self)
        task = self.start(select, [], [], [ours], 60)
        theirs.close()
        self.turn()
        self.assertEqual(self.result_of(task), ([], [], [ours]))

    def test_closed(self) -> None:
        """A closed descriptor raises the same error as the kernel's select."""
        os.close(self.reading)
        expected = self.assertRaises(
            OSError, stdlib_select.select, [self.reading], [], [], 0
        )
        error = self.error_of(self.start(select, [self.reading], [], []), OSError)
        assert isinstance(error, OSError)
        self.assertEqual(error.errno, expected.errno)
        self.error_of(self.start(select, [-1], [], []), ValueError)

    def test_bad_timeout(self) -> None:
        """A negative timeout raises the same error as the kernel's select."""
        self.assertRaises(ValueError, stdlib_select.select, [], [], [], -1)
        self.error_of(self.start(select, [], [], [], -1), ValueError)

    def test_the_same_twice(self) -> None:
        """A descriptor given twice is returned twice."""
        os.write(self.writing, b"x")
        task = self.start(select, [self.reading, self.reading], [], [])
        self.assertEqual(self.result_of(task)[0], [self.reading, self.reading])


class PollWithoutEpollTests(WithoutEpollMixin, PollTests):
    """`poll()` without epoll."""


class SelectWithoutEpollTests(WithoutEpollMixin, SelectTests):
    """`select()` without epoll."""
