"""Waits for Deferreds, awaitables, time and other tasks.

Each function creates a `Suspension`, arranges for its answer, and cleans up if the
wait ends in another way. This module knows Deferreds and asyncio's futures; it must
never switch.

A traceback holds its frames. So these functions delete their references to errors, to
avoid cycles that only the garbage collector can free.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from contextvars import copy_context
from functools import wraps
from types import coroutine
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast, overload

from twisted.internet import task as twisted_task
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import running
from .errors import Cancelled, NotInGreenlet
from .greenlets import Suspension, Task, current_task, hub_of, require_task
from .guards import require_seconds
from .suspensions import exception_of
from .thread_calls import in_task_of_thread, tasks_of_threads
from .timeouts import timeout as time_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
    from typing import NoReturn

    from twisted.internet.interfaces import IReactorCore, IReactorTime

    from .greenlets import Hub

__all__ = [
    "in_greenlet",
    "react",
    "sleep",
    "spawn",
    "suspend",
    "wait",
    "wait_for_deferred",
    "yield_if_due",
]

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger()

#: Seconds that the main function of `react()` may take to clean up when the reactor
#: is stopped.
GRACE_SECONDS = 5.0


_ASYNCIO_REMEDY: Final = (
    "run Twisted's asyncio reactor (twistd --reactor=asyncio or "
    "asyncioreactor.install())"
)


@overload
def wait(awaitable: Deferred[T], timeout: float | None = None) -> T: ...
@overload
def wait(awaitable: Task[T], timeout: float | None = None) -> T: ...
@overload
def wait(awaitable: Awaitable[T], timeout: float | None = None) -> T: ...
def wait(awaitable: object, timeout: float | None = None) -> object:
    """Wait for `awaitable` and return its result, or raise its error. May park.

    Call from a task, at any call depth. A Deferred that has fired costs no switch.

    Args:
        awaitable: a Deferred, a coroutine, any object with `__await__`, a `Task`,
            or, under the asyncio reactor, an asyncio future. A Deferred's
            success passes through to its next callback; its failure is
            consumed here.
        timeout: seconds after which the wait ends; None for no limit. A wait
            that ends early (timeout, interruption) cancels `awaitable`, except
            a `Task`.

    Raises:
        TimedOut: the timeout has expired.
        NotInGreenlet: the caller is not in a task.
        TypeError: `awaitable` is not one of the above.
        twisted.internet.defer.CancelledError: it was cancelled elsewhere.
    """
    try:
        if timeout is not None:
            require_seconds("wait(timeout)", timeout)
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            waiting: Callable[..., object] = wait
            return in_task(waiting, awaitable, timeout)
        task = require_task("wait()")
        task.uses_reactor = True
        if isinstance(awaitable, Deferred):
            return _wait_for_deferred(task, awaitable, timeout)
        if isinstance(awaitable, Task):
            return awaitable.wait(timeout)
        if asyncio.isfuture(awaitable):
            return _wait_for_future(task, awaitable, timeout)
        if not inspect.isawaitable(awaitable):
            raise TypeError(
                f"wait() takes a Deferred, a coroutine, a Task or another object "
                f"with __await__, not {awaitable!r}"
            )
        loop = _loop_of(task.hub)
        if loop is not None:
            return _run_as_asyncio_task(task, awaitable, timeout, loop)
        return _run_awaitable(task, awaitable, timeout)
    except BaseException:
        # A coroutine that was never started would warn that it was never awaited.
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


def wait_for_deferred(deferred: Deferred[T]) -> T:
    """Wait for `deferred`, as `wait` does, for code of this package. May park."""
    return _wait_for_deferred(require_task("wait_for_deferred()"), deferred, None)


def _wait_for_deferred(
    task: Task[object], deferred: Deferred[T], timeout: float | None
) -> T:
    if deferred.called:
        task.raise_pending()
    suspension = Suspension(task, deferred, timeout)

    def fired(result: T | Failure) -> T | Failure | None:
        if not isinstance(result, Failure):
            suspension.resume(result)
            return result
        # After the wait has ended, the failure goes to the next errback.
        return None if suspension.throw(result) else result

    deferred.addBoth(fired)
    try:
        result: T = suspension.wait()
    except BaseException:
        if not suspension.answered:
            _cancel(deferred)
        raise
    return result


def _cancel(deferred: Deferred[T]) -> None:
    """Cancel a Deferred whose wait ended early.

    Never raises: the error that ended the wait must propagate.
    """
    cancelling = True

    def failed(failure: Failure) -> None:
        # The last errback. A failure during cancel() is its expected result; a later
        # failure would otherwise be lost.
        if not cancelling and not failure.check(CancelledError):
            _log.failure(
                "a Deferred failed after the wait for it had ended",
                failure=failure,
            )

    deferred.addErrback(failed)
    try:
        deferred.cancel()
    except Exception:
        _log.failure("cancelling {deferred!r} failed", deferred=deferred)
    cancelling = False


def _wait_for_future(
    task: Task[object], future: asyncio.Future[T], timeout: float | None
) -> T:
    try:
        if future.done():
            task.raise_pending()
        else:
            _park_on_future(task, future, timeout)
        try:
            return future.result()
        except asyncio.CancelledError:
            # asyncio's CancelledError is a BaseException, after which database
            # drivers do not clean up.
            raise CancelledError("the asyncio future was cancelled") from None
    finally:
        del future


def _park_on_future(
    task: Task[object], future: asyncio.Future[T], timeout: float | None
) -> None:
    loop = _loop_of(task.hub)
    if future.get_loop() is not loop:
        raise TypeError(
            f"wait() was given a future of the asyncio loop {future.get_loop()!r}, "
            f"which {task.hub.reactor!r} does not run: {_ASYNCIO_REMEDY}, and create "
            "the future in its loop"
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


def _as_coroutine(awaitable: Awaitable[T]) -> Coroutine[object, object, T]:
    # Other awaitables need not have send() and throw().
    return awaitable if inspect.iscoroutine(awaitable) else _await(awaitable)


def _run_awaitable(
    task: Task[object], awaitable: Awaitable[T], timeout: float | None
) -> T:
    """Run an awaitable in the task itself, waiting for each Deferred it yields.

    This way it may call `wait()`, its tracebacks are complete, and interruptions are
    raised at its `await`.
    """
    steps = _as_coroutine(awaitable)
    value: object = None
    error: BaseException | None = None
    try:
        with time_limit(timeout):
            while True:
                try:
                    yielded = steps.send(value) if error is None else steps.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                except (RuntimeError, AttributeError) as raised:
                    if not _misses_asyncio(raised):
                        raise
                    raise RuntimeError(
                        f"wait() was given {awaitable!r}, which needs a running "
                        f"asyncio loop, but {type(task.hub.reactor).__name__} runs "
                        f"none: {_ASYNCIO_REMEDY}, or call asyncio.run() in place of "
                        "wait() (it blocks unless the standard library is patched)"
                    ) from raised
                value = error = None
                try:
                    value = _wait_for_yielded(task, yielded)
                except BaseException as raised:
                    error = raised
    finally:
        del error


def _wait_for_yielded(task: Task[object], yielded: object) -> object:
    if isinstance(yielded, Deferred):
        return _wait_for_deferred(task, yielded, None)
    if asyncio.isfuture(yielded):
        return _wait_for_future(task, yielded, None)
    if yielded is None:  # a bare `yield`: one turn
        sleep(0)
        return None
    raise TypeError(
        f"a coroutine awaited {yielded!r}, which is not a Deferred: await Deferreds "
        f"only, or {_ASYNCIO_REMEDY}"
    )


def _misses_asyncio(error: RuntimeError | AttributeError) -> bool:
    """Return whether the error says that no asyncio loop runs.

    asyncio has no exception class for that; its locks and queues use the loop without
    a check. anyio and sniffio have one class each.
    """
    if isinstance(error, AttributeError):
        return error.obj is None and error.name == "create_future"
    return str(error) == "no running event loop" or type(error).__name__ in (
        "AsyncLibraryNotFoundError",
        "NoEventLoopError",
    )


class _Exit:
    """SystemExit or KeyboardInterrupt, as the result of an asyncio task."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _run_as_asyncio_task(
    task: Task[object],
    awaitable: Awaitable[T],
    timeout: float | None,
    loop: asyncio.AbstractEventLoop,
) -> T:
    """Run an awaitable as an asyncio task, so that it may use all of asyncio.

    It gets a copy of the caller's contextvars. An interruption cancels it.
    """
    outcome = _wait_for_future(
        task, loop.create_task(_asyncio_main(awaitable, loop)), timeout
    )
    try:
        if isinstance(outcome, _Exit):
            raise outcome.error
        return outcome
    finally:
        del outcome


