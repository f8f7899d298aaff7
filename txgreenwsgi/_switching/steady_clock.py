"""A steady clock for a reactor whose clock is the wall clock.

Twisted's reactors schedule delayed calls by `time.time`: when the wall clock is set
back, all timers stop for that long; when it is set forward, all of them fire.

It knows reactors. It must never know tasks.
"""

from __future__ import annotations

import time as _time
from time import monotonic
from typing import TYPE_CHECKING

from twisted.internet.base import DelayedCall
from twisted.python.runtime import seconds as wall_clock

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

__all__ = ["is_steady", "use_steady_clock"]


def use_steady_clock(reactor: IReactorTime) -> None:
    """Let `reactor` measure time with the monotonic clock.

    Call from the reactor's thread, at any time. The new clock continues from the
    current value of the old one, so times that were read before, and delayed calls
    that are pending, remain valid. A no-op unless the reactor's clock is Twisted's
    default, `time.time`: a `task.Clock`, and a reactor that was given another clock,
    keep theirs.
    """
    if reactor.seconds is not wall_clock:
        return
    seconds = _steady_seconds(monotonic, wall_clock() - monotonic())
    reactor.__dict__["_txgreenwsgi_clock"] = seconds
    reactor.seconds = seconds  # type: ignore[method-assign]
    for call in reactor.getDelayedCalls():
        # `DelayedCall.reset` uses the clock that the call was created with.
        if isinstance(call, DelayedCall):
            call.seconds = seconds


def is_steady(reactor: IReactorTime) -> bool:
    """Return whether the clock of `reactor` is real time, without jumps.

    False for clocks of tests, and for clocks that follow the wall clock.
    """
    seconds = reactor.seconds
    return seconds is monotonic or (
        reactor.__dict__.get("_txgreenwsgi_clock") is seconds
    )


def _steady_seconds(
    monotonic: Callable[[], float], offset: float
) -> Callable[[], float]:
    if monotonic is _time.monotonic:
        steady = lanes.steady_seconds(monotonic() + offset)
        if steady is not None:
            return steady

    # A closure, because libraries that freeze the time replace module variables.
    def seconds() -> float:
        return monotonic() + offset

    return seconds
