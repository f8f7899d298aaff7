"""The signals at which a process writes its stacks. None is sent."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.memory_files import StacksFile
from txgreenwsgi._workers.process import FORCE_SECONDS, Stacks
from txgreenwsgi._workers.questions import STACKS_SECONDS
from txgreenwsgi._workers.stacks import FORCED_STACKS_SIGNAL, STACKS_SIGNAL


class StacksTests(SynchronousTestCase):
    """A process that the test plays."""

    def setUp(self) -> None:
        """Record the signals."""
        self.clock = Clock()
        self.file = StacksFile()
        self.sent: list[int] = []
        self.stacks = Stacks(self.file, self.clock, self.sent.append)

    def test_written(self) -> None:
        """A process that runs Python code gets one signal."""
        self.stacks.begin()
        os.write(self.file.fd, b"a stack")
        self.clock.advance(STACKS_SECONDS)
        self.assertEqual(self.stacks.read(), "a stack")
        self.assertEqual(self.sent, [STACKS_SIGNAL])
        self.stacks.close()

    def test_forced(self) -> None:
        """A process that C code blocks gets a second one, in time for the answer."""
        self.assertLess(FORCE_SECONDS, STACKS_SECONDS)
        self.stacks.begin()
        self.clock.advance(FORCE_SECONDS)
        self.assertEqual(self.sent, [STACKS_SIGNAL, FORCED_STACKS_SIGNAL])
        self.stacks.close()

    def test_again(self) -> None:
        """A second question begins from scratch."""
        self.stacks.begin()
        os.write(self.file.fd, b"a stack")
        self.clock.advance(FORCE_SECONDS / 2)
        self.stacks.begin()
        self.assertEqual(self.stacks.read(), "")
        self.clock.advance(FORCE_SECONDS / 2)
        self.assertEqual(self.sent, [STACKS_SIGNAL] * 2)
        self.stacks.close()

    def test_ended(self) -> None:
        """A process that has ended gets no signal."""
        self.stacks.begin()
        self.stacks.close()
        self.stacks.begin()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.sent, self.stacks.read()), ([STACKS_SIGNAL], ""))
