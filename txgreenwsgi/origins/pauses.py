"""Pauses: the events that an application waits for at its next empty block.

An application for an asynchronous server registers the events that it waits for,
then yields `b""`, and expects the server to request its next block when one of them
has occurred. The events are stored here per task. So requests that register no event
have no cost, and middleware may copy environ.

This module knows tasks and descriptors. It must never know the interfaces, which are in
the other modules.
"""

from __future__ import annotations

import select
from threading import get_ident
from typing import TYPE_CHECKING, Protocol

from txgreenwsgi._switching.greenlets import Suspension, current_task, require_task
from txgreenwsgi._switching.readiness import Poll
from txgreenwsgi._switching.thread_calls import crossing
from txgreenwsgi._switching.waiting import sleep, spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._switching.greenlets import Hub, Task

    class HasFileno(Protocol):
        """An object with a file descriptor: a socket, a file."""

        def fileno(self) -> int:
            """Return the descriptor."""

    Descriptor = int | HasFileno

__all__ = ["READ", "WRITE", "Pause", "Resume", "find_pause", "pause_of", "take_turn"]

#: The events that `select` reports as readable or exceptional. Hang-ups and errors
#: are always reported.
READ = select.POLLIN | select.POLLPRI
WRITE = select.POLLOUT
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL

_LATE = object()

#: The pauses of all tasks that have registered an event; removed when the task ends.
pauses_by_task: dict[Task[object], Pause] = {}


class Resume:
    """A callable that ends one suspension, from any thread; see `x-wsgiorg.suspend`.

    Attributes:
        called: True if this call ended the suspension, or will end it.
    """

    __slots__ = ("_hub", "_suspension", "_token", "called")

    def __init__(self, hub: Hub, token: list[None]) -> None:
        self.called = False
        self._hub = hub
        self._suspension: Suspension | None = None
        # One item, shared by all callables that may end one wait. The first call in
        # any thread removes it: pop() is atomic.
        self._token = token

    def __call__(self) -> bool:
        """Resume the application. Never parks.

        The application continues at the reactor's next turn, not inside this call.

        Returns:
            True if this call resumes the application; False if it was not yet
            suspended (then its next empty block takes one reactor turn) or was already
            resumed.
        """
        try:
            self._token.pop()
        except IndexError:
            return False
        # Set `called`, then read `_suspension`; the task writes `_suspension`, then
        # reads `called`. So at least one of the two threads sees the other's write.
        self.called = True
        suspension = self._suspension
        if suspension is None:
            return False
        if get_ident() == self._hub.thread:
            self._hub.at_next_turn(suspension.resume)
        else:
            self._hub.call_from_thread(suspension.resume)
        return True

    def attach(self, suspension: Suspension) -> None:
        """Attach the suspension that the application is about to wait on."""
        self._suspension = suspension

    def expire(self) -> None:
        """Make later calls no-ops, after the application was resumed."""
        self._token.clear()
        self._suspension = None


