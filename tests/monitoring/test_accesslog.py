"""The access log: what a line holds, and what happens to its file."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi.monitoring.accesslog import AccessLog, combined, json_line
from txgreenwsgi.monitoring.records import OUTCOMES, ExchangeRecord

# 22 November 2026, 09:24:03.25 UTC
STARTED = 1795339443.25


@implementer(ILogObserver)
class Events(list[LogEvent]):
    """What was logged, in order."""

    def __call__(self, event: LogEvent) -> None:
        """Take note of one event."""
        self.append(event)


def record(**changed: Any) -> ExchangeRecord:
    """What is known of an ordinary request, but for what is given."""
    fields: dict[str, Any] = {
        "remote_addr": "192.0.2.1",
        "remote_port": "4321",
        "started": STARTED,
        "duration": 0.0123456,
        "method": "GET",
        "target": "/a?b=c%20d",
        "version": "HTTP/1.1",
        "status": 200,
        "bytes_sent": 512,
        "request_id": "4f2a",
        "referer": "http://example.net/",
        "user_agent": "Browser/1 (X; Y)",
        "outcome": "finished",
    }
    return ExchangeRecord(**{**fields, **changed})


class RecordTests(SynchronousTestCase):
    """The record that observers are given."""

    def test_told_in_one_line(self) -> None:
        """A record in a log or in a debugger tells which request it was."""
        self.assertEqual(
            repr(record(target="/\n")),
            "<ExchangeRecord 4f2a GET '/\\n' 200 finished>",
        )

    def test_every_outcome_can_be_logged(self) -> None:
        """Whatever way a request ends, the JSON log says which."""
        for outcome in OUTCOMES:
            line = json.loads(json_line(record(outcome=outcome)))
            self.assertEqual(line["outcome"], outcome)


class CombinedTests(SynchronousTestCase):
    """Apache's format."""

    def test_line(self) -> None:
        """A line is Apache's combined, then the seconds taken and the id."""
        self.assertEqual(
            combined(record()),
            "192.0.2.1 - - [22/Nov/2026:09:24:03 +0000] "
            '"GET /a?b=c%20d HTTP/1.1" 200 512 "http://example.net/" '
            '"Browser/1 (X; Y)" 0.012346 4f2a\n',
        )

    def test_what_is_missing(self) -> None:
        """What there is nothing of is a hyphen, as Apache has it."""
        self.assertEqual(
            combined(
                record(
                    remote_addr="",
                    method="",
                    target="",
                    version="",
                    status=400,
                    bytes_sent=0,
                    request_id="",
                    referer="",
                    user_agent="",
                )
            ),
            '- - - [22/Nov/2026:09:24:03 +0000] "-" 400 - "-" "-" 0.012346 -\n',
        )

    def test_nothing_sent(self) -> None:
        """A request that got no answer has the status 000."""
        self.assertIn('" 000 - "', combined(record(status=0, bytes_sent=0)))

    def test_nobody_can_forge_a_line(self) -> None:
        """Whatever a client sends stays inside of its quotes, on its line."""
        for evil, escaped in [
            ('a" 200 1 "', 'a\\" 200 1 \\"'),
            ("a\\", "a\\\\"),
            ("a\nb", "a\\x0ab"),
            ("a\r\nb", "a\\x0d\\x0ab"),
            ("a\0b\x1b[2Jc\x7f", "a\\x00b\\x1b[2Jc\\x7f"),
            ("caf\xe9\x85\u2028", "caf\\xe9\\x85\\u2028"),
        ]:
            for name in ("referer", "user_agent"):
                line = combined(record(**{name: evil}))
                self.assertIn(f'"{escaped}"', line)
                self.assertEqual(len(line.splitlines()), 1)
            self.assertIn(f'"GET /{escaped} HTTP', combined(record(target="/" + evil)))

    def test_nobody_can_forge_a_field(self) -> None:
        """Outside of quotes a space cannot begin another field."""
        line = combined(record(remote_addr="1 - -", request_id="x\ty z"))
        self.assertTrue(line.startswith("1\\x20-\\x20- - - ["))
        self.assertTrue(line.endswith(" x\\x09y\\x20z\n"))


