"""What a task may wait on: Deferreds, awaitables, time, other tasks.

Each function here makes a `Suspension`, arranges that something answers it, and
cleans up behind itself when the wait ended in another way. It knows Deferreds
and asyncio's futures; it must never switch.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextvars import copy_context
from functools import wraps
from types import coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from twisted.internet import task as twisted_task
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .errors import NotInGreenlet
from .greenlets import Suspension, Task, hub_of, require_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import NoReturn

    from twisted.internet.interfaces import IReactorCore

    from .greenlets import Hub

__all__ = ["in_greenlet", "react", "sleep", "spawn", "suspend", "wait"]

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger(namespace="txgreenwsgi")


@overload
def wait(awaitable: Deferred[T], timeout: float | None = None) -> T: ...
@overload
def wait(awaitable: Awaitable[T], timeout: float | None = None) -> T: ...
def wait(awaitable: Any, timeout: float | None = None) -> Any:
    """Wait for `awaitable`; its result, or what it failed with is raised. May park.

    Call from a task, at any depth. A Deferred that has fired costs no switch.

    Args:
        awaitable: a Deferred, a coroutine, anything with `__await__`, a `Task`,
            or, under the asyncio reactor, an asyncio future. A Deferred's
            success passes through to whoever waits next; its failure is
            consumed here.
        timeout: seconds after which the wait ends; None for no limit. Whatever
            ends the wait early cancels what was waited on.

    Raises:
        TimedOut: the time is over.
        NotInGreenlet: there is no task here.
        TypeError: it is nothing that can be waited on.
    """
    try:
        task = require_task("wait()")
    except NotInGreenlet:
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # else it warns that it was never awaited
        raise
    if isinstance(awaitable, Deferred):
        return _wait_for_deferred(task, awaitable, timeout)
    if isinstance(awaitable, Task):
        return awaitable.wait(timeout)
    if asyncio.isfuture(awaitable):
        return _wait_for_future(task, awaitable, timeout)
    if not hasattr(awaitable, "__await__"):
        raise TypeError(
            f"wait() takes a Deferred, a coroutine, a Task or something else with "
            f"__await__, not {awaitable!r}"
        )
    loop = getattr(task.hub.reactor, "_asyncioEventloop", None)
    if loop is not None:
        # Coroutines may use any of asyncio there, so they get what it needs:
        # an asyncio task, with the loop marked as running.
        future = loop.create_task(_with_deferreds(awaitable.__await__(), loop))
        return _wait_for_future(task, future, timeout)
    return _drive(task, awaitable.__await__(), timeout)


def _wait_for_deferred(
    task: Task[Any], deferred: Deferred[T], timeout: float | None
) -> T:
    suspension = Suspension(task, deferred, timeout)

    def fired(result: Any) -> Any:
        if isinstance(result, Failure):
            if not suspension.throw(result):
                _report_late_failure(result)
            return None
        suspension.resume(result)
        return result

    deferred.addBoth(fired)
    try:
        result: T = suspension.wait()
    except BaseException:
        if not suspension.answered:
            deferred.cancel()
        raise
    return result


def _report_late_failure(failure: Failure) -> None:
    if not failure.check(CancelledError, asyncio.CancelledError):
        _log.failure(
            "a Deferred failed after the task that waited on it had gone on",
            failure=failure,
        )


def _wait_for_future(
    task: Task[Any], future: asyncio.Future[T], timeout: float | None
) -> T:
    if not future.done():
        if getattr(task.hub.reactor, "_asyncioEventloop", None) is None:
            raise TypeError(
                f"wait() was given an asyncio future under {task.hub.reactor!r}, which "
                "does not run asyncio's loop: start with --reactor=asyncio"
            )
        suspension = Suspension(task, future, timeout)
        future.add_done_callback(suspension.resume)
        try:
            suspension.wait()
        except BaseException:
            future.remove_done_callback(suspension.resume)
            future.cancel()
            raise
    return future.result()


def _drive(task: Task[Any], steps: Generator[Any, Any, T], timeout: float | None) -> T:
    """Run an awaitable here, in the task, waiting on each Deferred it yields.

    So it may call `wait()` itself, its tracebacks are whole, and an
    interruption is raised at its `await`.
    """
    deadline = None if timeout is None else task.hub.reactor.seconds() + timeout
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                yielded = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value = error = None
            try:
                left = (
                    None
                    if deadline is None
                    else max(0.0, deadline - task.hub.reactor.seconds())
                )
                if isinstance(yielded, Deferred):
                    value = _wait_for_deferred(task, yielded, left)
                elif asyncio.isfuture(yielded):
                    value = _wait_for_future(task, yielded, left)
                elif yielded is None:  # a bare `yield`: one turn
                    sleep(0)
                else:
                    raise TypeError(
                        f"a coroutine awaited {yielded!r}, which is no Deferred"
                    )
            except BaseException as raised:
                error = raised
    finally:
        steps.close()
        del error


@coroutine
def _with_deferreds(
    steps: Generator[Any, Any, T], loop: asyncio.AbstractEventLoop
) -> Generator[Any, Any, T]:
    """The awaitable `steps` for an asyncio task, its Deferreds made futures."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            yielded = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        value = error = None
        try:
            if isinstance(yielded, Deferred):
                value = yield from yielded.asFuture(loop)
            else:
                value = yield yielded
        except BaseException as raised:
            error = raised


