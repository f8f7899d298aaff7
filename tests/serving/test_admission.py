"""`AdmissionQueue`: slots for running requests, and the queue behind them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving.admission import AdmissionQueue


class AdmissionQueueTests(SynchronousTestCase):
    """A bounded number run, a bounded number wait."""

    def setUp(self) -> None:
        """Two slots, a queue of two."""
        self.admission: AdmissionQueue[str] = AdmissionQueue(2, 2)

    def fill(self) -> None:
        """Take both slots."""
        self.admission.acquire()
        self.admission.acquire()

    def test_slots(self) -> None:
        """No more slots are given than the limit."""
        taken = [self.admission.acquire() for _ in range(3)]
        self.assertEqual(taken, [True, True, False])
        self.assertEqual(self.admission.running, 2)

    def test_slot_released(self) -> None:
        """A released slot can be acquired again."""
        self.fill()
        self.assertIsNone(self.admission.release())
        self.assertEqual(self.admission.running, 1)
        self.assertTrue(self.admission.acquire())

    def test_queue(self) -> None:
        """Released slots pass to the queue in the order of arrival."""
        self.fill()
        self.assertTrue(self.admission.enqueue("a"))
        self.assertTrue(self.admission.enqueue("b"))
        self.assertEqual(self.admission.queued, 2)
        admitted = [self.admission.release(), self.admission.release()]
        self.assertEqual(admitted, ["a", "b"])
        self.assertEqual((self.admission.running, self.admission.queued), (2, 0))
        self.assertFalse(self.admission.acquire())

    def test_full(self) -> None:
        """A full queue refuses further requests."""
        queued = [self.admission.enqueue(name) for name in "abc"]
        self.assertEqual(queued, [True, True, False])
        self.assertFalse(AdmissionQueue[str](1, 0).enqueue("a"))

    def test_removed(self) -> None:
        """A removed request gets no slot, and makes room in the queue."""
        self.fill()
        self.admission.enqueue("a")
        self.admission.enqueue("b")
        self.assertTrue(self.admission.remove("a"))
        self.assertFalse(self.admission.remove("a"))
        self.assertTrue(self.admission.enqueue("c"))
        self.assertEqual(self.admission.release(), "b")

    def test_lower_limit(self) -> None:
        """After the limit was lowered, excess slots are not passed on."""
        self.fill()
        self.admission.enqueue("a")
        self.admission.limit = 1
        self.assertIsNone(self.admission.release())
        self.assertEqual(self.admission.running, 1)
        self.assertEqual(self.admission.release(), "a")
