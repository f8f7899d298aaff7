"""The subcommands for a running server, with answers of the test."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._command import asking, main
from txgreenwsgi._command.asking import printable
from txgreenwsgi._command.status import status_text
from txgreenwsgi._control.interface import ControlError

REQUEST = {
    "request_id": "1f6a-2b",
    "method": "GET",
    "path": "/reports",
    "age": 12.34,
    "state": "parked",
    "waiting_on": "sleep(30)",
}
WORKER = {
    "worker": 3,
    "slot": 0,
    "pid": 103,
    "state": "ready",
    "age": 3700.0,
    "requests": 1,
    "connections": 20,
    "served": 12345,
    "lag": 0.0004,
    "beat_age": 0.1,
    "rss": 85 << 20,
    "current": "",
    "in_flight": [REQUEST],
}
STATUS: dict[str, Any] = {
    "version": "1.0",
    "app": "shop:app",
    "pid": 100,
    "age": 100000.0,
    "listening": ["http://127.0.0.1:8080/"],
    "target": 2,
    "stopping": False,
    "reloading": False,
    "restarts": 0,
    "reloads": 1,
    "last_reload": None,
    "workers": [
        WORKER,
        {
            **WORKER,
            "worker": 4,
            "slot": 1,
            "pid": 104,
            "in_flight": [],
            "requests": 0,
        },
    ],
}


class SubcommandCase(SynchronousTestCase):
    """Tests with a fake server."""

    def setUp(self) -> None:
        """Collect output and questions."""
        self.output, self.errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)
        self.asked: list[Any] = []
        self.answer: Any = None
        self.patch(asking, "ask", self.ask)
        self.patch(asking, "find_server", lambda: "/run/found.sock")

    def ask(self, path: str, command: str, **arguments: Any) -> Any:
        """Record a question, and give the answer of the test."""
        self.asked.append((path, command, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run_command(self, *words: str) -> tuple[int, str, str]:
        """Run a command; return its status, its output and its errors."""
        try:
            status = main(words)
        except SystemExit as end:
            status = int(end.code or 0)
        streams = self.output, self.errors
        written = [stream.getvalue() for stream in streams]
        for stream in streams:
            stream.seek(0)
            stream.truncate()
        return status, written[0], written[1]


class QuestionTests(SubcommandCase):
    """Questions, results and exit statuses."""

    def test_server(self) -> None:
        """--control selects the server; by default it is searched for."""
        self.answer = "text"
        self.run_command("stacks")
        self.run_command("stacks", "--control", "/run/a.sock", "--timeout", "3")
        for value in ("/run/b.sock", "auto"):
            self.patch(os, "environ", {**os.environ, "TXGREENWSGI_CONTROL": value})
            self.run_command("stacks")
        self.assertEqual(
            self.asked,
            [
                ("/run/found.sock", "stacks", {"timeout": 15.0, "of": ""}),
                ("/run/a.sock", "stacks", {"timeout": 3.0, "of": ""}),
                ("/run/b.sock", "stacks", {"timeout": 15.0, "of": ""}),
                ("/run/found.sock", "stacks", {"timeout": 15.0, "of": ""}),
            ],
        )

    def test_status(self) -> None:
        """The status is text, or JSON."""
        self.answer = STATUS
        self.assertEqual(
            self.run_command("status"), (0, status_text(self.answer) + "\n", "")
        )
        status, written, _ = self.run_command("status", "--json")
        self.assertEqual((status, json.loads(written)), (0, STATUS))

    def test_reload(self) -> None:
        """A failed reload has status 1, and its traceback is printed."""
        self.answer = {"succeeded": True, "replaced": 2, "reason": ""}
        self.assertEqual(self.run_command("reload"), (0, "replaced 2 workers\n", ""))
        self.assertEqual(self.asked[0][2], {"timeout": None})
        self.answer = {
            "succeeded": False,
            "replaced": 1,
            "reason": "Traceback ...\nImportError: x\n",
        }
        self.assertEqual(
            self.run_command("reload"),
            (
                1,
                "the reload failed after 1 worker; the others continue:\n"
                "Traceback ...\nImportError: x\n",
                "",
            ),
        )
        status, written, _ = self.run_command("reload", "--json")
        self.assertEqual((status, json.loads(written)), (1, self.answer))

    def test_scale(self) -> None:
        """The number is absolute, or a difference."""
        self.answer = 4
        for word, number, relative in [
            ("4", 4, False),
            ("+1", 1, True),
            ("-1", -1, True),
        ]:
            self.asked.clear()
            self.assertEqual(
                self.run_command("scale", word), (0, "scaling to 4 workers\n", "")
            )
            self.assertEqual(
                self.asked[0][2],
                {"timeout": 15.0, "number": number, "relative": relative},
            )
        self.answer = 1
        self.assertIn("to 1 worker\n", self.run_command("scale", "1")[1])
        self.assertEqual(
            json.loads(self.run_command("scale", "1", "--json")[1]), {"target": 1}
        )

    def test_stacks(self) -> None:
        """The stacks are those of all, of a worker or of a request."""
        self.answer = "request 1f6a-2b\n  File x\n"
        self.assertEqual(
            self.run_command("stacks", "1f6a-2b"),
            (0, "request 1f6a-2b\n  File x\n", ""),
        )
        self.assertEqual(self.asked[0][2], {"timeout": 15.0, "of": "1f6a-2b"})

    def test_refused(self) -> None:
        """An error has status 1, and is the output for programs, too."""
        self.answer = ControlError("there is no worker 9")
        self.assertEqual(
            self.run_command("stacks", "9"),
            (1, "", "txgreenwsgi stacks: there is no worker 9\n"),
        )
        self.assertEqual(
            self.run_command("stacks", "9", "--json"),
            (
                1,
                '{"error": "there is no worker 9"}\n',
                "txgreenwsgi stacks: there is no worker 9\n",
            ),
        )

    def test_usage(self) -> None:
        """A wrong command line has status 2: the error, and one line."""
        for words, error in [
            (["status", "extra"], "unrecognized arguments: extra"),
            (["status", "--jso"], "unrecognized arguments: --jso"),
            (["scale"], "the following arguments are required: N"),
            (["scale", "0"], "argument N: '0' is not a number of workers: give 4, +1"),
            (["scale", "x"], "argument N: 'x' is not a number of workers"),
            (["scale", "99999"], "argument N: '99999' is not a number of workers"),
            (["reload", "--timeout", "-1"], "argument --timeout: "),
            (["reload", "--timeout", "x"], "'x' is not a number of seconds: give 30"),
            (["reload", "--timeout", "nan"], "'nan' is not a number of seconds"),
        ]:
            status, written, errors = self.run_command(*words)
            self.assertEqual((status, written), (2, ""), errors)
            self.assertIn(error, errors)
            self.assertEqual(errors.count("\n"), 2)
            self.assertTrue(
                errors.endswith(f"txgreenwsgi {words[0]} --help lists the options\n")
            )
        self.assertEqual(self.asked, [])

    def test_help(self) -> None:
        """Each subcommand has its help."""
        for name in ("status", "reload", "scale", "stacks"):
            status, written, errors = self.run_command(name, "--help")
            self.assertEqual((status, errors), (0, ""))
            self.assertTrue(written.startswith(f"usage: txgreenwsgi {name} "), written)


class StatusTextTests(SynchronousTestCase):
    """The status as text."""

    def test_workers(self) -> None:
        """Workers and requests are in aligned columns."""
        self.assertEqual(
            status_text(STATUS),  # type: ignore[arg-type]
            """\