def sleep(seconds: float) -> None:
    """Park the current task for `seconds`, by the reactor's clock.

    `sleep(0)` is one turn of the reactor: everything that is ready runs.

    Raises:
        ValueError: `seconds` is negative or no number.
        NotInGreenlet: there is no task here.
    """
    task = require_task("sleep()")
    if seconds == 0:
        suspension = Suspension(task, "sleep(0)")
        task.hub.at_next_turn(suspension.resume)
        suspension.wait()
        return
    if not seconds > 0:
        raise ValueError(f"sleep() takes a number of seconds >= 0, not {seconds!r}")
    suspension = Suspension(task, f"sleep({seconds:g})")
    call = task.hub.reactor.callLater(seconds, suspension.resume)
    try:
        suspension.wait()
    finally:
        if call.active():
            call.cancel()


def suspend(timeout: float | None = None) -> Suspension:
    """A handle on one wait of the current task, to be resumed by whoever has it.

    Never parks; `wait()` of the handle does. `resume(value)` and `throw(error)`
    may be called from any thread, before or during the wait.

    Args:
        timeout: seconds that `wait()` waits before it raises `TimedOut`; None
            for no limit.
    """
    return Suspension(require_task("suspend()"), "suspend()", timeout)


def spawn(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
    """Run `function` in a new task; it begins at the reactor's next turn.

    Never parks. Call from a task or from the reactor greenlet (from another
    thread: `reactor.callFromThread(spawn, function)`). The task inherits a copy
    of the caller's contextvars. What it raises is raised by `Task.wait()`, or
    logged when nobody asks.
    """
    return _spawn(hub_of(), function, args, kwargs)


def _spawn(
    hub: Hub, function: Callable[..., T], args: Any, kwargs: dict[str, Any]
) -> Task[T]:
    name = getattr(function, "__qualname__", "") or repr(function)
    task: Task[T] = Task(hub, function, args, kwargs, copy_context(), name)
    hub.spawn(task)
    return task


def in_greenlet(function: Callable[P, T]) -> Callable[P, Deferred[T]]:
    """A function that runs `function` in a task of its own and returns a Deferred.

    For callers that are not in a task: protocols, delayed calls, tests. Cancelling
    the Deferred cancels the task. Usable as a decorator.
    """

    @wraps(function)
    def run_in_task(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return spawn(function, *args, **kwargs).deferred()

    return run_in_task


def react(
    main: Callable[..., object],
    *args: Any,
    _reactor: IReactorCore | None = None,
) -> NoReturn:
    """Run `main(*args)` in a task under the reactor, then exit the process.

    As `twisted.internet.task.react`, but `main` may wait and need not return a
    Deferred. Call from the main thread, once; it does not return.

    Raises:
        SystemExit: always: status 0 when `main` returned; 1 when it raised,
            after the traceback was logged; its own when it raised SystemExit.
    """

    def run(reactor: Any) -> Deferred[object]:
        return _spawn(hub_of(reactor), main, args, {}).deferred()

    twisted_task.react(run, (), _reactor)
    raise AssertionError("twisted.internet.task.react ends by SystemExit")
