"""The reasons for which a process must not be forked."""

from __future__ import annotations

import os
import socket
import sys
import threading
from types import ModuleType
from typing import Any

from greenlet import getcurrent, greenlet
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._launch import forkable
from txgreenwsgi._launch.forkable import connections, obstacle, reactor_importers


class ObstacleTests(SynchronousTestCase):
    """`obstacle`, in a process without a reactor and other threads."""

    def setUp(self) -> None:
        """Hide the reactor, the threads and the greenlets of the test runner."""
        self.modules = dict(sys.modules)
        self.modules.pop("twisted.internet.reactor", None)
        self.patch(sys, "modules", self.modules)
        self.known = set(sys._current_frames())
        self.patch(
            sys,
            "_current_frames",
            lambda frames=sys._current_frames: {
                ident: frame
                for ident, frame in frames().items()
                if ident not in self.known
            },
        )
        found = forkable.live_greenlets
        # By identity: what repr tells of a greenlet changes when its thread ends.
        self.others = found()
        others = {id(each) for each in self.others}
        self.patch(
            forkable,
            "live_greenlets",
            lambda: [each for each in found() if id(each) not in others],
        )

    def test_none(self) -> None:
        """Without a reason, the text is empty."""
        self.assertEqual(obstacle(), "")

    def test_reactor(self) -> None:
        """A reactor, and the modules of the application that have it."""
        reactor = ModuleType("twisted.internet.reactor")
        self.modules["twisted.internet.reactor"] = reactor
        self.assertEqual(reactor_importers(), [])
        for name in ("shop", "shop.views", "twisted.web.client"):
            self.modules[name] = ModuleType(name)
            self.modules[name].reactor = reactor  # type: ignore[attr-defined]
        self.assertEqual(reactor_importers(), ["shop", "shop.views"])
        self.assertIn("was imported by shop, shop.views:", obstacle())

    def test_thread(self) -> None:
        """A thread, by its name."""
        end = threading.Event()
        begun = threading.Event()

        def run() -> None:
            begun.set()
            end.wait()

        thread = threading.Thread(target=run, name="poller")
        thread.start()
        try:
            begun.wait()
            self.assertIn("threads are running (poller):", obstacle())
        finally:
            end.set()
            thread.join()
        self.assertEqual(obstacle(), "")

    def test_greenlet(self) -> None:
        """A greenlet that has begun and not ended."""
        waiting = greenlet(getcurrent().switch)
        self.assertEqual(obstacle(), "")
        waiting.switch()
        self.assertIn("greenlets are alive (<greenlet", obstacle())
        waiting.switch()
        self.assertEqual(obstacle(), "")

    def test_greenlet_of_ended_thread(self) -> None:
        """A greenlet that was suspended when its thread ended cannot continue."""
        waiting: list[greenlet] = []

        def run() -> None:
            waiting.append(greenlet(getcurrent().switch))
            waiting[0].switch()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        self.assertEqual(obstacle(), "")

    def test_lazy_objects(self) -> None:
        """Objects that load themselves at the first use are left alone."""

        class Lazy:
            def __getattribute__(self, name: str) -> Any:
                raise AssertionError(name)

        self.lazy = Lazy()
        self.assertEqual(obstacle(), "")


class ConnectionTests(SynchronousTestCase):
    """`connections`."""

    def test_connections(self) -> None:
        """Connected stream sockets, by their peer; neither others nor the own ones."""
        own = {int(name) for name in os.listdir("/proc/self/fd")}
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        address = listening.getsockname()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(datagrams.close)
        datagrams.connect(address)
        self.assertEqual(connections(own), [])
        connected = socket.create_connection(address)
        self.addCleanup(connected.close)
        self.assertEqual(connections(own), [f"127.0.0.1:{address[1]}"])
        pair = socket.socketpair()
        for each in pair:
            self.addCleanup(each.close)
        self.assertEqual(
            connections(own), [f"127.0.0.1:{address[1]}", *["a UNIX socket"] * 2]
        )