async def _asyncio_main(
    awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop
) -> T | _Exit:
    try:
        return await _with_deferreds(_as_coroutine(awaitable), loop)
    except (KeyboardInterrupt, SystemExit) as error:
        # Raised in an asyncio task, it would stop the reactor's loop.
        return _Exit(error)


@coroutine
def _with_deferreds(
    steps: Coroutine[object, object, T], loop: asyncio.AbstractEventLoop
) -> Generator[object, object, T]:
    """Run the coroutine `steps` in an asyncio task, with futures for its Deferreds."""
    value: object = None
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
    deferred: Deferred[T], loop: asyncio.AbstractEventLoop
) -> asyncio.Future[T | Failure]:
    """Return a future for the result of the Deferred, or its Failure.

    Not `Deferred.asFuture`, which removes a success from the Deferred, where the
    `await` that yielded it expects the result.
    """
    future: asyncio.Future[T | Failure] = loop.create_future()

    def fired(result: T | Failure) -> T | Failure | None:
        if future.done():
            return result
        future.set_result(result)
        return None if isinstance(result, Failure) else result

    def done(future: asyncio.Future[T | Failure]) -> None:
        if future.cancelled():
            _cancel(deferred)

    deferred.addBoth(fired)
    future.add_done_callback(done)
    return future


