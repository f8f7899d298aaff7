"""Applications whose spans and events stay in memory, and are returned as JSON.

`TRACING` in the environment selects the library, `FRAMEWORK` the framework. Each
request has nested spans with waits in between. "/report" returns all that its process
has recorded.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TRACING = os.environ["TRACING"]
FRAMEWORK = os.environ["FRAMEWORK"]

Span = dict[str, Any]
report: Callable[[], list[Span]]
#: Runs a function in a span of the name.
in_span: Callable[[str, Callable[[], None]], None]


def work(number: str) -> None:
    """Wait in nested spans, which are about one request."""
    wait = 0.01 * (1 + int(number) % 7)

    def inner() -> None:
        time.sleep(wait)

    def outer() -> None:
        time.sleep(wait)
        in_span(f"inner {number}", inner)
        time.sleep(wait / 2)

    in_span(f"outer {number}", outer)


def _opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    global report, in_span
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("shop")

    def opentelemetry_report() -> list[Span]:
        return [
            {
                "name": span.name,
                "path": span.attributes.get("http.target")
                or span.attributes.get("url.path"),
                "trace": f"{span.context.trace_id:032x}",
                "span": f"{span.context.span_id:016x}",
                "parent": f"{span.parent.span_id:016x}" if span.parent else "",
            }
            for span in exporter.get_finished_spans()
        ]

    def opentelemetry_span(name: str, function: Callable[[], None]) -> None:
        with tracer.start_as_current_span(name):
            function()

    report, in_span = opentelemetry_report, opentelemetry_span


def _sentry() -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    global report, in_span
    spans: list[Span] = []

    class MemoryTransport(Transport):
        """Keeps the transactions."""

        def capture_envelope(self, envelope: Any) -> None:
            """Keep the spans of a transaction."""
            for item in envelope.items:
                event = item.get_transaction_event()
                if event is None:
                    continue
                root = event["contexts"]["trace"]
                spans.append(
                    {
                        "name": "request",
                        "path": event.get("tags", {}).get("path"),
                        "trace": root["trace_id"],
                        "span": root["span_id"],
                        "parent": root.get("parent_span_id") or "",
                    }
                )
                spans.extend(
                    {
                        "name": span["description"],
                        "path": None,
                        "trace": span["trace_id"],
                        "span": span["span_id"],
                        "parent": span.get("parent_span_id") or "",
                    }
                    for span in event["spans"]
                    if span["description"].startswith(("inner ", "outer "))
                )

    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1", transport=MemoryTransport, traces_sample_rate=1.0
    )

    def sentry_span(name: str, function: Callable[[], None]) -> None:
        with sentry_sdk.start_span(op="test", name=name):
            if name.startswith("outer "):
                sentry_sdk.set_tag("path", f"/work/{name.removeprefix('outer ')}")
            function()

    report, in_span = (lambda: spans), sentry_span


def _ddtrace() -> None:
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    global report, in_span
    spans: list[Span] = []

    class Keep(TraceFilter):
        """Keeps the spans, and sends none."""

        def process_trace(self, trace: Any) -> None:
            """Keep the spans of a trace."""
            spans.extend(
                {
                    "name": span.name,
                    "path": span.get_tag("http.url"),
                    "trace": f"{span.trace_id & (1 << 64) - 1:x}",
                    "span": f"{span.span_id:x}",
                    "parent": f"{span.parent_id:x}" if span.parent_id else "",
                }
                for span in trace
            )

    tracer.configure(trace_processors=[Keep()])
    ddtrace.patch(**{FRAMEWORK: True})

    def ddtrace_span(name: str, function: Callable[[], None]) -> None:
        with tracer.trace(name):
            function()

    report, in_span = (lambda: spans), ddtrace_span


def _answer() -> str:
    return json.dumps({"pid": os.getpid(), "spans": report()})


def _wsgi() -> Any:
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

    def plain(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Type", "application/json")])
        if path == "/report":
            return [_answer().encode()]
        work(path.removeprefix("/work/"))
        return [b"done"]

    return OpenTelemetryMiddleware(plain)


def _flask() -> Any:
    from flask import Flask

    flask_app = Flask(__name__)
    if TRACING == "opentelemetry":
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(flask_app)

    @flask_app.get("/work/<number>")
    def work_view(number: str) -> str:
        work(number)
        return "done"

    @flask_app.get("/report")
    def report_view() -> str:
        return _answer()

    return flask_app


def _django() -> Any:
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    def work_view(request: object, number: str) -> HttpResponse:
        work(number)
        return HttpResponse("done")

    def report_view(request: object) -> HttpResponse:
        return HttpResponse(_answer())

    if TRACING == "opentelemetry":
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    settings.configure(
        ROOT_URLCONF=(
            path("work/<str:number>", work_view),
            path("report", report_view),
        ),
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="x",
    )
    if TRACING == "opentelemetry":
        from opentelemetry.instrumentation.django import DjangoInstrumentor

        DjangoInstrumentor().instrument()
    django.setup()
    return get_wsgi_application()


{"opentelemetry": _opentelemetry, "sentry": _sentry, "ddtrace": _ddtrace}[TRACING]()
app = {"wsgi": _wsgi, "flask": _flask, "django": _django}[FRAMEWORK]()
