"""The gate: of the calls that hold the GIL, one young call runs at a time.

The reactor competes with every thread that computes in Python: beside one such thread
it waits for one switch interval, and much longer beside several. Calls that compute in
C, or wait, release the GIL and need no gate. Which kind a route is, the samples of its
threads tell: see `thread_states.py`.

It knows scores. It must never know threads.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .calls import ThreadCall

__all__ = ["YOUNG_ELAPSED_SECONDS", "YOUNG_SECONDS", "Gate"]

#: A call that has used so much CPU time no longer keeps the gate shut: short calls must
#: not wait for a long one.
YOUNG_SECONDS: Final = 0.3
#: The same in elapsed time, for calls that wait, or whose CPU other processes use.
YOUNG_ELAPSED_SECONDS: Final = 1.0
#: From this score on a route is expected to hold the GIL.
_HOLDS: Final = 0.5
#: Below this score, one sample does not reach `_HOLDS`.
_SURELY_RELEASES: Final = 0.25
#: The score of a route without samples.
_UNKNOWN: Final = 0.3
#: Weight of a new sample in the score of its route.
_WEIGHT: Final = 0.15
#: Maximum number of routes with a score; the oldest is forgotten.
_MAX_ROUTES: Final = 4096


class Gate:
    """Admits calls by the expected use of the GIL. Not thread-safe.

    Attributes:
        held: the calls that wait for the gate, in order.
    """

    def __init__(self) -> None:
        self.held: deque[ThreadCall[object]] = deque()
        # The young calls that hold the GIL, with the time at which they began.
        self._young: dict[ThreadCall[object], float] = {}
        # The CPU seconds that they have used.
        self._used: dict[ThreadCall[object], float] = {}
        # Route -> share of its samples in which it held the GIL, smoothed.
        self._scores: dict[str, float] = {}

    def admit(self, call: ThreadCall[object], now: float) -> bool:
        """Return whether `call` may begin now; otherwise it waits in `held`."""
        if self._scores.get(call.route, _UNKNOWN) <= _HOLDS:
            return True
        if self._young:
            self.held.append(call)
            return False
        self._young[call] = now
        return True

    def ended(self, call: ThreadCall[object]) -> None:
        """Note that `call` has ended. Call `release` then."""
        self._young.pop(call, None)
        self._used.pop(call, None)

    def release(self, now: float) -> ThreadCall[object] | None:
        """Return the next held call that may begin now; None if there is none."""
        if not self.held:
            return None
        oldest = now - YOUNG_ELAPSED_SECONDS
        for call in [call for call, began in self._young.items() if began < oldest]:
            self.ended(call)
        if self._young:
            return None
        call = self.held.popleft()
        self._young[call] = now
        return call

    def used(self, call: ThreadCall[object], seconds: float) -> None:
        """Note that `call` has used CPU time since its last sample."""
        if call in self._young:
            used = self._used.get(call, 0.0) + seconds
            if used > YOUNG_SECONDS:
                self.ended(call)
            else:
                self._used[call] = used

    def may_hold(self, route: str) -> bool:
        """Return whether calls of `route` hold the GIL, as far as is known."""
        return self._scores.get(route, 1.0) > _HOLDS

    def passes(self, route: str) -> bool:
        """Return whether calls of `route` pass the gate even after one more sample.

        False for a route without samples.
        """
        return self._scores.get(route, 1.0) < _SURELY_RELEASES

    def note(self, route: str, holds_gil: float) -> None:
        """Add a sample of the running calls of `route`.

        Args:
            route: the kind of calls.
            holds_gil: the share of these calls that hold the GIL, 0 to 1. The calls
                of one instant are one sample: each of them may hold the others up.
        """
        scores = self._scores
        score = scores.get(route)
        if score is None:
            score = _UNKNOWN
            if len(scores) >= _MAX_ROUTES:
                del scores[next(iter(scores))]
        scores[route] = (1 - _WEIGHT) * score + _WEIGHT * holds_gil
