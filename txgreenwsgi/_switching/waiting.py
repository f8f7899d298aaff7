"""What a task may wait on: Deferreds, awaitables, time, other tasks.

Each function here makes a `Suspension`, arranges that something answers it, and
cleans up behind itself when the wait ended in another way. It knows Deferreds
and asyncio's futures; it must never switch.

A traceback holds the frames it went through, so these drop what holds the error:
what nobody needs any more is not to wait for the collector.
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import copy_context
from functools import wraps
from types import coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from twisted.internet import task as twisted_task
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .errors import Cancelled
from .greenlets import Suspension, Task, hub_of, require_task
from .guards import require_seconds
from .suspensions import exception_of
from .timeouts import timeout as time_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from typing import NoReturn

    from twisted.internet.interfaces import IReactorCore

    from .greenlets import Hub

__all__ = ["in_greenlet", "react", "sleep", "spawn", "suspend", "wait"]

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger()

#: How long the main function of `react()` may take to clean up when the reactor
#: is stopped.
GRACE_SECONDS = 5.0


@overload
def wait(awaitable: Deferred[T], timeout: float | None = None) -> T: ...
@overload
def wait(awaitable: Task[T], timeout: float | None = None) -> T: ...
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
        twisted.internet.defer.CancelledError: somebody else cancelled it.
    """
    try:
        if timeout is not None:
            require_seconds("wait(timeout)", timeout)
        task = require_task("wait()")
        if isinstance(awaitable, Deferred):
            return _wait_for_deferred(task, awaitable, timeout)
        if isinstance(awaitable, Task):
            return awaitable.wait(timeout)
        if asyncio.isfuture(awaitable):
            return _wait_for_future(task, awaitable, timeout)
        if not inspect.isawaitable(awaitable):
            raise TypeError(
                f"wait() takes a Deferred, a coroutine, a Task or something else "
                f"with __await__, not {awaitable!r}"
            )
        loop = _loop_of(task.hub)
        if loop is not None:
            return _run_as_asyncio_task(task, awaitable, timeout, loop)
        return _drive(task, awaitable, timeout)
    except BaseException:
        # One that never began would warn that it was never awaited.
        if (
            inspect.iscoroutine(awaitable)
            and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED
        ):
            awaitable.close()
        raise
    finally:
        del awaitable


def _loop_of(hub: Hub) -> asyncio.AbstractEventLoop | None:
    loop: asyncio.AbstractEventLoop | None = getattr(
        hub.reactor, "_asyncioEventloop", None
    )
    return loop


def _wait_for_deferred(
    task: Task[Any], deferred: Deferred[T], timeout: float | None
) -> T:
    if deferred.called:
        task.raise_pending()
    suspension = Suspension(task, deferred, timeout)

    def fired(result: Any) -> Any:
        if not isinstance(result, Failure):
            suspension.resume(result)
            return result
        # Once the task has gone on, it is for whoever waits behind.
        return None if suspension.throw(result) else result

    deferred.addBoth(fired)
    try:
        result: T = suspension.wait()
    except BaseException:
        if not suspension.answered:
            _cancel(deferred)
        raise
    return result


def _cancel(deferred: Deferred[Any]) -> None:
    """Cancel what a wait was left on. Never raises: what ended the wait comes first."""
    cancelling = True

    def failed(failure: Failure) -> None:
        # Nobody else took it. Whatever it fails with now is its answer to us.
        if not cancelling and not failure.check(CancelledError):
            _log.failure(
                "a Deferred failed after the task that waited on it had gone on",
                failure=failure,
            )

    deferred.addErrback(failed)
    try:
        deferred.cancel()
    except Exception:
        _log.failure("cancelling {deferred!r} failed", deferred=deferred)
    cancelling = False


def _wait_for_future(
    task: Task[Any], future: asyncio.Future[T], timeout: float | None
) -> T:
    try:
        if future.done():
            task.raise_pending()
        else:
            _park_on_future(task, future, timeout)
        try:
            return future.result()
        except asyncio.CancelledError:
            # asyncio's is a BaseException, which no driver cleans up after.
            raise CancelledError("the asyncio future was cancelled") from None
    finally:
        del future


def _park_on_future(
    task: Task[Any], future: asyncio.Future[Any], timeout: float | None
) -> None:
    loop = _loop_of(task.hub)
    if future.get_loop() is not loop:
        raise TypeError(
            f"wait() was given a future of the asyncio loop {future.get_loop()!r}, "
            f"which {task.hub.reactor!r} does not run: start with --reactor=asyncio, "
            "and make the future in that loop"
        )
    suspension = Suspension(task, future, timeout)
    future.add_done_callback(suspension.resume)
    try:
        suspension.wait()
    except BaseException:
        future.remove_done_callback(suspension.resume)
        future.cancel()
        raise


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _as_coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    # Whatever else can be awaited need not have send() and throw() itself.
    return awaitable if inspect.iscoroutine(awaitable) else _await(awaitable)


def _drive(task: Task[Any], awaitable: Awaitable[T], timeout: float | None) -> T:
    """Run an awaitable here, in the task, waiting on each Deferred it yields.

    So it may call `wait()` itself, its tracebacks are whole, and an
    interruption is raised at its `await`.
    """
    steps = _as_coroutine(awaitable)
    value: Any = None
    error: BaseException | None = None
    try:
        with time_limit(timeout):
            while True:
                try:
                    yielded = steps.send(value) if error is None else steps.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                value = error = None
                try:
                    value = _wait_for_yielded(task, yielded)
                except BaseException as raised:
                    error = raised
    finally:
        del error


