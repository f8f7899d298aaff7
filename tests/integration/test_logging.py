"""The id of the request in the lines of every logging library, without code."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

from .processes import LOOPBACK, ServerProcess, free_ports, serve
from .test_workers import WorkerTests

APP = "tests.integration.logging_app:app"
LIBRARIES = ("logging", "structlog", "structjson", "loguru", "twisted", "print")
PLACES = ("first", "spawned", "thread", "last")
REQUESTS = 5
TRACE = "0af7651916cd43dd8448eb211c80319%x"


class LoggingTests(WorkerTests):
    """Lines of overlapping requests."""

    def requests(self, server: ServerProcess, port: int) -> list[str]:
        """Send requests at the same time; return their ids by their numbers."""

        def fetch(number: int) -> str:
            fields = {"Traceparent": f"00-{TRACE % number}-b7ad6b7169203331-01"}
            answer = server.fetch(f"/{number}", headers=fields, port=port)
            found: str = json.loads(answer.text)
            return found

        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(fetch, range(REQUESTS)))

    def check_json(self, server: ServerProcess, ids: list[str]) -> None:
        """Fail unless each line has the id and the trace of its request."""
        entries = [
            json.loads(line) for line in server.log().splitlines() if line[:1] == "{"
        ]
        for number, request_id in enumerate(ids):
            for library in LIBRARIES:
                for place in PLACES:
                    text = f"{library} {number}-{place}."
                    [entry] = [each for each in entries if text in each["message"]]
                    self.assertEqual(entry["request_id"], request_id, entry)
                    self.assertEqual(entry["trace_id"], TRACE % number, entry)

    def test_json(self) -> None:
        """In a single process, in tasks and in request threads."""
        for threads in ("none", "all"):
            [port] = free_ports(1)
            server = ServerProcess(
                "greenwsgi",
                f"--app={APP}",
                f"--listen=tcp:{port}:interface={LOOPBACK}",
                "--log-format=json",
                f"--threads-for={threads}",
            )
            self.addCleanup(server.kill)
            server.wait_logged("serves tests.integration.logging_app")
            ids = self.requests(server, port)
            self.assertEqual(len(set(ids)), REQUESTS)
            self.check_json(server, ids)
            server.ask_to_stop()
            server.wait_ended()

    def test_workers(self) -> None:
        """With workers, whose lines the master writes."""
        server = self.start("--log-format=json", app=APP)
        port = int(re.findall(r"listening on \S+?:(\d+)\"", server.log())[0])
        ids = self.requests(server, port)
        server.wait_for(
            lambda: server.log().count("-last.") >= REQUESTS * len(LIBRARIES),
            "all lines",
        )
        self.check_json(server, ids)

    def test_text(self) -> None:
        """In the text format, the id is at the end of the line."""
        server = serve(self, APP, "--log-format=text")
        for number, request_id in enumerate(self.requests(server, server.ports[0])):
            for library in LIBRARIES:
                self.assertRegex(
                    server.log(),
                    rf"{library} {number}-first\..*\(request {request_id}\)\n",
                )

    def test_levels(self) -> None:
        """Levels apply to components; --log-format stays."""
        server = serve(
            self,
            APP,
            "--log-format=text",
            "--log-level=info",
            "--log-level=shop=error",
            "--log-level=stdout=critical",
        )
        self.requests(server, server.ports[0])
        log = server.log()
        self.assertIn("logging 0-first", log)
        self.assertNotIn("twisted 0-first", log)
        self.assertNotIn("print 0-first", log)
