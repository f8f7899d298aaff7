"""The message with which a worker starts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.boot import Boot


class BootTests(SynchronousTestCase):
    """`Boot`."""

    def test_message(self) -> None:
        """A worker gets the object that the master has sent."""
        boot = Boot("package.module:name", arguments=["--app=a:b"], listen=["tcp:1"])
        self.assertEqual(Boot.from_message(boot.message()), boot)

    def test_message_of_another_version(self) -> None:
        """Fields that this version does not know, and missing ones, do no harm."""
        message = {"entry": "package.module:name", "slot": 2, "invented_later": True}
        self.assertEqual(
            Boot.from_message(message), Boot("package.module:name", slot=2)
        )
