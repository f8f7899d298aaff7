"""Renewed certificates: when they are noticed, and what is logged."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from tests.certificate import DAY
from tests.server.logged import Logged
from txgreenwsgi._tls.renewal import CHECK_SECONDS, SETTLE_SECONDS, Renewal

from .handshakes import client_context, listener, shake
from .test_certificates import CA, INTERMEDIATE, FilesTestCase


class RenewalTests(FilesTestCase):
    """`Renewal` of one certificate."""

    def setUp(self) -> None:
        """Start to watch it."""
        super().setUp()
        self.old = INTERMEDIATE.issue("shop.test")
        self.cert, self.key = self.old.write(self.directory)
        self.clock = Clock()
        self.tls = listener(self.clock, cert=self.cert, key=self.key)
        self.renewal = Renewal(self.tls, self.clock)
        self.renewal.start()
        self.addCleanup(self.renewal.stop)
        self.logged = Logged(self)

    def served(self) -> int:
        """Return the serial number of the certificate in use."""
        found = shake(self.tls, "shop.test", client_context(CA))
        return int(str(found.client.getpeercert()["serialNumber"]), 16)  # type: ignore[index]

    def wait(self, seconds: float = CHECK_SECONDS + SETTLE_SECONDS) -> None:
        """Let time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)

    def test_renewed(self) -> None:
        """A renewed certificate is used for new connections, and logged."""
        before = shake(self.tls, "shop.test")
        new = INTERMEDIATE.issue("shop.test")
        new.write(self.directory)
        self.wait()
        self.assertEqual(self.served(), new.certificate.serial_number)
        [line] = self.logged.lines()
        day = new.certificate.not_valid_after_utc
        self.assertEqual(
            line,
            f"TLS certificate renewed: shop.test, expires {day:%Y-%m-%d}, from "
            f"{self.cert}",
        )
        before.server.send(b"still open")

    def test_directory(self) -> None:
        """Only what has changed is logged: renewed, unusable and removed files."""
        folder = self.directory / "several"
        folder.mkdir()
        issued = {name: INTERMEDIATE.issue(f"{name}.test") for name in "abcd"}
        for name, each in issued.items():
            (folder / f"{name}.pem").write_bytes(each.chain_pem + each.key_pem)
        tls = listener(self.clock, dir=str(folder))
        renewal = Renewal(tls, self.clock)
        renewal.start()
        self.addCleanup(renewal.stop)
        new = INTERMEDIATE.issue("b.test")
        (folder / "b.pem").write_bytes(new.chain_pem + new.key_pem)
        (folder / "c.pem").write_bytes(issued["c"].chain_pem[:-60])
        (folder / "d.pem").unlink()
        self.wait()
        lines = self.logged.lines()
        self.assertEqual(len(lines), 4, lines)
        self.assertIn("TLS certificate renewed: b.test, expires", lines[0])
        self.assertEqual(lines[1], "TLS: no certificate any more: d.test")
        self.assertIn("c.pem is truncated: an END line is missing", lines[2])
        self.assertIn("keeping the old certificate of c.test", lines[3])
        (folder / "a.pem").unlink()
        self.wait()
        self.assertEqual(
            self.logged.lines()[-1:], ["TLS: no certificate any more: a.test"]
        )

    def test_unchanged(self) -> None:
        """Without a change nothing is read and nothing is logged."""
        self.patch(self.tls, "load", lambda: self.fail("read again"))
        self.wait(100)
        self.assertEqual(self.logged.lines(), [])

    def test_settles(self) -> None:
        """Files that still change are not read: the key may come last."""
        new = INTERMEDIATE.issue("shop.test")
        self.write("site.crt", new.chain_pem)
        self.wait(CHECK_SECONDS)
        self.write("site.key", new.key_pem)
        self.wait(2 * SETTLE_SECONDS)
        self.assertEqual(self.served(), new.certificate.serial_number)
        self.assertEqual(len(self.logged.lines()), 1)

    def test_invalid(self) -> None:
        """An invalid certificate is rejected with one line, and the old one kept."""
        self.write("site.key", INTERMEDIATE.issue("shop.test").key_pem)
        self.wait(100)
        self.assertEqual(self.served(), self.old.certificate.serial_number)
        [line] = self.logged.lines()
        self.assertIn("TLS certificates are not renewed: --tls-key", line)
        self.assertIn("is not the private key of the certificate", line)
        day = self.old.certificate.not_valid_after_utc
        self.assertIn(f"the old ones stay in use, until {day:%Y-%m-%d}", line)

    def test_corrected(self) -> None:
        """A corrected certificate is used."""
        self.write("site.crt", b"nonsense")
        self.wait()
        new = INTERMEDIATE.issue("shop.test")
        new.write(self.directory)
        self.wait()
        self.assertEqual(self.served(), new.certificate.serial_number)
        self.assertEqual(len(self.logged.lines()), 2)

    def test_restored(self) -> None:
        """If the old files come back, that is logged too."""
        self.write("site.crt", b"nonsense")
        self.wait()
        self.old.write(self.directory)
        self.wait()
        self.assertEqual(
            self.logged.lines()[1:],
            ["TLS certificates can be read again, and are unchanged"],
        )

    def test_expired(self) -> None:
        """A certificate that has expired does not replace a valid one."""
        INTERMEDIATE.issue("shop.test", lifetime=-DAY).write(self.directory)
        self.wait()
        self.assertEqual(self.served(), self.old.certificate.serial_number)
        self.assertIn("keeping the old certificate", "\n".join(self.logged.lines()))

    def test_replaced_by_renaming(self) -> None:
        """A file that another one replaces has changed, whatever its time and size."""
        new = INTERMEDIATE.issue("shop.test")
        for name, content in (("site.crt", new.chain_pem), ("site.key", new.key_pem)):
            path = self.directory / name
            before = path.stat()
            other = self.write("other", content)
            os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.rename(other, path)
        self.wait()
        self.assertEqual(self.served(), new.certificate.serial_number)

    def test_unreadable(self) -> None:
        """A file that cannot be read is tried again, without another line."""
        os.rename(self.key, f"{self.key}.bak")
        self.wait(100)
        [line] = self.logged.lines()
        self.assertIn("cannot be read (No such file or directory)", line)
        self.assertNotIn("changed its user", line)
        os.rename(f"{self.key}.bak", self.key)
        self.wait()
        [line] = self.logged.lines()
        self.assertIn("can be read again", line)

    def test_read_again(self) -> None:
        """On demand, the files are read at once, and the result is logged."""
        self.renewal.read_again()
        self.assertEqual(self.logged.lines(), ["TLS certificates are unchanged"])
        new = INTERMEDIATE.issue("shop.test")
        new.write(self.directory)
        self.renewal.read_again()
        self.assertEqual(self.served(), new.certificate.serial_number)
        [line] = self.logged.lines()
        self.assertIn("TLS certificate renewed: shop.test", line)
        self.write("site.crt", b"nonsense")
        for _ in range(2):
            self.renewal.read_again()
            [line] = self.logged.lines()
            self.assertIn("TLS certificates are not renewed", line)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_stopped(self) -> None:
        """After a stop, nothing is left on the clock."""
        self.renewal.stop()
        self.renewal.read_again()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_changed_user(self) -> None:
        """After a change of user, an unreadable key is reported at once."""
        self.renewal.stop()
        renewal = Renewal(self.tls, self.clock)
        self.addCleanup(renewal.stop)
        user = os.geteuid()
        self.patch(os, "geteuid", lambda: user + 1)
        os.rename(self.key, f"{self.key}.bak")
        renewal.start()
        [line] = self.logged.lines()
        self.assertIn("The process has changed its user since its start", line)
        self.wait(100)
        self.assertEqual(self.logged.lines(), [])

    def test_changed_user_that_may_read(self) -> None:
        """After a change of user, nothing is logged if the files are readable."""
        self.renewal.stop()
        renewal = Renewal(self.tls, self.clock)
        self.addCleanup(renewal.stop)
        user = os.geteuid()
        self.patch(os, "geteuid", lambda: user + 1)
        renewal.start()
        self.assertEqual(self.logged.lines(), [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_expiry(self) -> None:
        """A certificate that is about to expire is logged once a day."""
        INTERMEDIATE.issue("shop.test", age=80 * DAY, lifetime=2 * DAY).write(
            self.directory
        )
        self.wait()
        self.logged.lines()
        for _ in range(3):
            self.clock.advance(24 * 3600)
        lines = self.logged.lines()
        self.assertEqual(len(lines), 3)
        self.assertIn("TLS: the certificate of shop.test", lines[0])

    def test_bug(self) -> None:
        """An unexpected error is logged, and the files are looked at again."""
        self.patch(self.tls, "load", lambda: 1 / 0)
        INTERMEDIATE.issue("shop.test").write(self.directory)
        self.wait()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class ThreadedClock(Clock):
    """A clock with a thread pool, whose calls end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        directlyProvides(self, IReactorThreads, IReactorTime)
        self.calls_in_threads: list[tuple[Any, Any]] = []

    def getThreadPool(self) -> ThreadedClock:
        """Return an object with the method of a thread pool."""
        return self

    def callInThreadWithCallback(self, then: Any, function: Any) -> None:
        """Take a call."""
        self.calls_in_threads.append((then, function))

    def callFromThread(self, function: Any, *args: Any) -> None:
        """Call it now."""
        function(*args)

    def end_call(self) -> None:
        """Make the oldest call that was taken."""
        then, function = self.calls_in_threads.pop(0)
        then(True, function())


class ThreadTests(FilesTestCase):
    """The files are read in a thread."""

    def setUp(self) -> None:
        """Start to watch a certificate."""
        super().setUp()
        cert, key = INTERMEDIATE.issue("shop.test").write(self.directory)
        self.clock = ThreadedClock()
        self.tls = listener(self.clock, cert=cert, key=key)
        self.renewal = Renewal(self.tls, self.clock)
        self.renewal.start()
        self.logged = Logged(self)

    def test_thread(self) -> None:
        """A look is made in a thread, and the next one is due when it has ended."""
        self.clock.advance(CHECK_SECONDS)
        self.assertEqual(len(self.clock.calls_in_threads), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.end_call()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_asked_meanwhile(self) -> None:
        """If reading is demanded during a look, the files are read after it."""
        self.clock.advance(CHECK_SECONDS)
        for _ in range(50):
            self.renewal.read_again()
        self.assertEqual(len(self.clock.calls_in_threads), 1)
        self.clock.end_call()
        self.clock.end_call()
        self.assertEqual(self.logged.lines(), ["TLS certificates are unchanged"])
        self.assertEqual(self.clock.calls_in_threads, [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_stopped_meanwhile(self) -> None:
        """The result of a look that ends after the stop is ignored."""
        self.clock.advance(CHECK_SECONDS)
        self.renewal.stop()
        self.clock.end_call()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_after_the_stop(self) -> None:
        """So is its failure."""
        self.renewal.read_again()
        self.renewal.stop()
        then, _ = self.clock.calls_in_threads.pop()
        failed: Deferred[None] = Deferred()
        failed.addErrback(lambda failure: then(False, failure))
        failed.errback(ZeroDivisionError())
        self.assertEqual(self.logged.lines(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
