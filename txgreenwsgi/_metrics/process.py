"""The metrics of the server of this process.

It knows the parts of metrics and how they are started. It must never know options.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorCore

from txgreenwsgi._switching.greenlets import hub_of

from .meter import RequestMeter
from .sampler import Sampler

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi._serving.application_server import ApplicationServer

    from .families import Numbers

__all__ = ["measure"]


def measure(
    server: ApplicationServer, values: Numbers, reactor: IReactorTime
) -> Sampler:
    """Count the requests of a server, and its state, until the reactor stops.

    Call in the reactor's thread, before the first request.

    Args:
        server: the server.
        values: the numbers, in the layout of `families`, all 0.
        reactor: the reactor of the server.
    """
    hub = hub_of(reactor)
    meter = RequestMeter(values, hub)
    sampler = Sampler(values, server, meter, hub)
    server.metrics = meter
    if IReactorCore.providedBy(reactor):
        reactor.callWhenRunning(sampler.start)
        reactor.addSystemEventTrigger("after", "shutdown", sampler.stop)
    else:
        sampler.start()
    if hasattr(os, "register_at_fork"):

        def leave_to_parent() -> None:
            server.metrics = None

        # The memory belongs to this process alone.
        os.register_at_fork(after_in_child=leave_to_parent)
    return sampler
