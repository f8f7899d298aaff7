"""Green `signal` in tasks that are threads, not the main thread."""

from __future__ import annotations

import os
import signal as real_signal

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._parking.waits import set_main_task
from txgreenwsgi._switching.running import current_task
from txgreenwsgi.green import signal

from .clock import TaskClock


class ThreadTests(SynchronousTestCase):
    """Functions that only the main thread may call."""

    def test_in_a_task(self) -> None:
        """In a task they raise ValueError, as in a thread, and change nothing."""
        before = real_signal.getsignal(real_signal.SIGUSR1)
        clock = TaskClock()
        for call in (
            lambda: signal.signal(real_signal.SIGUSR1, real_signal.SIG_IGN),
            lambda: signal.set_wakeup_fd(-1),
        ):
            with self.assertRaisesRegex(ValueError, "only works in main thread"):
                clock.result(call)
        self.assertEqual(real_signal.getsignal(real_signal.SIGUSR1), before)

    def test_in_the_main_thread(self) -> None:
        """Outside tasks they are the originals."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer)
        self.assertEqual(signal.set_wakeup_fd(before), writer)
        os.close(reader)
        os.close(writer)
        handler = signal.signal(real_signal.SIGUSR1, real_signal.SIG_IGN)
        self.assertEqual(
            signal.signal(real_signal.SIGUSR1, handler), real_signal.SIG_IGN
        )

    def test_in_the_main_task(self) -> None:
        """The main task has its own wakeup descriptor; the reactor's stays."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        reactors_reader, reactors = os.pipe()
        os.set_blocking(reactors, False)
        self.addCleanup(os.close, reactors_reader)
        self.addCleanup(os.close, reactors)
        before = real_signal.set_wakeup_fd(reactors)
        self.addCleanup(real_signal.set_wakeup_fd, before)
        self.addCleanup(set_main_task, None)
        called = []

        def program() -> None:
            set_main_task(current_task())
            self.assertEqual(signal.set_wakeup_fd(writer), -1)
            with self.assertRaisesRegex(ValueError, "must be in non-blocking mode"):
                signal.set_wakeup_fd(reader)
            with self.assertRaises(OSError):
                signal.set_wakeup_fd(10_000)
            old = signal.signal(real_signal.SIGUSR1, lambda *args: called.append(args))
            real_signal.raise_signal(real_signal.SIGUSR1)
            signal.signal(real_signal.SIGUSR1, old)
            self.assertEqual(signal.set_wakeup_fd(-1), writer)

        TaskClock().result(program)
        self.assertEqual(len(called), 1)
        number = bytes([real_signal.SIGUSR1])
        self.assertEqual(os.read(reader, 10), number)
        self.assertEqual(os.read(reactors_reader, 10), number)