def sleep(seconds: float) -> None:
    """Park the current task for `seconds`, by the reactor's clock.

    `sleep(0)` parks for one reactor turn, in which all ready tasks run.

    Raises:
        ValueError: `seconds` is negative or NaN.
        TypeError: `seconds` is not a number.
        NotInGreenlet: the caller is not in a task.
    """
    if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
        in_task(sleep, seconds)
        return
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


def yield_if_due(due: bool = False) -> bool:
    """Park the current task for a reactor turn if it has used up its time slice.

    For loops over data that is at hand. A no-op outside tasks, and in code that cannot
    park, such as a finalizer.

    Args:
        due: park even if the slice is not used up.

    Returns:
        Whether a turn was due.
    """
    task = current_task()
    if task is None:
        return False
    hub = task.hub
    if not due:
        if hub.seconds() - hub.resumed_at <= hub.slice_seconds:
            return False
        hub.yielded_at = hub.resumed_at
    with suppress(NotInGreenlet):
        sleep(0)
    return True


def suspend(timeout: float | None = None) -> Suspension:
    """Return a handle for one wait of the current task.

    Never parks; `wait()` of the handle parks. `resume(value)` and `throw(error)` may
    be called from any thread, before or during the wait.

    Args:
        timeout: seconds that `wait()` waits before it raises `TimedOut`; None
            for no limit.

    Raises:
        ValueError: `timeout` is negative or NaN.
        NotInGreenlet: the caller is not in a task.
    """
    if timeout is not None:
        require_seconds("suspend(timeout)", timeout)
    if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
        return in_task(suspend, timeout)
    task = require_task("suspend()")
    task.uses_reactor = True
    return Suspension(task, "suspend()", timeout)


def spawn(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
    """Run `function` in a new task; it begins at the reactor's next turn.

    Never parks. Call from a task or from the reactor greenlet (from another
    thread: `reactor.callFromThread(spawn, function)`). The task inherits a copy
    of the caller's contextvars. `Task.wait()` raises its exceptions; they are logged
    if it is never called.

    Raises:
        TypeError: `function` is not callable, or is a coroutine function.
        NotInGreenlet: the reactor has stopped, or runs in another thread.
    """
    if not callable(function):
        raise TypeError(
            f"spawn() takes a function and then its arguments, as in "
            f"spawn(function, 1, 2), not {function!r}"
        )
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"spawn() takes an ordinary function, not the coroutine function "
            f"{function!r}: use spawn(wait, function(1, 2))"
        )
    if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
        return in_task(_spawn_here, function, args, kwargs)
    return _spawn_here(function, args, kwargs)


def _spawn_here(
    function: Callable[..., T],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> Task[T]:
    task = current_task()
    if task is not None:
        task.uses_reactor = True
    return _spawn(hub_of(), function, args, kwargs)


def _spawn(
    hub: Hub,
    function: Callable[..., T],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> Task[T]:
    name = getattr(function, "__qualname__", "") or repr(function)
    task: Task[T] = Task(hub, function, args, kwargs, copy_context(), name)
    hub.spawn(task)
    return task


def in_greenlet(function: Callable[P, T]) -> Callable[P, Deferred[T]]:
    """Return a function that runs `function` in a new task and returns a Deferred.

    For callers that are not in a task: protocols, delayed calls, tests. Cancelling
    the Deferred cancels the task. Usable as a decorator.
    """

    @wraps(function)
    def run_in_task(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return spawn(function, *args, **kwargs).deferred()

    return run_in_task


def react(
    main: Callable[..., object],
    *args: object,
    _reactor: IReactorCore | None = None,
) -> NoReturn:
    """Run `main(*args)` in a task under the reactor, then exit the process.

    As `twisted.internet.task.react`, but `main` may wait. If it returns a Deferred
    or a coroutine, `react` waits for that. Call from the main thread, once; it does
    not return. When the reactor is stopped (Ctrl-C), `main` is cancelled and has 5
    seconds to clean up.

    Raises:
        SystemExit: always. Status 0 if `main` returned or was stopped; 1 if it
            raised, after the traceback was logged; the status of a SystemExit that
            `main` raised.
    """

    def run_main() -> object:
        result = main(*args)
        return wait(result) if inspect.isawaitable(result) else result

    def run(reactor: IReactorCore) -> Deferred[object]:
        clock = cast("IReactorTime", reactor)
        running.program = task = _spawn(hub_of(clock), run_main, (), {})
        stopped = False

        def stop() -> Deferred[object] | None:
            nonlocal stopped
            if task.done:
                return None
            stopped = True
            task.cancel()
            ended = task.deferred().addTimeout(GRACE_SECONDS, clock)
            return ended.addErrback(lambda _: None)  # ended() below handles it

        def ended(failure: Failure) -> Failure | None:
            return None if stopped and failure.check(Cancelled) else failure

        reactor.addSystemEventTrigger("before", "shutdown", stop)
        return task.deferred().addErrback(ended)

    twisted_task.react(run, (), _reactor)