txgreenwsgi 1.0 serves shop:app at http://127.0.0.1:8080/
2 workers, master pid 100, up 1 d 3 h
1 reload, 0 unexpected restarts

WORKER  PID  STATE  AGE      SERVED  IN FLIGHT  CONN  LAG   RSS
3       103  ready  1 h 1 min  12345   1          20    0 ms  85 MiB
4       104  ready  1 h 1 min  12345   0          20    0 ms  85 MiB

REQUEST  WORKER  AGE   METHOD  PATH      WAITING FOR
1f6a-2b  3       12 s  GET     /reports  sleep(30)""".replace(
                "AGE      SERVED", "AGE        SERVED"
            ),
        )

    def test_single_process(self) -> None:
        """Without workers, there is one process."""
        worker = {
            **WORKER,
            "pid": 100,
            "lag": None,
            "beat_age": None,
            "rss": None,
            "in_flight": [],
            "age": 5.0,
        }
        text = status_text(
            {**STATUS, "target": 0, "age": 5.0, "workers": [worker]}  # type: ignore[typeddict-item]
        )
        self.assertIn("\npid 100, up 5.0 s\n", text)
        self.assertNotIn("reloads", text)
        self.assertIn("20    -    -\n\nno requests in flight", text)

    def test_hung_worker(self) -> None:
        """A worker that does not answer is named, with the request that it runs."""
        worker = {
            **WORKER,
            "in_flight": None,
            "beat_age": 8.2,
            "current": "1f6a-2b GET /reports",
        }
        text = status_text({**STATUS, "workers": [worker]})  # type: ignore[typeddict-item]
        self.assertIn("3       103  blocked  1 h 1 min", text)
        self.assertTrue(
            text.endswith(
                "\n\nworker 3 (pid 103) has not answered; its reactor turned 8.2 s ago "
                "and runs 1f6a-2b GET /reports"
            ),
            text,
        )
        self.assertNotIn("no requests", text)
        # It has answered since its last beat.
        worker["in_flight"] = []
        text = status_text({**STATUS, "workers": [worker]})  # type: ignore[typeddict-item]
        self.assertIn("3       103  ready", text)

    def test_state(self) -> None:
        """A reload, its failure and a shutdown are shown."""
        last = {"succeeded": False, "replaced": 1, "reason": "Traceback\nOSError: x\n"}
        text = status_text(
            {
                **STATUS,  # type: ignore[typeddict-item]
                "stopping": True,
                "reloading": True,
                "last_reload": last,
                "workers": [],
                "listening": [],
            }
        )
        self.assertIn("serves shop:app at no address\n", text)
        self.assertIn("up 1 d 3 h, stopping, reloading\n", text)
        self.assertIn("the last reload failed after 1 worker: OSError: x\n", text)

    def test_queued(self) -> None:
        """A request that waits for nothing shows its state."""
        request = {**REQUEST, "state": "queued", "waiting_on": "", "path": "/a\nb"}
        worker = {**WORKER, "in_flight": [request]}
        text = status_text({**STATUS, "workers": [worker]})  # type: ignore[typeddict-item]
        self.assertIn("/a\\nb  (queued)", text)

    def test_durations(self) -> None:
        """Ages have two units at most."""
        for age, shown in [
            (0.04, "0.0 s"),
            (9.96, "10.0 s"),
            (59.9, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (7200, "2 h"),
            (90000, "1 d 1 h"),
        ]:
            text = status_text({**STATUS, "age": age})  # type: ignore[typeddict-item]
            self.assertIn(f", up {shown}\n", text)

    def test_printable(self) -> None:
        """Characters that control a terminal are escaped."""
        self.assertEqual(printable("a\n\tb é"), "a\n\tb é")
        self.assertEqual(printable("\x1b[31m\r\x9b\u202e"), r"\x1b[31m\r\x9b\u202e")
