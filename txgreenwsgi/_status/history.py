"""Rates of a server, from the differences of snapshots.

It knows snapshots. It must never know how they are shown.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import SnapshotInformation

__all__ = ["GAP_SECONDS", "MOST_SAMPLES", "History", "Sample"]

#: Maximum number of samples.
MOST_SAMPLES: Final = 60

#: Time between two snapshots after which the earlier samples are forgotten.
GAP_SECONDS: Final = 15.0


class Sample(NamedTuple):
    """The state of a server at one moment.

    Attributes:
        time: seconds since 1970 (UTC).
        rate: requests per second that have ended since the last sample; None in the
            first one.
        in_flight: the number of requests in flight.
        lag: the longest delay of a reactor since the last sample, in seconds.
    """

    time: float
    rate: float | None
    in_flight: int
    lag: float


class History:
    """The samples of one server.

    Attributes:
        samples: the oldest first.
        rates: by number of a worker, its requests per second.
    """

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self.rates: dict[int, float] = {}
        self._served: dict[int, int] = {}
        self._time: float | None = None

    def add(self, snapshot: SnapshotInformation) -> None:
        """Add a sample."""
        now = snapshot["time"]
        workers = snapshot["workers"]
        seconds = None if self._time is None else now - self._time
        if seconds is not None and not 0 < seconds < GAP_SECONDS:
            # Also if the wall clock was set.
            self.samples.clear()
            seconds = None
        self.rates = {}
        served = {
            worker["worker"]: worker["served"]
            for worker in workers
            if worker["served"] is not None
        }
        if seconds is not None:
            self.rates = {
                # A new worker began at 0 within this time.
                number: max(count - self._served.get(number, 0), 0) / seconds
                for number, count in served.items()
            }
        self._time = now
        # A worker that does not answer is remembered, for its next answer.
        present = {worker["worker"] for worker in workers}
        self._served = {
            number: count
            for number, count in (self._served | served).items()
            if number in present
        }
        self.samples.append(
            Sample(
                time=now,
                rate=None if seconds is None else sum(self.rates.values()),
                in_flight=sum(worker["requests"] or 0 for worker in workers),
                lag=max((worker["lag"] or 0.0 for worker in workers), default=0.0),
            )
        )
