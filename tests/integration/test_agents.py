r"""Applications instrumented by OpenTelemetry, ddtrace, New Relic, Elastic and Sentry.

The agents are large, so these tests exist only in an environment that has them:

    python3 -m venv agents && agents/bin/pip install . flask requests \
        opentelemetry-distro opentelemetry-exporter-otlp-proto-http \
        opentelemetry-instrumentation-{flask,logging,requests,threading,wsgi} \
        ddtrace newrelic elastic-apm sentry-sdk
    agents/bin/python -m twisted.trial tests.integration.test_agents

A collector in the test process receives the data of those that can send it to any URL.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import LOOPBACK, start

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUESTS = 40
SLEEP_SECONDS = 0.5
PATCHED = (sys.executable, "-m", "txgreenwsgi.patched")

_APP = f"""
import logging, os, threading, time
import requests
from flask import Flask, request

if "SENTRY_DSN" in os.environ:
    import sentry_sdk
    sentry_sdk.init(traces_sample_rate=1.0)

app = Flask(__name__)
if os.environ.get("ELASTIC_IN_APP"):
    from elasticapm.contrib.flask import ElasticAPM
    ElasticAPM(app)

log, lock = logging.getLogger("shop"), threading.Lock()

@app.get("/inner/<number>")
def inner(number):
    time.sleep({SLEEP_SECONDS})
    return number

@app.get("/outer/<number>")
def outer(number):
    log.warning("request %s", number)
    text = requests.get(f"{{request.host_url}}inner/{{number}}", timeout=60).text
    with lock:
        time.sleep(0.001)
    return text

@app.get("/failure")
def failure():
    raise LookupError("raised on purpose")
"""


class _Collector(BaseHTTPRequestHandler):
    """The server that the agents report to."""

    protocol_version = "HTTP/1.1"
    paths: list[str]

    def answer(self) -> None:
        """Record the path of a request and answer an empty object."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names of the methods

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


class _CollectorServer(ThreadingHTTPServer):
    """A server whose clients may disconnect at any time."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing."""


@dataclass(frozen=True)
class Agent:
    """An agent.

    Attributes:
        package: a package that it consists of.
        command: the command that runs twistd, "" if the application starts the agent.
        environ: its configuration; {collector} is the URL of the collector, {key} the
            same with a user name.
        path: the start of the path to which it reports; "" if it does not report.
    """

    package: str
    command: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


_ELASTIC = {
    "ELASTIC_APM_SERVER_URL": "{collector}",
    "ELASTIC_APM_SERVICE_NAME": "shop",
    "ELASTIC_APM_API_REQUEST_TIME": "200ms",
    "ELASTIC_APM_CLOUD_PROVIDER": "none",
}
AGENTS = {
    "opentelemetry": Agent(
        "opentelemetry.instrumentation.auto_instrumentation",
        "opentelemetry-instrument",
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "{collector}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
        },
        "/v1/traces",
    ),
    "ddtrace": Agent(
        "ddtrace",
        "ddtrace-run",
        {
            "DD_TRACE_AGENT_URL": "{collector}",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        },
        "/v0.",
    ),
    # Without a network: it reports to one host only.
    "newrelic": Agent(
        "newrelic",
        "newrelic-admin run-program",
        {
            "NEW_RELIC_DEVELOPER_MODE": "true",
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_APP_NAME": "shop",
        },
    ),
    "elastic": Agent("elasticapm", "elasticapm-run", _ELASTIC, "/intake/v2/events"),
    "elastic_in_app": Agent(
        "elasticapm", "", {**_ELASTIC, "ELASTIC_IN_APP": "1"}, "/intake/v2/events"
    ),
    "sentry": Agent("sentry_sdk", "", {"SENTRY_DSN": "{key}/1"}, "/api/1/envelope/"),
}


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


class AgentTestCase(SynchronousTestCase):
    """Tests with an application and a collector."""

    def setUp(self) -> None:
        """Write the application and start the collector."""
        self.folder = short_folder(self)
        (self.folder / "shop_app.py").write_text(textwrap.dedent(_APP))
        self.paths: list[str] = []
        handler = type("Handler", (_Collector,), {"paths": self.paths})
        collector = _CollectorServer((LOOPBACK, 0), handler)
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        self.addCleanup(collector.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(collector.shutdown)
        self.address = f"{LOOPBACK}:{collector.server_port}"

    def has_reported(self, path: str) -> bool:
        """Return whether the collector got a request whose path starts with `path`."""
        return any(each.startswith(path) for each in self.paths)

    def serves(self, agent: Agent, *wrapper: str) -> str:
        """Send requests that wait at the same time; return the log."""
        values = {
            "collector": f"http://{self.address}",
            "key": f"http://key@{self.address}",
        }
        # The commands of the agents start with the path of their interpreter.
        beside = Path(sys.executable).parent
        server = start(
            self,
            "greenwsgi",
            "--app=shop_app:app",
            f"--chdir={self.folder}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ={
                "PATH": os.pathsep.join((str(beside), os.environ["PATH"])),
                **{
                    name: value.format_map(values)
                    for name, value in agent.environ.items()
                },
            },
            wrapper=(*wrapper, *agent.command.split()),
        )
        server.fetch("/inner/first")
        began = time.monotonic()
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(
                pool.map(lambda n: server.fetch(f"/outer/{n}"), range(REQUESTS))
            )
        seconds = time.monotonic() - began
        texts = [answer.text for answer in answers]
        self.assertEqual(texts, [str(n) for n in range(REQUESTS)], server.log())
        # One after the other, they sleep for this time.
        self.assertLess(seconds, REQUESTS * SLEEP_SECONDS, server.log())
        self.assertEqual(server.fetch("/failure").status, 500)
        until = time.monotonic() + 30
        while agent.path and not any(
            path.startswith(agent.path) for path in self.paths
        ):
            self.assertLess(time.monotonic(), until, (self.paths, server.log()))
            time.sleep(0.05)
        server.ask_to_stop()
        server.wait_ended()
        return server.log()


class InstalledTests(AgentTestCase):
    """One test for each agent that is installed."""

    def run_agent(self, agent: Agent) -> None:
        """Serve with the agent, patched by the command and from the start."""
        self.serves(agent)
        self.paths.clear()
        log = self.serves(agent, *PATCHED)
        self.assertNotIn("before the standard library was patched", log)


def _add_test(name: str, agent: Agent) -> None:
    def test(self: InstalledTests) -> None:
        self.run_agent(agent)

    test.__doc__ = f"Requests wait concurrently under {name}, and it reports them."
    setattr(InstalledTests, f"test_{name}", test)


for _name, _agent in AGENTS.items():
    if _is_installed(_agent.package):
        _add_test(_name, _agent)
