"""The id of the request in the lines of every logging library, without code."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.folders import short_folder

from .processes import LOOPBACK, ServerProcess, free_ports, serve
from .test_workers import WorkerTests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .test_workers import Workers

APP = "tests.integration.logging_app:app"
LIBRARIES = ("logging", "structlog", "structjson", "loguru", "twisted", "print")
PLACES = ("first", "spawned", "thread", "last")
REQUESTS = 5
#: An application that logs at its import, and for each request.
LEVELS_APP = """
import os
from twisted.logger import Logger

log = Logger("shop.views")
log.info("import with info")
log.error("import with error")

def app(environ, start_response):
    pid = os.getpid()
    log.info("info of {pid}.", pid=pid)
    log.error("error of {pid}.", pid=pid)
    print(f"printed by {pid}.")
    log.critical("critical of {pid}.", pid=pid)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(pid).encode()]
"""
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

    def check_workers(self, server: Workers, lines: Sequence[str]) -> None:
        """Fail unless the new workers log these lines, and no others.

        Args:
            server: the server, with two workers.
            lines: the beginnings of the lines of a request.
        """
        pids = server.ready()[-2:]
        # It is the last one of a request, and no level leaves it out.
        ends = [f"critical of {pid}." for pid in pids]

        def served() -> bool:
            server.fetch("/")
            return all(end in server.log() for end in ends)

        server.wait_for(served, "lines of both workers")
        for pid in pids:
            found = {
                kind
                for kind in ("printed by", "info of", "error of")
                if f"{kind} {pid}." in server.log()
            }
            self.assertEqual(found, set(lines))

    def check_reloads(self, *options: str) -> None:
        """Reload workers, with the same levels, and with others in the file."""
        folder = short_folder(self)
        (folder / "levels_app.py").write_text(LEVELS_APP)
        file = folder / "options.toml"
        file.write_text('log_level = ["shop=error", "stdout=critical"]\n')
        server = self.start(
            f"--config={file}", f"--chdir={folder}", *options, app="levels_app:app"
        )
        imports = server.log().count("import with error")
        for number in range(1, 4):
            self.check_workers(server, ["error of"])
            server.reload(number)
            before, imports = imports, server.log().count("import with error")
            self.assertGreater(imports, before)
        self.check_workers(server, ["error of"])
        self.assertNotIn("import with info", server.log())
        file.write_text('log_level = ["error", "shop.views=info", "stdout=info"]\n')
        server.reload(4)
        self.check_workers(server, ["error of", "info of", "printed by"])
        self.assertIn("import with info", server.log())
        file.write_text('log_level = "critical"\n')
        imports = server.log().count("import with")
        server.reload(5)
        self.check_workers(server, [])
        self.assertEqual(server.log().count("import with"), imports)
        self.stop(server)

    def test_levels_of_workers(self) -> None:
        """New workers have the levels of the file at the time of the reload."""
        self.check_reloads()

    def test_levels_of_forked_workers(self) -> None:
        """So do the fork server, which imports the application, and its workers."""
        self.check_reloads("--preload")

    def test_levels_of_the_command_line(self) -> None:
        """Levels of the command line hold in all later workers."""
        folder = short_folder(self)
        (folder / "levels_app.py").write_text(LEVELS_APP)
        for more in ((), ("--preload",)):
            server = self.start(
                *("--log-level=shop=error", "--log-level=stdout=critical"),
                *(f"--chdir={folder}", *more),
                app="levels_app:app",
            )
            for number in (1, 2):
                self.check_workers(server, ["error of"])
                server.reload(number)
            self.check_workers(server, ["error of"])
            self.assertNotIn("import with info", server.log())
            self.stop(server)
