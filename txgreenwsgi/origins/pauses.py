"""What an application has asked for before it yields an empty block.

An application that was written for an asynchronous server says what it waits
for, then yields `b""`, and expects to be asked for its next block when that has
come. What it said is kept here, with the task that runs it: so it costs a
request that says nothing nothing at all, and no middleware that copies environ
can come between.

It knows tasks and descriptors. It must never know who asks: the interfaces are
in the files beside it.
"""

from __future__ import annotations

import select
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from txgreenwsgi._switching.greenlets import Suspension, current_task, require_task
from txgreenwsgi._switching.readiness import Poll
from txgreenwsgi._switching.waiting import sleep, spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._switching.greenlets import Hub, Task

    class HasFileno(Protocol):
        """What stands for a descriptor besides an int."""

        def fileno(self) -> int:
            """The descriptor."""

    Descriptor = int | HasFileno

__all__ = ["READ", "WRITE", "Pause", "Resume", "find_pause", "pause_of", "take_turn"]

#: What `select` calls readable, with the exceptional conditions of a descriptor;
#: hang-ups and errors always count.
READ = select.POLLIN | select.POLLPRI
WRITE = select.POLLOUT
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL

_LATE = object()

# The tasks that have asked for something, each until it ends.
_pauses: dict[Task[Any], Pause] = {}


class Resume:
    """Ends one suspension; what `x-wsgiorg.suspend` returns. Call from any thread.

    Attributes:
        called: whether it is what ended the suspension, or will be.
    """

    __slots__ = ("_claim", "_hub", "_suspension", "called")

    def __init__(self, hub: Hub, claim: list[None]) -> None:
        self.called = False
        self._hub = hub
        self._suspension: Suspension | None = None
        # One item, for all that may end one wait: whoever is first takes it out,
        # in whatever thread, for pop() is atomic.
        self._claim = claim

    def __call__(self) -> bool:
        """Resume the application. Never parks.

        The application goes on at the reactor's next turn, not inside this call.

        Returns:
            True if the application was suspended and will go on for this; False
            if it was not suspended yet (then its next empty block suspends it
            for no more than a turn), or has gone on before.
        """
        try:
            self._claim.pop()
        except IndexError:
            return False
        # In this order, and `attach` in the other: one of both sees the other,
        # whatever thread this is.
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
        """The application is about to be suspended by `suspension`."""
        self._suspension = suspension

    def expire(self) -> None:
        """The application has gone on: it cannot be resumed any more."""
        self._claim.clear()
        self._suspension = None


class Pause:
    """What one task waits for at its next empty block; the first to come ends it.

    Made by `pause_of`. All methods are called in the task.

    Attributes:
        ready: the descriptors, as they were given, that ended the last wait,
            each with its events (a sum of `select.POLL*`).
        timed_out: whether the timeout of a descriptor, or a limit, ended it.
        suspension_timed_out: whether the timeout of a suspension ended it.
    """

    __slots__ = (
        "_claim",
        "_resumes",
        "_suspend_seconds",
        "_task",
        "_watch_seconds",
        "_watched",
        "ready",
        "suspension_timed_out",
        "timed_out",
    )

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self._watched: list[tuple[Descriptor, int, int]] = []
        self._watch_seconds: float | None = None
        self._resumes: list[Resume] = []
        self._claim: list[None] = [None]
        self._suspend_seconds: float | None = None
        self.ready: list[tuple[Descriptor, int]] = []
        self.timed_out = False
        self.suspension_timed_out = False

    def watch(self, fd: Descriptor, events: int, seconds: float | None) -> None:
        """Wait for events of a descriptor, for at most so many seconds.

        Raises:
            TypeError: it is no descriptor.
            ValueError: it is not open, or the timeout is negative.
        """
        if not isinstance(fd, int) and not hasattr(fd, "fileno"):
            raise TypeError(
                f"{fd!r} is no file descriptor: give an int or an object with fileno()"
            )
        number = fd if isinstance(fd, int) else fd.fileno()
        if number < 0:
            raise ValueError(
                f"{fd!r} has no open file descriptor (fileno() is {number})"
            )
        self.limit(seconds)
        self._watched.append((fd, number, events))

    def limit(self, seconds: float | None) -> None:
        """Wait for at most so many seconds, whatever else is waited for."""
        self._watch_seconds = _sooner(self._watch_seconds, seconds)

    def suspend(self, seconds: float | None) -> Resume:
        """Wait to be resumed, for at most so many seconds."""
        self._suspend_seconds = _sooner(self._suspend_seconds, seconds)
        resume = Resume(self._task.hub, self._claim)
        self._resumes.append(resume)
        return resume

    def wait(self) -> None:
        """Wait for what was asked for; a turn of the reactor is always taken.

        May park. With nothing asked for, it takes the turn and nothing else.
        """
        watched, self._watched = self._watched, []
        resumes, self._resumes = self._resumes, []
        self._claim = [None]
        watch_seconds, self._watch_seconds = self._watch_seconds, None
        if not watched and not resumes and watch_seconds is None:
            sleep(0)
            return
        suspend_seconds, self._suspend_seconds = self._suspend_seconds, None
        self.ready = []
        self.timed_out = self.suspension_timed_out = False
        seconds = _sooner(watch_seconds, suspend_seconds)
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
        """The events of each descriptor, and whether the time was over first."""
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
            # An application that always finds something ready must not keep
            # the others waiting.
            sleep(0)
            return dict(ready), False
        if resumes:
            ready, late = self._wait_for_either(
                suspension, poll, bool(interest), seconds
            )
            # One that was told it would resume us is right, whatever came since.
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
        """Wait for a resumption, the time, and descriptors if `polls`."""
        call = None
        if seconds is not None:
            call = self._task.hub.reactor.callLater(seconds, suspension.resume, _LATE)
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


def _sooner(one: float | None, other: float | None) -> float | None:
    """The lesser of two timeouts, None being none."""
    for seconds in (one, other):
        if seconds is not None and not seconds >= 0:
            raise ValueError(
                f"a timeout is a number >= 0, or None for no limit, not {seconds!r}"
            )
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def pause_of(what: str) -> Pause:
    """The current task's pause, for `what` that is asked for. Never parks.

    Raises:
        NotInGreenlet: there is no task here, and `what` is of no use.
    """
    task = require_task(what)
    pause = _pauses.get(task)
    if pause is None:
        pause = _pauses[task] = Pause(task)

        def forget() -> None:
            del _pauses[task]

        task.call_at_end(forget)
    return pause


def find_pause() -> Pause | None:
    """The current task's pause, if it has ever asked for anything. Never parks."""
    task = current_task()
    return None if task is None else _pauses.get(task)


def take_turn() -> None:
    """What a server does when an application yields an empty block. May park.

    It waits for what the application has asked for, and gives the reactor a turn
    in any case.
    """
    pause = find_pause()
    if pause is None:
        sleep(0)
    else:
        pause.wait()
