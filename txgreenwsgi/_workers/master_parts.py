"""The settings of the master, and the parts that it uses.

It must never know how the master decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .page import Beat

__all__ = ["Beats", "MasterSettings", "Sockets"]


@dataclass(frozen=True)
class MasterSettings:
    """The settings of a master.

    Attributes:
        workers: the number of workers at the start.
        boot_timeout: seconds that a worker may take until it is ready.
        graceful_timeout: the grace period of a worker that drains, in seconds.
        reload_parallel: the number of successors that boot at the same time.
        worker_timeout: seconds without a beat after which a worker is killed; 0 for no
            limit.
        development: a worker that cannot start is replaced by one that shows why, and
            the server goes on.
    """

    workers: int
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    reload_parallel: int = 1
    worker_timeout: float = 30.0
    development: bool = False


class Beats(Protocol):
    """The shared page, as the master uses it."""

    def clear(self, record: int) -> None:
        """Forget the last worker of a record."""

    def read(self, record: int) -> Beat:
        """Return the state of a worker."""

    def write_serving(self, records: Sequence[int]) -> None:
        """Tell all workers the records of those that serve."""


class Sockets(Protocol):
    """The listening sockets of the server."""

    @property
    def addresses(self) -> Sequence[str]:
        """The addresses, for the status."""

    @property
    def slots(self) -> int:
        """The number of slots with sockets."""

    def shared(self) -> list[int]:
        """Return the indices of the endpoints whose socket all slots share."""

    def descriptors(self, slot: int, *, shared: bool) -> tuple[list[int], list[int]]:
        """Return the listening descriptors of a slot, opening them if necessary.

        Args:
            slot: the index of the slot.
            shared: whether to return the sockets that all slots share, too.

        Returns:
            The indices of the endpoints, and a descriptor for each.
        """
