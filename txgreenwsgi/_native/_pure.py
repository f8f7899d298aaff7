"""The interface of `_lanes` without the compiled module: nothing is replaced.

This file must never know a class of the server.
"""

from __future__ import annotations

from typing import TypeVar

__all__ = [
    "INTERFACE",
    "counts",
    "forget_fields",
    "lend",
    "lent",
    "slots",
    "steady_seconds",
    "with_lane",
    "with_lanes",
]

_T = TypeVar("_T")

INTERFACE = 0

# The state classes: a class of the server declares its own slots.
AdmissionQueueState = ApplicationServerState = AutomaticRoutesState = object
CommonFieldsState = object
ConnectionState = ErrorsState = ExchangeState = GreenletHubState = object
H1ChannelState = InputState = ListeningSocketState = RequestBodyState = object
RequestHeadState = object
RequestMeterState = RequestTableState = ResponseHeadState = SocketOutputState = (
    SocketsState
) = object
StartResponseState = TaskState = ThreadRunnerState = object


def counts() -> dict[str, int]:
    """Return no counts: there are no lanes."""
    return {}


def forget_fields() -> None:
    """Do nothing: no field lines are kept."""


def lend(**objects: object) -> None:
    """Do nothing."""


def slots(base: type, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return all names: the state class has no attributes."""
    return names


def steady_seconds(offset_to: float) -> None:
    """Return None: the caller makes the clock."""


def with_lanes(thing: _T) -> _T:
    """Return a class or function as it is."""
    return thing


lent = with_lane = with_lanes
