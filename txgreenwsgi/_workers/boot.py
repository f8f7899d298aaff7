"""The message with which a worker starts, and the descriptors that it inherits.

It knows the form of the message. It must never know the options in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from .stacks import FORCED_STACKS_SIGNAL, STACKS_SIGNAL

if TYPE_CHECKING:
    from .messages import Message
    from .slots import Worker

__all__ = ["LINK_FD", "LOG_FD", "PAGE_FD", "STACKS_FD", "TLS_FD", "Boot"]

#: The descriptors of a worker beside 0 (null device), 1 and 2 (those of the master).
LINK_FD: Final = 3
LOG_FD: Final = 4
PAGE_FD: Final = 5
STACKS_FD: Final = 6
#: Only if an endpoint uses TLS.
TLS_FD: Final = 7


@dataclass(frozen=True)
class Boot:
    """Everything that a worker has to know at its start.

    Attributes:
        entry: the function that runs the worker, as "package.module:name". It is
            called with this object and the socket of the link.
        arguments: the options of the command.
        parent: the options of twistd that the command reads.
        reactor: the module whose `install` installs the reactor.
        path: the module search path of the master.
        listen: the endpoint strings whose sockets the master has opened.
        directory: the working directory in which the options are parsed; "" for that
            of the worker.
        slot: the index of the worker's slot.
        number: counts all workers of the master, from 1.
        record: the index of the worker's record in the shared page.
        name: the name of the worker in the log.
        uses_tls: whether there is a descriptor for TLS.
        stacks_signal: the signal at which the worker writes its stacks.
        forced_stacks_signal: that at which it does so in the C signal handler.
        development: whether the worker lists its files to the master.
        preload: whether workers are forked from a process that has imported the
            application.
        failure: in development, why the application does not start; "" to start it.
    """

    entry: str
    arguments: list[str] = field(default_factory=list)
    parent: dict[str, Any] = field(default_factory=dict)
    reactor: str = ""
    path: list[str] = field(default_factory=list)
    listen: list[str] = field(default_factory=list)
    directory: str = ""
    slot: int = 0
    number: int = 0
    record: int = 0
    name: str = ""
    uses_tls: bool = False
    stacks_signal: int = STACKS_SIGNAL
    forced_stacks_signal: int = FORCED_STACKS_SIGNAL
    development: bool = False
    preload: bool = False
    failure: str = ""

    def with_reactor(self, module: str) -> Boot:
        """Return a copy for a reactor.

        Args:
            module: the module of the reactor, which has a function `install`.
        """
        return replace(self, reactor=module)

    def with_entry(self, entry: str) -> Boot:
        """Return a copy for another function.

        Args:
            entry: as "package.module:name".
        """
        return replace(self, entry=entry)

    def for_worker(self, worker: Worker) -> Boot:
        """Return a copy for a worker."""
        return replace(
            self,
            slot=worker.slot.index,
            number=worker.number,
            record=worker.record,
            name=f"worker {worker.number}",
            failure=worker.failure,
        )

    def message(self) -> Message:
        """Return the message to the worker."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Message) -> Boot:
        """Return the object for a message.

        A reload starts workers of the installed version, which the master may not
        have: unknown fields are ignored, and missing ones have their defaults.
        """
        known = {each.name for each in fields(cls)}
        return cls(**{name: message[name] for name in known & message.keys()})
