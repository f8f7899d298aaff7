"""The access log: the format of its lines, and the handling of its file."""

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

from .records import FIELDS, record


@implementer(ILogObserver)
class Events(list[LogEvent]):
    """An observer that records log events in order."""

    def __call__(self, event: LogEvent) -> None:
        """Record one event."""
        self.append(event)


class RecordTests(SynchronousTestCase):
    """The record that observers get."""

    def test_repr(self) -> None:
        """The repr of a record identifies the request in one line."""
        self.assertEqual(
            repr(record(target="/\n")),
            "<ExchangeRecord 4f2a GET '/\\n' 200 finished>",
        )

    def test_every_outcome_can_be_logged(self) -> None:
        """The JSON log has every outcome."""
        for outcome in OUTCOMES:
            line = json.loads(json_line(record(outcome=outcome)))
            self.assertEqual(line["outcome"], outcome)

    def test_keyword_arguments_only(self) -> None:
        """A record is built with keyword arguments, so that no field is mistaken."""
        positional: list[Any] = [getattr(record(), name) for name in FIELDS]
        self.assertRaises(TypeError, ExchangeRecord, *positional)


class CombinedTests(SynchronousTestCase):
    """Apache's format."""

    def test_line(self) -> None:
        """A line is in Apache's combined format, then duration and request id."""
        self.assertEqual(
            combined(record()),
            "192.0.2.1 - - [22/Nov/2026:09:24:03 +0000] "
            '"GET /a?b=c%20d HTTP/1.1" 200 512 "http://example.net/" '
            '"Browser/1 (X; Y)" 0.012346 4f2a\n',
        )

    def test_missing_values(self) -> None:
        """A missing value is a hyphen, as in Apache's log."""
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
        """A request without a response has the status 000."""
        self.assertIn('" 000 - "', combined(record(status=0, bytes_sent=0)))

    def test_forged_line(self) -> None:
        """Text sent by a client stays inside its quotes and on its line."""
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

    def test_forged_field(self) -> None:
        """Outside quotes, spaces are escaped and cannot start another field."""
        line = combined(record(remote_addr="1 - -", request_id="x\ty z"))
        self.assertTrue(line.startswith("1\\x20-\\x20- - - ["))
        self.assertTrue(line.endswith(" x\\x09y\\x20z\n"))


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class JSONTests(SynchronousTestCase):
    """One JSON object per line."""

    def test_line(self) -> None:
        """A line has every field by its name; the time is in ISO 8601 and UTC."""
        timed = record(queued=0.25, waiting=0.0012349, traceparent=TRACEPARENT)
        self.assertEqual(
            json.loads(json_line(timed)),
            {
                "time": "2026-11-22T09:24:03.250Z",
                "request_id": "4f2a",
                "remote_addr": "192.0.2.1",
                "remote_port": "4321",
                "user": "",
                "method": "GET",
                "target": "/a?b=c%20d",
                "version": "HTTP/1.1",
                "status": 200,
                "bytes_sent": 512,
                "duration": 0.012346,
                "queued": 0.25,
                "waiting": 0.001235,
                "blocked": 0.345679,
                "outcome": "finished",
                "referer": "http://example.net/",
                "user_agent": "Browser/1 (X; Y)",
                "traceparent": TRACEPARENT,
                "trace_id": "0af7651916cd43dd8448eb211c80319c",
            },
        )

    def test_forged_line(self) -> None:
        """Text sent by a client stays on one line, and is decoded unchanged."""
        evil = 'a"},\r\n{"status": 1}\0\x85\u2028\xff\\'
        line = json_line(record(user_agent=evil, target=evil))
        self.assertTrue(line.isascii())
        self.assertEqual(line.count("\n"), 1)
        self.assertEqual(json.loads(line)["user_agent"], evil)

    def test_the_last_millisecond(self) -> None:
        """A time just before a full second is rounded up to the next one."""
        line = json.loads(json_line(record(started=1795339443.9996)))
        self.assertEqual(line["time"], "2026-11-22T09:24:04.000Z")


