r"""Spans of interleaved requests: none is under a foreign parent.

The libraries are large, so these tests exist only in an environment that has them:

    python3 -m venv tracing
    tracing/bin/pip install . flask Django sentry-sdk ddtrace opentelemetry-sdk \
        opentelemetry-instrumentation-{wsgi,flask,django}
    tracing/bin/python -m twisted.trial tests.integration.test_tracing
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, START_SECONDS, ServerProcess, free_ports, wait_for

APP = "tests.integration.tracing_app:app"
REQUESTS = 200
AT_ONCE = 50

#: How the requests run: options by name.
MODES = {
    "tasks": ("--threads-for=none",),
    "threads": ("--threads-for=all",),
    "workers": ("--workers=2",),
}

#: The packages of each library, and its frameworks.
LIBRARIES = {
    "opentelemetry": ("opentelemetry.instrumentation", ("wsgi", "flask", "django")),
    "sentry": ("sentry_sdk", ("flask", "django")),
    "ddtrace": ("ddtrace", ("flask", "django")),
}


def trace_of(number: int) -> str:
    """Return the id of the trace that a client begins."""
    return f"{0xABC000 + number:032x}"


class TracingTestCase(SynchronousTestCase):
    """A server with a library for tracing, and many requests."""

    def spans_of(self, library: str, framework: str, mode: str) -> list[dict[str, Any]]:
        """Serve requests, and return the spans of all processes."""
        [port] = free_ports(1)
        server = ServerProcess(
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:{port}:interface={LOOPBACK}",
            *MODES[mode],
            environ={
                "TRACING": library,
                "FRAMEWORK": framework,
                "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
                "DD_REMOTE_CONFIGURATION_ENABLED": "false",
                "DD_TRACE_STARTUP_LOGS": "false",
            },
        )
        self.addCleanup(server.end)
        server.wait_logged(r"serves tests\.integration\.tracing_app", START_SECONDS)

        def fetch(number: int) -> str:
            parent = f"{0xDEF000 + number:016x}"
            fields = {"Traceparent": f"00-{trace_of(number)}-{parent}-01"}
            if library == "sentry":
                fields = {"Sentry-Trace": f"{trace_of(number)}-{parent}-1"}
            return server.fetch(f"/work/{number}", headers=fields, port=port).text

        with ThreadPoolExecutor(AT_ONCE) as pool:
            texts = list(pool.map(fetch, range(REQUESTS)))
        self.assertEqual(set(texts), {"done"}, server.log())
        processes = 2 if mode == "workers" else 1
        found: dict[int, list[dict[str, Any]]] = {}

        def complete() -> bool:
            answer = json.loads(server.fetch("/report", port=port).text)
            found[answer["pid"]] = answer["spans"]
            names = [span["name"] for spans in found.values() for span in spans]
            return len(found) == processes and (
                sum(name.startswith("outer ") for name in names) == REQUESTS
            )

        wait_for(
            complete,
            lambda: f"{[len(each) for each in found.values()]}\n{server.log()}",
        )
        return [span for spans in found.values() for span in spans]

    def check(self, library: str, framework: str, mode: str) -> None:
        """Fail unless each span is in the trace of its request, below its parent."""
        spans = self.spans_of(library, framework, mode)
        by_id = {span["span"]: span for span in spans}
        self.assertEqual(len(by_id), len(spans))
        by_name = {
            span["name"]: span
            for span in spans
            if re.match(r"(inner|outer) \d", span["name"])
        }
        self.assertEqual(len(by_name), 2 * REQUESTS)
        for number in range(REQUESTS):
            inner, outer = by_name[f"inner {number}"], by_name[f"outer {number}"]
            self.assertEqual(inner["parent"], outer["span"])
            top = outer
            while top["parent"] in by_id:
                self.assertEqual(top["trace"], outer["trace"])
                top = by_id[top["parent"]]
            self.assertIsNot(top, outer, "the request has a span")
            # The parent is the client's, in the client's trace.
            self.assertEqual(int(top["parent"], 16), 0xDEF000 + number)
            self.assertEqual(int(top["trace"], 16), int(trace_of(number), 16))
            if top["path"]:
                self.assertTrue(top["path"].endswith(f"/work/{number}"), top)


class TracingTests(TracingTestCase):
    """One test for each library, framework and mode."""


def _add_test(library: str, framework: str, mode: str) -> None:
    def test(self: TracingTests) -> None:
        self.check(library, framework, mode)

    test.__doc__ = f"Requests in {mode}, of {framework}, traced by {library}."
    setattr(TracingTests, f"test_{library}_{framework}_{mode}", test)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


for _library, (_package, _frameworks) in LIBRARIES.items():
    if _is_installed(_package):
        for _framework in _frameworks:
            for _mode in MODES:
                _add_test(_library, _framework, _mode)
