"""The counters of messages and close codes of WebSockets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._metrics.families import CLOSE_CODES, OTHER, SIZE
from txgreenwsgi._metrics.meter import MessageMeter

from .sums import series_by_label

MESSAGES = "txgreenwsgi_websocket_messages_total"
BYTES = "txgreenwsgi_websocket_message_bytes_total"
CLOSES = "txgreenwsgi_websocket_closes_total"


class MessageMeterTests(SynchronousTestCase):
    """Counts between two publications."""

    def setUp(self) -> None:
        """Make the numbers of a process."""
        self.values = [0.0] * SIZE
        self.meter = MessageMeter(self.values)

    def test_publish(self) -> None:
        """Each call of `publish` adds what was counted since the last one."""
        self.meter.publish()
        self.assertEqual(set(self.values), {0.0})
        for number in (1, 2):
            self.meter.received += 3
            self.meter.received_bytes += 500
            self.meter.sent += 1
            self.meter.sent_bytes += 7
            self.meter.closed(1000)
            for _ in range(2):
                self.meter.publish()
                self.assertEqual(
                    [
                        series_by_label(self.values, name)
                        for name in (MESSAGES, BYTES, CLOSES)
                    ],
                    [
                        {"received": 3 * number, "sent": number},
                        {"received": 500 * number, "sent": 7 * number},
                        {"1000": number},
                    ],
                )

    def test_empty_messages(self) -> None:
        """Messages without content are counted."""
        self.meter.received += 1
        self.meter.sent += 1
        self.meter.publish()
        self.assertEqual(
            series_by_label(self.values, MESSAGES), {"received": 1, "sent": 1}
        )
        self.assertEqual(series_by_label(self.values, BYTES), {})

    def test_codes(self) -> None:
        """Codes of RFC 6455 have series of their own, others share one."""
        for code, label in (
            *((code, str(code)) for code in range(1000, 1016)),
            *((3000, "3xxx"), (3999, "3xxx"), (4000, "4xxx"), (4999, "4xxx")),
            *((0, OTHER), (999, OTHER), (1016, OTHER), (2999, OTHER), (5000, OTHER)),
            *((65535, OTHER), (-1, OTHER)),
        ):
            before = series_by_label(self.values, CLOSES).get(label, 0)
            self.meter.closed(code)
            self.meter.publish()
            found = series_by_label(self.values, CLOSES)
            self.assertEqual(found[label], before + 1, code)
        self.assertEqual(set(found), set(CLOSE_CODES))