class Pause:
    """The events that one task waits for at its next empty block.

    The first event ends the wait. Made by `pause_of`. Call all methods in the task, or
    in the thread that runs its request.

    Attributes:
        ready: the descriptors that ended the last wait, as they were given, each
            with its events (a sum of `select.POLL*`).
        timed_out: True if the timeout of a descriptor, or a limit, ended it.
        suspension_timed_out: True if the timeout of a suspension ended it.
    """

    __slots__ = (
        "_resumes",
        "_suspend_seconds",
        "_task",
        "_token",
        "_watch_seconds",
        "_watched",
        "ready",
        "suspension_timed_out",
        "timed_out",
    )

    def __init__(self, task: Task[object]) -> None:
        self._task = task
        self._watched: list[tuple[Descriptor, int, int]] = []
        self._watch_seconds: float | None = None
        self._resumes: list[Resume] = []
        self._token: list[None] = [None]
        self._suspend_seconds: float | None = None
        self.ready: list[tuple[Descriptor, int]] = []
        self.timed_out = False
        self.suspension_timed_out = False

    def watch(self, fd: Descriptor, events: int, seconds: float | None) -> None:
        """Register `events` of a descriptor, with a timeout in seconds.

        Raises:
            TypeError: `fd` is not a descriptor.
            ValueError: the descriptor is closed, or the timeout is negative.
        """
        if not isinstance(fd, int) and not hasattr(fd, "fileno"):
            raise TypeError(
                f"{fd!r} is not a file descriptor: give an int or an object with "
                "fileno()"
            )
        number = fd if isinstance(fd, int) else fd.fileno()
        if number < 0:
            raise ValueError(
                f"{fd!r} has no open file descriptor (fileno() is {number})"
            )
        self.limit(seconds)
        self._watched.append((fd, number, events))

    def limit(self, seconds: float | None) -> None:
        """Limit the wait to `seconds`; the lowest limit applies."""
        self._watch_seconds = _min_timeout(self._watch_seconds, seconds)

    def suspend(self, seconds: float | None) -> Resume:
        """Register a suspension with a timeout in seconds; return its `Resume`."""
        self._suspend_seconds = _min_timeout(self._suspend_seconds, seconds)
        resume = Resume(self._task.hub, self._token)
        self._resumes.append(resume)
        return resume

    @crossing
    def wait(self) -> None:
        """Wait for the registered events, for at least one reactor turn. May park.

        Without registered events it takes exactly one turn.
        """
        watched, self._watched = self._watched, []
        resumes, self._resumes = self._resumes, []
        self._token = [None]
        watch_seconds, self._watch_seconds = self._watch_seconds, None
        if not watched and not resumes and watch_seconds is None:
            sleep(0)
            return
        suspend_seconds, self._suspend_seconds = self._suspend_seconds, None
        self.ready = []
        self.timed_out = self.suspension_timed_out = False
        seconds = _min_timeout(watch_seconds, suspend_seconds)
        try:
            events, late = self._wait(watched, resumes, seconds)
        finally:
            for resume in resumes:
                resume.expire()
        if late:
            self.timed_out = watch_seconds == seconds
            self.suspension_timed_out = suspend_seconds == seconds
        self.ready = [
            (fd, happened)
            for fd, number, asked in watched
            if (happened := events.get(number, 0) & (asked | _ENDED))
        ]

    def _wait(
        self,
        watched: Sequence[tuple[Descriptor, int, int]],
        resumes: Sequence[Resume],
        seconds: float | None,
    ) -> tuple[dict[int, int], bool]:
        """Return the events of each descriptor, and True after the timeout."""
        interest: dict[int, int] = {}
        for _, number, asked in watched:
            interest[number] = interest.get(number, 0) | asked
        poll = Poll()
        for number, asked in interest.items():
            poll.register(number, asked)
        suspension = Suspension(self._task, "x-wsgiorg.suspend")
        for resume in resumes:
            resume.attach(suspension)
        ready = poll.poll(0) if interest else []
        if ready or any(resume.called for resume in resumes):
            # An application whose events are always ready must not block the reactor.
            sleep(0)
            return dict(ready), False
        if resumes:
            ready, late = self._wait_for_either(
                suspension, poll, bool(interest), seconds
            )
            # A `resume` that has returned True takes precedence over the timeout.
            return dict(ready), late and not any(resume.called for resume in resumes)
        if not interest:
            sleep(seconds or 0)
            return {}, True
        if seconds == 0:
            sleep(0)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        return dict(ready), not ready

    def _wait_for_either(
        self, suspension: Suspension, poll: Poll, polls: bool, seconds: float | None
    ) -> tuple[list[tuple[int, int]], bool]:
        """Wait for `resume`, the timeout, and, if `polls`, for descriptors."""
        call = None
        if seconds is not None:
            call = self._task.hub.call_at_timeout(seconds, suspension.resume, _LATE)
        watcher = None
        if polls:
            watcher = spawn(poll.poll)
            watcher.call_at_end(suspension.resume)
        try:
            late = suspension.wait() is _LATE
        finally:
            if call is not None and call.active():
                call.cancel()
            if watcher is not None and not watcher.done:
                watcher.cancel()
                watcher = None
        return watcher.wait() if watcher is not None else [], late


def _min_timeout(one: float | None, other: float | None) -> float | None:
    """Return the lower of two timeouts in seconds; None is no limit.

    Raises:
        ValueError: a timeout is negative or NaN.
    """
    for seconds in (one, other):
        if seconds is not None and not seconds >= 0:
            raise ValueError(
                f"a timeout is a number >= 0, or None for no limit, not {seconds!r}"
            )
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


@crossing
def pause_of(what: str) -> Pause:
    """Return the current task's pause, for the call `what`. Never parks.

    Raises:
        NotInGreenlet: the caller is not in a task.
    """
    task = require_task(what)
    pause = pauses_by_task.get(task)
    if pause is None:
        pause = pauses_by_task[task] = Pause(task)

        def forget() -> None:
            del pauses_by_task[task]

        task.call_at_end(forget)
    return pause


@crossing
def find_pause() -> Pause | None:
    """Return the current task's pause; None without registered events. Never parks."""
    task = current_task()
    return None if task is None else pauses_by_task.get(task)


def take_turn() -> None:
    """Wait at an empty block for the registered events. May park.

    The server calls it for each empty block that the application yields. It takes at
    least one reactor turn.
    """
    pause = find_pause()
    if pause is None:
        sleep(0)
    else:
        pause.wait()