class JSONTests(SynchronousTestCase):
    """One JSON object a line."""

    def test_line(self) -> None:
        """Every field is there by its name, and the time is ISO 8601 in UTC."""
        self.assertEqual(
            json.loads(json_line(record())),
            {
                "time": "2026-11-22T09:24:03.250Z",
                "request_id": "4f2a",
                "remote_addr": "192.0.2.1",
                "remote_port": "4321",
                "method": "GET",
                "target": "/a?b=c%20d",
                "version": "HTTP/1.1",
                "status": 200,
                "bytes_sent": 512,
                "duration": 0.012346,
                "outcome": "finished",
                "referer": "http://example.net/",
                "user_agent": "Browser/1 (X; Y)",
            },
        )

    def test_nobody_can_forge_a_line(self) -> None:
        """Whatever a client sends comes out as it was, from one line."""
        evil = 'a"},\r\n{"status": 1}\0\x85\u2028\xff\\'
        line = json_line(record(user_agent=evil, target=evil))
        self.assertTrue(line.isascii())
        self.assertEqual(line.count("\n"), 1)
        self.assertEqual(json.loads(line)["user_agent"], evil)

    def test_the_last_millisecond(self) -> None:
        """A time just before a full second is rounded into the next one."""
        line = json.loads(json_line(record(started=1795339443.9996)))
        self.assertEqual(line["time"], "2026-11-22T09:24:04.000Z")


class AccessLogTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        """A log that writes to a new file when the clock is turned."""
        self.clock = Clock()
        self.path = self.mktemp()
        self.events = Events()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.log = AccessLog(self.path)

    def start(self) -> None:
        """Open the log's file."""
        self.log.open(self.clock)
        self.addCleanup(self.log.close)

    def write(self, *ids: str) -> None:
        """Tell of requests that end within one turn, and turn the reactor."""
        for request_id in ids:
            self.log.observe(record(request_id=request_id))
        self.clock.advance(0)

    def ids(self, path: str = "") -> list[str]:
        """The request ids of a file's lines."""
        with open(path or self.path) as lines:
            return [line.split()[-1] for line in lines]

    def told(self) -> list[str]:
        """What the log of the process was told, at which level."""
        told = [
            f"{event['log_level'].name}: {formatEvent(event)}".replace(
                os.path.abspath(self.path), "FILE"
            )
            for event in self.events
            if event["log_level"] >= LogLevel.info
            and "accesslog" in event["log_namespace"]
        ]
        self.events.clear()
        return told

    def test_unknown_format(self) -> None:
        """A format there is not is refused with those there are."""
        error = self.assertRaises(ValueError, AccessLog, "x", "common")
        self.assertEqual(
            str(error),
            "there is no access log format 'common': give combined or json",
        )

    def test_one_write_a_turn(self) -> None:
        """All that ends within one turn of the reactor is written at once."""
        self.start()
        sizes: list[int] = []
        real_write = os.write

        def write(fd: int, data: bytes) -> int:
            sizes.append(len(data))
            return real_write(fd, data)

        self.patch(os, "write", write)
        for request_id in ("a", "b", "c"):
            self.log.observe(record(request_id=request_id))
        self.assertEqual(self.ids(), [])
        self.clock.advance(0)
        self.assertEqual(self.ids(), ["a", "b", "c"])
        self.assertEqual(len(sizes), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_appends(self) -> None:
        """What is in the file already stays there."""
        for request_id in ("a", "b"):
            log = AccessLog(self.path)
            log.open(self.clock)
            log.observe(record(request_id=request_id))
            log.close()
        self.assertEqual(self.ids(), ["a", "b"])

    def test_nothing_is_left_behind(self) -> None:
        """Closing writes what has not been written yet."""
        self.start()
        self.log.observe(record(request_id="last"))
        self.log.close()
        self.assertEqual(self.ids(), ["last"])
        self.clock.advance(0)
        self.assertEqual(self.ids(), ["last"])

    def test_before_and_after(self) -> None:
        """Requests that end while the log is not open are no trouble."""
        self.log.observe(record())
        self.log.close()
        self.start()
        self.log.close()
        self.log.observe(record())
        self.clock.advance(0)
        self.log.close()
        self.assertEqual(self.ids(), [])

    def test_rotated(self) -> None:
        """After the file was moved away, lines go to a new one of its name."""
        self.start()
        self.write("before")
        os.rename(self.path, self.path + ".1")
        self.write("after")
        self.write("later")
        self.assertEqual(self.ids(self.path + ".1"), ["before"])
        self.assertEqual(self.ids(), ["after", "later"])
        self.assertEqual(self.told(), [])

    def test_rotated_by_another(self) -> None:
        """A new file that somebody else made in its place is used."""
        self.start()
        self.write("before")
        os.rename(self.path, self.path + ".1")
        with open(self.path, "w"):
            pass
        self.write("after")
        self.assertEqual(self.ids(), ["after"])

    def test_truncated_in_place(self) -> None:
        """A file that is copied and truncated (copytruncate) has no hole."""
        self.start()
        self.write("before")
        os.truncate(self.path, 0)
        self.write("after")
        self.assertEqual(self.ids(), ["after"])

    def test_files_are_closed(self) -> None:
        """A hundred rotations leave one file open, and a stop leaves none."""
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
        self.start()
        for number in range(100):
            self.write(str(number))
            os.unlink(self.path)
        self.write("last")
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before + 1)
        self.log.close()
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.ids(), ["last"])

    def test_relative_path(self) -> None:
        """A rotated file is found again after the process changed directory."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.mkdir(self.path)
        os.chdir(self.path)
        log = AccessLog("access.log")
        log.open(self.clock)
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        os.unlink("../access.log")
        log.observe(record(request_id="a"))
        log.close()
        self.assertEqual(self.ids("../access.log"), ["a"])

    def test_cannot_be_opened(self) -> None:
        """A log that cannot be opened at the start is an error there."""
        log = AccessLog(os.path.join(self.path, "nowhere", "log"))
        self.assertRaises(FileNotFoundError, log.open, self.clock)

    def test_cannot_be_opened_anew(self) -> None:
        """If the new file cannot be opened the old one gets the lines."""
        directory = self.path
        os.mkdir(directory)
        self.path = os.path.join(directory, "log")
        self.log = AccessLog(self.path)
        self.start()
        self.write("before")
        os.rename(directory, directory + ".1")
        old = os.path.join(directory + ".1", "log")
        self.write("during")
        self.write("still")
        self.assertEqual(self.ids(old), ["before", "during", "still"])
        [told] = self.told()
        self.assertTrue(told.startswith("error: Access log: FILE was moved away"))
        os.mkdir(directory)
        self.write("after")
        self.assertEqual(self.ids(), ["after"])
        self.assertEqual(self.told(), ["info: Access log: FILE is open again"])

    def test_full_disk(self) -> None:
        """A full disk is told of once, and then how many lines it cost."""
        if not os.path.exists("/dev/full"):
            self.fail("this test needs /dev/full, which Linux and the BSDs have")
        os.symlink("/dev/full", self.path)
        self.start()
        self.write("a", "b")
        self.write("c")
        self.assertEqual(
            self.told(),
            [
                "error: Access log: FILE cannot be written ([Errno 28] No space "
                "left on device); lines are lost until it can"
            ],
        )
        os.unlink(self.path)
        self.write("d")
        self.assertEqual(self.ids(), ["d"])
        self.assertEqual(
            self.told(), ["error: Access log: 3 lines were lost from FILE"]
        )
        self.write("e")
        self.assertEqual(self.told(), [])

    def test_full_to_the_end(self) -> None:
        """Lines that are lost when the server stops are told of, too."""
        os.symlink("/dev/full", self.path)
        self.start()
        self.write("a")
        self.told()
        self.log.observe(record())
        self.log.close()
        self.assertEqual(
            self.told(), ["error: Access log: 2 lines were lost from FILE"]
        )

    def test_disk_full_in_the_middle(self) -> None:
        """A line that was cut off does not spoil the next one."""
        self.start()
        line = len(combined(record(request_id="a")))
        room = [line + 10]  # for one line, and the beginning of another
        real_write = os.write

        def write(fd: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real_write(fd, data[: room[0]])
            room[0] -= written
            return written

        self.patch(os, "write", write)
        self.write("a", "b", "c")
        self.told()
        room[0] = 1  # for the end of the line that was cut off
        self.write("d")
        self.write("e")
        room[0] = 10000
        self.write("f", "g")
        with open(self.path) as file:
            lines = file.read().split("\n")
        self.assertEqual(
            [line[-2:] for line in lines if line.endswith(" " + line[-1:])],
            [" a", " f", " g"],
        )
        self.assertEqual(lines[1], combined(record())[:10])
        self.assertEqual(
            self.told(), ["error: Access log: 4 lines were lost from FILE"]
        )

    def test_standard_output(self) -> None:
        """A hyphen is the process's standard output, which is not closed."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        real_write, real_close = os.write, os.close
        self.addCleanup(real_close, writing)
        closed: list[int] = []

        def write(fd: int, data: bytes) -> int:
            self.assertEqual(fd, 1)
            return real_write(writing, data)

        self.patch(os, "write", write)
        self.patch(os, "close", closed.append)
        log = AccessLog("-", "json")
        log.open(self.clock)
        log.observe(record())
        log.close()
        self.assertEqual(closed, [])
        self.assertEqual(json.loads(os.read(reading, 10000))["request_id"], "4f2a")