def _wait_for_yielded(task: Task[Any], yielded: Any) -> Any:
    if isinstance(yielded, Deferred):
        return _wait_for_deferred(task, yielded, None)
    if asyncio.isfuture(yielded):
        return _wait_for_future(task, yielded, None)
    if yielded is None:  # a bare `yield`: one turn
        return sleep(0)
    raise TypeError(f"a coroutine awaited {yielded!r}, which is no Deferred")


class _Exit:
    """SystemExit or KeyboardInterrupt, as the result of an asyncio task."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _run_as_asyncio_task(
    task: Task[Any],
    awaitable: Awaitable[T],
    timeout: float | None,
    loop: asyncio.AbstractEventLoop,
) -> T:
    """Run an awaitable as asyncio would: it may use any of asyncio.

    It has a copy of the caller's contextvars. An interruption cancels it.
    """
    outcome: Any = _wait_for_future(
        task, loop.create_task(_carry(awaitable, loop)), timeout
    )
    try:
        if isinstance(outcome, _Exit):
            raise outcome.error
        return cast("T", outcome)
    finally:
        del outcome


async def _carry(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> Any:
    try:
        return await _with_deferreds(_as_coroutine(awaitable), loop)
    except (KeyboardInterrupt, SystemExit) as error:
        # Raised in an asyncio task, it would end the loop, which is the reactor.
        return _Exit(error)


@coroutine
def _with_deferreds(
    steps: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop
) -> Generator[Any, Any, T]:
    """The coroutine `steps` for an asyncio task, its Deferreds made futures."""
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
                if isinstance(yielded, Deferred):
                    value = yield from _as_future(yielded, loop)
                    if isinstance(value, Failure):
                        error = exception_of(value)
                else:
                    value = yield yielded
            except BaseException as raised:
                error = raised
    finally:
        del error, value


def _as_future(
    deferred: Deferred[Any], loop: asyncio.AbstractEventLoop
) -> asyncio.Future[Any]:
    """A future whose result is that of the Deferred, or its Failure.

    Not by `Deferred.asFuture`, which takes a success out of the Deferred: the
    `await` that it was yielded by looks for it there.
    """
    future = loop.create_future()

    def fired(result: Any) -> Any:
        if future.done():
            return result
        future.set_result(result)
        return None if isinstance(result, Failure) else result

    def done(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            _cancel(deferred)

    deferred.addBoth(fired)
    future.add_done_callback(done)
    return future


def sleep(seconds: float) -> None:
    """Park the current task for `seconds`, by the reactor's clock.

    `sleep(0)` is one turn of the reactor: everything that is ready runs.

    Raises:
        ValueError: `seconds` is negative or NaN.
        TypeError: `seconds` is no number.
        NotInGreenlet: there is no task here.
    """
    task = require_task("sleep()")
    if seconds == 0:
        suspension = Suspension(task, "sleep(0)")
        task.hub.at_next_turn(suspension.resume)
        suspension.wait()
        return
    require_seconds("sleep()", seconds)
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
    if timeout is not None:
        require_seconds("suspend(timeout)", timeout)
    return Suspension(require_task("suspend()"), "suspend()", timeout)


def spawn(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
    """Run `function` in a new task; it begins at the reactor's next turn.

    Never parks. Call from a task or from the reactor greenlet (from another
    thread: `reactor.callFromThread(spawn, function)`). The task inherits a copy
    of the caller's contextvars. What it raises is raised by `Task.wait()`, or
    logged when nobody asks.

    Raises:
        TypeError: `function` cannot be called, or its call would only make a
            coroutine.
        NotInGreenlet: the reactor has stopped, or runs in another thread.
    """
    if not callable(function):
        raise TypeError(
            f"spawn() takes a function and then its arguments, as in "
            f"spawn(function, 1, 2), not {function!r}"
        )
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"spawn() takes an ordinary function, and {function!r} makes a coroutine: "
            "write spawn(wait, function(1, 2))"
        )
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

    As `twisted.internet.task.react`, but `main` may wait. It need not return a
    Deferred, nor be a coroutine function; if so, that is waited for. Call from the
    main thread, once; it does not return. When the reactor is stopped (Ctrl-C)
    `main` is cancelled, and has 5 seconds to clean up.

    Raises:
        SystemExit: always: status 0 when `main` returned or was stopped; 1 when
            it raised, after the traceback was logged; its own when it raised
            SystemExit.
    """

    def whole_main() -> object:
        result = main(*args)
        return wait(result) if inspect.isawaitable(result) else result

    def run(reactor: Any) -> Deferred[object]:
        task = _spawn(hub_of(reactor), whole_main, (), {})
        stopped = False

        def stop() -> Deferred[object] | None:
            nonlocal stopped
            if task.done:
                return None
            stopped = True
            task.cancel()
            ended = task.deferred().addTimeout(GRACE_SECONDS, reactor)
            return ended.addErrback(lambda _: None)  # `main` is told below

        def ended(failure: Failure) -> Failure | None:
            return None if stopped and failure.check(Cancelled) else failure

        reactor.addSystemEventTrigger("before", "shutdown", stop)
        return task.deferred().addErrback(ended)

    twisted_task.react(run, (), _reactor)
