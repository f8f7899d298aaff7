"""The pages as HTML.

It knows snapshots. It must never know how they are asked for or sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .history import MOST_SAMPLES
from .markup import Markup, element, html, joined, lines, sparkline, table
from .states import activities, processes, worker_state
from .units import (
    UNKNOWN,
    count_text,
    counted,
    duration,
    megabytes,
    printable_path,
    rate,
    short_duration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txgreenwsgi._control.interface import (
        FailureInformation,
        RequestInformation,
        SnapshotInformation,
    )

    from .history import Sample

__all__ = [
    "REFRESH_SECONDS",
    "View",
    "failure_page",
    "fragment",
    "login_page",
    "message_page",
    "request_page",
    "status_page",
    "worker_page",
]

#: Interval at which a browser without JavaScript loads the page again.
REFRESH_SECONDS: Final = 5

#: Maximum number of requests in flight on the page.
MOST_ROWS: Final = 100

#: Maximum number of rows of the other tables.
MOST_OTHER_ROWS: Final = 20


class View(NamedTuple):
    """The content of the page.

    Attributes:
        snapshot: the state of the server.
        samples: the last minutes, the oldest first.
        rates: by number of a worker, its requests per second.
    """

    snapshot: SnapshotInformation
    samples: Sequence[Sample]
    rates: dict[int, float]


def _document(title: str, base: str, content: Markup, *, live: bool = False) -> str:
    """Return a complete page.

    Args:
        title: its title.
        base: the relative URL of the status page.
        content: of the body.
        live: whether the page updates itself.
    """
    more = Markup("")
    if live:
        more = Markup(
            f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
            '</noscript><script src="status.js" defer></script>'
        )
    return joined(
        Markup(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            '<link rel="icon" href="data:,">'
        ),
        Markup(f'<link rel="stylesheet" href="{html(base)}status.css">'),
        element("title", title),
        more,
        Markup("</head><body>"),
        content,
        Markup("</body></html>\n"),
    )


def status_page(view: View) -> str:
    """Return the status page."""
    app = view.snapshot["app"]
    return _document(
        f"Status of {app}",
        "",
        joined(
            Markup(
                '<p id="connection" role="status" hidden>The server does not answer.'
                '</p><main id="status">'
            ),
            fragment(view),
            Markup("</main>"),
        ),
        live=True,
    )


def fragment(view: View) -> Markup:
    """Return the part of the page that changes."""
    snapshot = view.snapshot
    return joined(
        _header(snapshot),
        _charts(view),
        _workers(view),
        _requests(snapshot),
        _routes(snapshot),
        _blocked(snapshot),
        _failures(snapshot),
    )


def _header(snapshot: SnapshotInformation) -> Markup:
    facts = [f"txgreenwsgi {snapshot['version']}", processes(snapshot)]
    facts.append(f"up {duration(snapshot['age'])}")
    if snapshot["target"]:
        facts.append(counted(snapshot["reloads"], "reload"))
        facts.append(counted(snapshot["restarts"], "unexpected restart"))
    parts = [
        element("h1", snapshot["app"]),
        element("p", " · ".join([*facts, *snapshot["listening"]]), class_="facts"),
    ]
    parts += [
        element("p", f"The server is {word}.", class_="notice")
        for word in activities(snapshot)
    ]
    last = snapshot["last_reload"]
    if last is not None and not last["succeeded"]:
        reason = last["reason"].strip().rpartition("\n")[2]
        parts.append(
            element("p", f"The last reload failed: {reason}", class_="notice bad")
        )
    return element("header", *parts)


def _charts(view: View) -> Markup:
    samples = view.samples
    rates = [sample.rate for sample in samples if sample.rate is not None]
    flights = [float(sample.in_flight) for sample in samples]
    lags = [sample.lag for sample in samples]
    queued = view.snapshot["queued"]
    return element(
        "section",
        _chart("requests/s", rate(rates[-1]) if rates else UNKNOWN, rates, rate),
        _chart(
            f"in flight ({queued} queued)" if queued else "in flight",
            f"{flights[-1]:.0f}" if flights else UNKNOWN,
            flights,
            lambda value: f"{value:.0f}",
        ),
        _chart(
            "reactor lag",
            short_duration(lags[-1]) if lags else UNKNOWN,
            lags,
            short_duration,
        ),
        class_="charts",
    )


def _chart(
    title: str, now: str, values: Sequence[float], shown: Callable[[float], str]
) -> Markup:
    highest = f"at most {shown(max(values))}" if values else "no values yet"
    return element(
        "figure",
        element("figcaption", element("b", now), " ", title),
        sparkline(values, MOST_SAMPLES, f"{title}: {now} now, {highest}"),
        element("small", highest),
    )


def _section(title: str, content: Markup, note: str = "") -> Markup:
    heading = [element("h2", title)]
    if note:
        heading.append(element("p", note, class_="note"))
    return element("section", *heading, content)


def _none(text: str) -> Markup:
    return element("p", text, class_="none")


def _listing(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    classes: Sequence[str],
    *,
    note: str = "",
    empty: str = "None.",
) -> Markup:
    """Return a section with a table, or with a sentence if it has no rows."""
    content = table(head, rows, classes) if rows else _none(empty)
    return _section(title, content, note)


def _code(text: str) -> Markup:
    """Return HTML for a path, or for other text that is code."""
    return element("span", text, class_="path")


def _workers(view: View) -> Markup:
    snapshot = view.snapshot
    rows = []
    for worker in snapshot["workers"]:
        state = worker_state(worker)
        current = worker["current"]
        bad = state in ("blocked", "silent")
        shown: list[str] = [element("span", state, class_="bad" if bad else None)]
        if current and bad:
            shown += [" in ", _code(current)]
        number = worker["worker"]
        rows.append(
            (
                element("a", str(number), href=f"workers/{number}"),
                str(worker["pid"]),
                element("span", *shown),
                duration(worker["age"]),
                rate(view.rates[number]) if number in view.rates else UNKNOWN,
                count_text(worker["requests"]),
                count_text(worker["connections"]),
                count_text(worker["served"]),
                UNKNOWN if worker["lag"] is None else short_duration(worker["lag"]),
                megabytes(worker["rss"]),
            )
        )
    head = ("worker", "pid", "state", "age", "req/s", "in flight", "connections")
    return _listing(
        "Workers" if snapshot["target"] else "Process",
        (*head, "served", "lag", "memory"),
        rows,
        ("n", "n", "", "n", "n", "n", "n", "n", "n", "n"),
        empty="No worker is running.",
    )


def _requests(snapshot: SnapshotInformation) -> Markup:
    found = sorted(
        (
            (request, worker["worker"])
            for worker in snapshot["workers"]
            for request in worker["in_flight"] or ()
        ),
        key=lambda pair: pair[0]["age"],
        reverse=True,
    )
    total = sum(worker["requests"] or 0 for worker in snapshot["workers"])
    shown = found[:MOST_ROWS]
    is_cut = 0 < len(shown) < total
    note = f"The oldest {len(shown)} of {total}." if is_cut else ""
    rows = [
        (
            element(
                "a", request["request_id"], href=f"requests/{request['request_id']}"
            ),
            duration(request["age"]),
            request["method"],
            _code(printable_path(request["path"])),
            _wait(request),
            _response(request),
            request["remote_addr"] or UNKNOWN,
            str(number),
        )
        for request, number in shown
    ]
    head = ("request", "age", "method", "path", "waits for", "response", "client")
    return _listing(
        "Requests in flight",
        (*head, "worker"),
        rows,
        ("id", "n", "s", "", "", "s", "s", "n"),
        note=note,
    )


def _wait(request: RequestInformation) -> Markup:
    if not request["waiting_on"]:
        return element("i", request["state"])
    since = f" for {duration(request['waiting_seconds'])}"
    return element("span", _code(request["waiting_on"]), since)


def _response(request: RequestInformation) -> str:
    if not request["status"]:
        return UNKNOWN
    return f"{request['status']}, {_size(request['bytes_sent'])}"


def _routes(snapshot: SnapshotInformation) -> Markup:
    seconds = duration(snapshot["watched_seconds"])
    note = f"By mean duration, in the {seconds} for which this page was open."
    rows = [
        (
            _code(f"{route['method']} {printable_path(route['pattern'])}".lstrip()),
            str(route["requests"]),
            _bad(route["failures"]),
            short_duration(route["mean"]),
            short_duration(route["p95"]),
            short_duration(route["longest"]),
            duration(route["seconds"]),
        )
        for route in snapshot["routes"][:MOST_OTHER_ROWS]
    ]
    return _listing(
        "Slowest routes",
        ("route", "requests", "failed", "mean", "95 %", "longest", "total"),
        rows,
        ("", *["n"] * 6),
        note=note,
        empty="No request has ended yet.",
    )


def _blocked(snapshot: SnapshotInformation) -> Markup:
    rows = [
        (
            _code(
                f"{line['filename']}:{line['line']} in {line['function']}"
                + (f" ({line['kind']})" if line["kind"] else "")
            ),
            str(line["blocks"]),
            short_duration(line["seconds"]),
            short_duration(line["longest"]),
            _code(printable_path(line["request"])),
        )
        for line in snapshot["blocked"][:MOST_OTHER_ROWS]
    ]
    return _listing(
        "Lines that blocked the reactor",
        ("line", "blocks", "total", "longest", "last request"),
        rows,
        ("", "n", "n", "n", ""),
    )


def _failures(snapshot: SnapshotInformation) -> Markup:
    rows = [
        (
            element(
                "a",
                _code(failure["error"]),
                href=f"failures/{failure['failure_id']}",
            ),
            _code(failure["place"] or UNKNOWN),
            str(failure["count"]),
            _ago(snapshot["time"] - failure["last"]),
            _code(f"{failure['method']} {printable_path(failure['path'])}"),
        )
        for failure in snapshot["failures"][:MOST_OTHER_ROWS]
    ]
    return _listing(
        "Recent failures",
        ("failure", "at", "count", "last", "last request"),
        rows,
        ("", "", "n", "n", ""),
    )


def _bad(count: int) -> str:
    return element("span", str(count), class_="bad") if count else "0"


def _size(size: int) -> str:
    if size < 10_000:
        return f"{size} B"
    if size < 10_000_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.0f} MB"


def _ago(seconds: float) -> str:
    return f"{duration(max(seconds, 0.0))} ago"


# Pages of one thing.


def _thing(title: str, *content: Markup) -> str:
    back = element("p", element("a", "Status", href="../"), class_="facts")
    return _document(
        title, "../", element("main", back, element("h1", title), *content)
    )


def _text(text: str) -> Markup:
    return element("pre", lines(text))


def request_page(request_id: str, text: str, form_token: str) -> str:
    """Return the page of a request.

    Args:
        request_id: its identity.
        text: its stack.
        form_token: of the form that cancels it; "" if it may not be cancelled.
    """
    parts = [_text(text)]
    if form_token:
        field = Markup(f'<input type="hidden" name="form" value="{html(form_token)}">')
        parts.append(
            element(
                "form",
                field,
                element("button", "Cancel this request"),
                method="post",
                action=f"{request_id}/cancel",
            )
        )
    return _thing(f"Request {request_id}", *parts)


def worker_page(number: str, text: str) -> str:
    """Return the page with the stacks of a worker."""
    return _thing(f"Worker {number}", _text(text))


def failure_page(failure: FailureInformation, now: float) -> str:
    """Return the page of a failure.

    Args:
        failure: the failure.
        now: seconds since 1970.
    """
    facts = [
        f"{counted(failure['count'], 'time')} since {_ago(now - failure['first'])}",
        f"last {_ago(now - failure['last'])}",
        f"{failure['method']} {printable_path(failure['path'])}",
        f"request {failure['request_id']}",
        f"worker {failure['worker']}",
    ]
    return _thing(
        failure["error"],
        element("p", " · ".join(facts), class_="facts"),
        _text(failure["traceback"] or "There is no traceback."),
    )


def message_page(title: str, text: str, base: str) -> str:
    """Return a page with a message.

    Args:
        title: its title.
        text: the message.
        base: the relative URL of the status page.
    """
    link = element("p", element("a", "Status", href=base or "./"), class_="facts")
    return _document(
        title, base, element("main", link, element("h1", title), element("p", text))
    )


def login_page(base: str, *, failed: bool) -> str:
    """Return the page that asks for the token."""
    problem = _none("This is not the token.") if failed else Markup("")
    return _document(
        "Status",
        base,
        element(
            "main",
            element("h1", "Status"),
            problem,
            element(
                "form",
                element(
                    "label",
                    "Token ",
                    Markup(
                        '<input type="password" name="token" autofocus required '
                        'autocomplete="current-password">'
                    ),
                ),
                " ",
                element("button", "Show"),
                method="post",
                action=f"{base}login",
            ),
        ),
    )