class AccessLogTests(SynchronousTestCase):
    """The handling of the file."""

    def setUp(self) -> None:
        """Create a log that writes to a new file when the clock advances."""
        self.clock = Clock()
        self.path = self.mktemp()
        self.events = Events()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.log = AccessLog(self.path)

    def start(self) -> None:
        """Open the file of the log."""
        self.log.open(self.clock)
        self.addCleanup(self.log.close)

    def write(self, *ids: str) -> None:
        """Record requests that end within one reactor turn, and end the turn."""
        for request_id in ids:
            self.log.observe(record(request_id=request_id))
        self.clock.advance(0)

    def ids(self, path: str = "") -> list[str]:
        """Return the request ids of the lines in a file."""
        with open(path or self.path) as lines:
            return [line.split()[-1] for line in lines]

    def logged(self) -> list[str]:
        """Return the log lines of the process since the last call, with levels."""
        lines = [
            f"{event['log_level'].name}: {formatEvent(event)}".replace(
                os.path.abspath(self.path), "FILE"
            )
            for event in self.events
            if event["log_level"] >= LogLevel.info
            and "accesslog" in event["log_namespace"]
        ]
        self.events.clear()
        return lines

    def test_unknown_format(self) -> None:
        """For an unknown format, the message lists the valid ones."""
        error = self.assertRaises(ValueError, AccessLog, "x", "clf")
        self.assertEqual(
            str(error),
            "the access log format 'clf' is not a format: give combined, common, json, "
            "or directives of Apache, such as '%h %r %s'",
        )
        error = self.assertRaises(ValueError, AccessLog, "x", "%h %z")
        self.assertIn("the access log format '%h %z' contains %z", str(error))

    def test_format_of_its_own(self) -> None:
        """Lines have the given format."""
        self.log = AccessLog(self.path, '%m "%{X-A}i" %{request_id}x')
        self.start()
        self.write("a", "b")
        with open(self.path) as lines:
            self.assertEqual(lines.read(), 'GET "-" a\nGET "-" b\n')

    def test_skipped(self) -> None:
        """Requests whose path matches a pattern are left out."""
        self.log = AccessLog(self.path, skip=["/health", "/-/*"])
        self.start()
        for request_id, target in (
            ("a", "/health?x"),
            ("b", "/healthy"),
            ("c", "/-/live"),
            ("d", "/"),
        ):
            self.log.observe(record(request_id=request_id, target=target))
        self.clock.advance(0)
        self.assertEqual(self.ids(), ["b", "d"])
        self.assertRaises(ValueError, AccessLog, "x", skip=["health"])

    def test_user(self) -> None:
        """The formats with a name contain the user."""
        one = record(environ={"REMOTE_USER": "ada"})
        self.assertTrue(combined(one).startswith("192.0.2.1 - ada ["))
        self.assertEqual(json.loads(json_line(one))["user"], "ada")

    def test_one_write_a_turn(self) -> None:
        """All requests that end within one reactor turn are written by one call."""
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
        """Existing content of the file is kept."""
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
        """Requests that end while the log is closed are ignored."""
        self.log.observe(record())
        self.log.close()
        self.start()
        self.log.close()
        self.log.observe(record())
        self.clock.advance(0)
        self.log.close()
        self.assertEqual(self.ids(), [])

    def test_rotated(self) -> None:
        """After the file was moved, lines go to a new file at its path."""
        self.start()
        self.write("before")
        os.rename(self.path, self.path + ".1")
        self.write("after")
        self.write("later")
        self.assertEqual(self.ids(self.path + ".1"), ["before"])
        self.assertEqual(self.ids(), ["after", "later"])
        self.assertEqual(self.logged(), [])

    def test_rotated_by_another(self) -> None:
        """A new file that another process created at the path is used."""
        self.start()
        self.write("before")
        os.rename(self.path, self.path + ".1")
        with open(self.path, "w"):
            pass
        self.write("after")
        self.assertEqual(self.ids(), ["after"])

    def test_truncated_in_place(self) -> None:
        """A truncated file (copytruncate) has no hole."""
        self.start()
        self.write("before")
        os.truncate(self.path, 0)
        self.write("after")
        self.assertEqual(self.ids(), ["after"])

    def test_files_are_closed(self) -> None:
        """A hundred rotations leave one open file, and `close` leaves none."""
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
        """A relative path is resolved once, when the log opens."""
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
        """`open` raises an error if the file cannot be opened."""
        log = AccessLog(os.path.join(self.path, "nowhere", "log"))
        self.assertRaises(FileNotFoundError, log.open, self.clock)

    def test_cannot_be_reopened(self) -> None:
        """If the new file cannot be opened, lines go to the old one."""
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
        [line] = self.logged()
        self.assertTrue(line.startswith("error: access log: FILE was moved and"))
        os.mkdir(directory)
        self.write("after")
        self.assertEqual(self.ids(), ["after"])
        self.assertEqual(self.logged(), ["info: access log: FILE is open again"])

    def test_full_disk(self) -> None:
        """A full disk is logged once, and the lost lines when writing works again."""
        if not os.path.exists("/dev/full"):
            self.fail("this test needs /dev/full, which Linux and the BSDs have")
        os.symlink("/dev/full", self.path)
        self.start()
        self.write("a", "b")
        self.write("c")
        self.assertEqual(
            self.logged(),
            [
                "error: access log: cannot write to FILE ([Errno 28] No space left on "
                "device); lines are lost until writing works again"
            ],
        )
        os.unlink(self.path)
        self.write("d")
        self.assertEqual(self.ids(), ["d"])
        self.assertEqual(
            self.logged(), ["error: access log: 3 lines of FILE were lost"]
        )
        self.write("e")
        self.assertEqual(self.logged(), [])

    def test_full_to_the_end(self) -> None:
        """`close` logs the lines lost so far."""
        os.symlink("/dev/full", self.path)
        self.start()
        self.write("a")
        self.logged()
        self.log.observe(record())
        self.log.close()
        self.assertEqual(
            self.logged(), ["error: access log: 2 lines of FILE were lost"]
        )

    def test_disk_full_in_the_middle(self) -> None:
        """A partial line does not corrupt the next one."""
        self.start()
        line = len(combined(record(request_id="a")))
        room = [line + 10]  # for one line, and the start of another
        real_write = os.write

        def write(fd: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real_write(fd, data[: room[0]])
            room[0] -= written
            return written

        self.patch(os, "write", write)
        self.write("a", "b", "c")
        self.logged()
        room[0] = 1  # for the end of the partial line
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
            self.logged(), ["error: access log: 4 lines of FILE were lost"]
        )

    def test_standard_output(self) -> None:
        """A hyphen means standard output, which stays open."""
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

    def test_standard_output_of_a_daemon(self) -> None:
        """Standard output that is /dev/null, as in a daemon, is logged once."""
        self.patch(os, "fstat", lambda fd: os.stat(os.devnull))
        log = AccessLog("-")
        log.open(self.clock)
        log.close()
        [line] = self.logged()
        self.assertIn("warn: access log: standard output is /dev/null", line)

    def test_open_until_shutdown(self) -> None:
        """`open_until_shutdown` closes the file after the reactor's shutdown."""
        triggers: list[Any] = []
        reactor: Any = self.clock
        reactor.addSystemEventTrigger = lambda *trigger: triggers.append(trigger)
        self.log.open_until_shutdown(reactor)
        self.write("first")
        self.log.observe(record(request_id="last"))
        [(phase, event, close)] = triggers
        self.assertEqual((phase, event), ("after", "shutdown"))
        close()
        self.assertEqual(self.ids(), ["first", "last"])
