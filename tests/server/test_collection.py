"""Garbage collection: what is frozen, and when."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server import collection
from txgreenwsgi._server.collection import FREEZES, PAUSE_SECONDS, Freezer


class Node:
    """An object in a cycle."""

    def __init__(self) -> None:
        self.itself = self


class FreezerTests(SynchronousTestCase):
    """A freezer with a clock of its own."""

    def setUp(self) -> None:
        """Let collections last as long as the test says."""
        # Services of other tests that were not stopped.
        self.patch(collection, "started", set())
        gc.unfreeze()
        self.addCleanup(gc.unfreeze)
        self.now = 0.0
        self.pause = 0.0
        self.patch(collection, "perf_counter", self.read_clock)
        self.freezer = Freezer()
        self.addCleanup(self.freezer.stop)

    def read_clock(self) -> float:
        """Return the time; each reading is one pause later than the last."""
        self.now += self.pause
        return self.now

    def test_application(self) -> None:
        """Garbage is collected first, and all other objects are frozen."""
        node = Node()
        garbage = weakref.ref(node)
        del node
        kept = Node()
        self.freezer.start()
        self.assertIsNone(garbage())
        frozen = gc.get_freeze_count()
        self.assertGreater(frozen, 1000)
        self.assertNotIn(id(kept), {id(found) for found in gc.get_objects()})
        self.assertEqual(gc.get_threshold(), self.thresholds_before)

    thresholds_before = gc.get_threshold()

    def test_later_garbage(self) -> None:
        """Objects created later are collected as before."""
        self.freezer.start()
        node = Node()
        garbage = weakref.ref(node)
        del node
        gc.collect()
        self.assertIsNone(garbage())

    def test_slow_collection(self) -> None:
        """The survivors of a slow full collection are frozen."""
        self.freezer.start()
        kept = [Node() for _ in range(1000)]
        frozen = gc.get_freeze_count()
        gc.collect()  # fast
        gc.collect(1)
        self.assertEqual(gc.get_freeze_count(), frozen)
        self.pause = PAUSE_SECONDS * 2
        gc.collect(1)
        self.assertEqual(gc.get_freeze_count(), frozen)
        gc.collect()
        self.assertGreaterEqual(gc.get_freeze_count(), frozen + len(kept))

    def test_limit(self) -> None:
        """After some of these freezes, nothing more is frozen."""
        self.freezer.start()
        self.pause = PAUSE_SECONDS * 2
        counts = []
        nodes = []
        for _ in range(FREEZES + 2):
            nodes.append(Node())
            gc.collect()
            counts.append(gc.get_freeze_count())
        self.assertEqual(len(set(counts)), FREEZES)
        self.assertEqual(counts[-1], counts[-3])

    def test_stop(self) -> None:
        """When the server stops, everything is as before; a restart freezes again."""
        callbacks = len(gc.callbacks)
        for _ in range(2):
            self.freezer.start()
            self.freezer.start()
            self.assertEqual(len(gc.callbacks), callbacks + 1)
            self.freezer.stop()
            self.freezer.stop()
            self.assertEqual(len(gc.callbacks), callbacks)
            self.assertEqual(gc.get_freeze_count(), 0)

    def test_two_services(self) -> None:
        """The last service that stops returns the objects to the collector."""
        other = Freezer()
        self.freezer.start()
        other.start()
        self.freezer.stop()
        self.assertGreater(gc.get_freeze_count(), 0)
        other.stop()
        self.assertEqual(gc.get_freeze_count(), 0)

    def test_frozen_before(self) -> None:
        """Objects that the program has frozen itself remain frozen."""
        gc.freeze()
        self.freezer.start()
        self.freezer.stop()
        self.assertGreater(gc.get_freeze_count(), 0)
