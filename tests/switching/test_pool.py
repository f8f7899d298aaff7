"""Places, and the queue for them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._switching.pool import Pool


class PoolTests(SynchronousTestCase):
    """At most so many at once."""

    def setUp(self) -> None:
        """Two places, a queue of two."""
        self.pool = Pool(2, 2)
        self.begun: list[str] = []
        self.begin = {name: (lambda n=name: self.begun.append(n)) for name in "abc"}

    def test_places(self) -> None:
        """There are as many places as were given, and no more."""
        taken = [self.pool.take() for _ in range(3)]
        self.assertEqual(taken, [True, True, False])
        self.assertEqual(self.pool.running, 2)

    def test_place_given_back(self) -> None:
        """A place that is given back can be taken again."""
        self.pool.take()
        self.pool.take()
        self.assertIsNone(self.pool.give_back())
        self.assertEqual(self.pool.running, 1)
        self.assertTrue(self.pool.take())

    def test_queue(self) -> None:
        """Who waits gets a place in the order of coming, and its place is taken."""
        self.pool.take()
        self.pool.take()
        self.assertTrue(self.pool.queue(self.begin["a"]))
        self.assertTrue(self.pool.queue(self.begin["b"]))
        self.assertEqual(self.pool.queued, 2)
        for _ in range(2):
            begin = self.pool.give_back()
            assert begin is not None
            begin()
        self.assertEqual(self.begun, ["a", "b"])
        self.assertEqual((self.pool.running, self.pool.queued), (2, 0))
        self.assertFalse(self.pool.take())

    def test_full(self) -> None:
        """A queue that is full refuses."""
        queued = [self.pool.queue(begin) for begin in self.begin.values()]
        self.assertEqual(queued, [True, True, False])
        self.assertFalse(Pool(1, 0).queue(self.begin["a"]))

    def test_leave(self) -> None:
        """Who leaves the queue is not called, and makes room in it."""
        self.pool.take()
        self.pool.queue(self.begin["a"])
        self.pool.queue(self.begin["b"])
        self.assertTrue(self.pool.leave(self.begin["a"]))
        self.assertFalse(self.pool.leave(self.begin["a"]))
        self.assertTrue(self.pool.queue(self.begin["c"]))
        begin = self.pool.give_back()
        assert begin is not None
        begin()
        self.assertEqual(self.begun, ["b"])

    def test_fewer_places(self) -> None:
        """When there are to be fewer places, those that are given back are not used."""
        self.pool.take()
        self.pool.take()
        self.pool.queue(self.begin["a"])
        self.pool.limit = 1
        self.assertIsNone(self.pool.give_back())
        self.assertEqual(self.pool.running, 1)
        self.assertIs(self.pool.give_back(), self.begin["a"])
