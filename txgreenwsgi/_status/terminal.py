"""The status of a server as the lines of a terminal.

It knows snapshots and the width of text. It must never know a terminal device, or how
snapshots are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .states import activities, processes, worker_state
from .units import (
    UNKNOWN,
    clipped,
    count_text,
    duration,
    megabytes,
    printable,
    printable_path,
    rate,
    short_duration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._control.interface import (
        FailureInformation,
        RequestInformation,
        SnapshotInformation,
    )

    from .history import History

__all__ = [
    "ASCII_BARS",
    "BARS",
    "FAILURES",
    "REQUESTS",
    "Line",
    "Selection",
    "frame",
    "requests_of",
    "text",
]

#: The tables with a cursor.
REQUESTS: Final = "requests"
FAILURES: Final = "failures"

#: The characters of charts, the lowest first.
BARS: Final = "▁▂▃▄▅▆▇█"
#: For terminals without them.
ASCII_BARS: Final = ".:-=+*%#"

_SPARK_COLUMNS: Final = 12


class Line(NamedTuple):
    """One line, exactly as wide as the terminal.

    Attributes:
        text: printable characters.
        style: "" , "title", "quiet", "bad" or "selected".
    """

    text: str
    style: str = ""


class Selection(NamedTuple):
    """The place of the cursor.

    Attributes:
        table: `REQUESTS` or `FAILURES`.
        row: the index of its row.
    """

    table: str = REQUESTS
    row: int = 0


class _Column(NamedTuple):
    """A column of a table; the last one takes the rest of the width.

    Attributes:
        title: its title.
        width: its width.
        right: whether numbers are at the right.
    """

    title: str
    width: int
    right: bool = False


_WORKERS: Final = (
    _Column("WORKER", 6, True),
    _Column("PID", 8, True),
    _Column("REQ/S", 7, True),
    _Column("IN FLIGHT", 9, True),
    _Column("CONN", 5, True),
    _Column("LAG", 9, True),
    _Column("MEMORY", 9, True),
    _Column("STATE", 0),
)
_REQUESTS: Final = (
    _Column("REQUEST", 13),
    _Column("AGE", 10, True),
    _Column("METHOD", 7),
    _Column("PATH", 22),
    _Column("WAITS FOR", 0),
)
_ROUTES: Final = (
    _Column("REQUESTS", 9, True),
    _Column("FAILED", 6, True),
    _Column("MEAN", 10, True),
    _Column("95 %", 10, True),
    _Column("LONGEST", 10, True),
    _Column("ROUTE", 0),
)
_BLOCKED: Final = (
    _Column("BLOCKS", 6, True),
    _Column("TOTAL", 10, True),
    _Column("LONGEST", 10, True),
    _Column("LINE THAT BLOCKED", 0),
)
_FAILURES: Final = (
    _Column("COUNT", 5, True),
    _Column("LAST", 14, True),
    _Column("FAILURE", 34),
    _Column("AT", 0),
)


def requests_of(snapshot: SnapshotInformation) -> list[RequestInformation]:
    """Return the requests in flight of all workers, the oldest first."""
    return sorted(
        (
            request
            for worker in snapshot["workers"]
            for request in worker["in_flight"] or ()
        ),
        key=lambda request: request["age"],
        reverse=True,
    )


def frame(
    snapshot: SnapshotInformation,
    history: History,
    width: int,
    height: int | None = None,
    selection: Selection | None = None,
    *,
    bars: str = BARS,
) -> list[Line]:
    """Return the lines of a screen.

    Args:
        snapshot: the state of the server.
        history: its rates.
        width: the columns of the terminal.
        height: its rows; None for all lines, without limit.
        selection: the cursor; None for none.
        bars: the characters of charts, the lowest first.
    """
    head = _head(snapshot, history, width, bars)
    requests = [_request_row(request) for request in requests_of(snapshot)]
    workers = _worker_rows(snapshot, history)
    routes = [_route_row(snapshot, index) for index in range(len(snapshot["routes"]))]
    blocked = [
        (
            str(line["blocks"]),
            short_duration(line["seconds"]),
            short_duration(line["longest"]),
            f"{line['filename']}:{line['line']} in {line['function']}",
        )
        for line in snapshot["blocked"]
    ]
    failures = [
        _failure_row(failure, snapshot["time"]) for failure in snapshot["failures"]
    ]
    if height is not None:
        # Each table has a title, and an empty line in front.
        left = height - len(head)
        workers = workers[: max(left // 6, 1)]
        left -= len(workers) + 2
        failures = failures[: 3 if left >= 15 else 1]
        left -= len(failures) + 2 if failures else 0
        blocked = blocked[: 2 if left >= 12 else 1]
        left -= len(blocked) + 2 if blocked else 0
        routes = routes[: max(min(left // 4, 10), 1)] if left > 6 else []
        left -= len(routes) + 2 if routes else 0
        requests = _window(
            requests, max(left - 2, 1), _index(selection, REQUESTS, len(requests))
        )
    lines = list(head)
    lines += _table(_WORKERS, workers, width)
    lines += _table(
        _REQUESTS,
        requests,
        width,
        _index(selection, REQUESTS, len(requests)),
        empty="no requests in flight",
    )
    if routes:
        lines += _table(_ROUTES, routes, width)
    if blocked:
        lines += _table(_BLOCKED, blocked, width)
    if failures:
        chosen = _index(selection, FAILURES, len(failures))
        lines += _table(_FAILURES, failures, width, chosen)
    return lines if height is None else lines[:height]


def _window(
    rows: list[tuple[str, ...]], count: int, chosen: int | None
) -> list[tuple[str, ...]]:
    """Return `count` rows with the chosen one among them, as the last one at most."""
    begin = 0 if chosen is None else max(chosen - count + 1, 0)
    return rows[begin : begin + count]


def _index(selection: Selection | None, table: str, count: int) -> int | None:
    if selection is None or selection.table != table or not count:
        return None
    return min(selection.row, count - 1)


def _head(
    snapshot: SnapshotInformation, history: History, width: int, bars: str
) -> list[Line]:
    facts = [processes(snapshot), f"up {duration(snapshot['age'])}"]
    facts += activities(snapshot)
    title = f"{snapshot['app']}: {', '.join(facts)}, {' '.join(snapshot['listening'])}"
    samples = history.samples
    rates = [sample.rate for sample in samples if sample.rate is not None]
    flights = [float(sample.in_flight) for sample in samples]
    lags = [sample.lag for sample in samples]
    queued = f" ({snapshot['queued']} queued)" if snapshot["queued"] else ""
    charts = "  ".join(
        f"{name} {now} {_spark(values, bars)}"
        for name, now, values in (
            ("req/s", rate(rates[-1]) if rates else UNKNOWN, rates),
            (f"in flight{queued}", f"{flights[-1]:.0f}" if flights else "0", flights),
            ("lag", short_duration(lags[-1]) if lags else UNKNOWN, lags),
        )
    )
    return [
        Line(clipped(printable(title), width), "title"),
        Line(clipped(charts, width)),
    ]


def _spark(values: Sequence[float], bars: str) -> str:
    shown = values[-_SPARK_COLUMNS:]
    highest = max(shown, default=0.0) or 1.0
    top = len(bars) - 1
    return "".join(bars[round(value / highest * top)] for value in shown)


def _worker_rows(
    snapshot: SnapshotInformation, history: History
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for worker in snapshot["workers"]:
        state = worker_state(worker)
        if state in ("blocked", "silent") and worker["current"]:
            state += f" in {worker['current']}"
        number = worker["worker"]
        rows.append(
            (
                str(number),
                str(worker["pid"]),
                rate(history.rates[number]) if number in history.rates else UNKNOWN,
                count_text(worker["requests"]),
                count_text(worker["connections"]),
                UNKNOWN if worker["lag"] is None else short_duration(worker["lag"]),
                megabytes(worker["rss"]),
                state,
            )
        )
    return rows


def _request_row(request: RequestInformation) -> tuple[str, ...]:
    waits = f"({request['state']})"
    if request["waiting_on"]:
        waits = f"{short_duration(request['waiting_seconds'])} {request['waiting_on']}"
    return (
        request["request_id"],
        duration(request["age"]),
        request["method"],
        printable_path(request["path"]),
        waits,
    )


def _route_row(snapshot: SnapshotInformation, index: int) -> tuple[str, ...]:
    route = snapshot["routes"][index]
    return (
        str(route["requests"]),
        str(route["failures"]),
        short_duration(route["mean"]),
        short_duration(route["p95"]),
        short_duration(route["longest"]),
        f"{route['method']} {printable_path(route['pattern'])}".lstrip(),
    )


def _failure_row(failure: FailureInformation, now: float) -> tuple[str, ...]:
    return (
        str(failure["count"]),
        f"{duration(max(now - failure['last'], 0.0))} ago",
        failure["error"],
        failure["place"] or f"{failure['method']} {printable_path(failure['path'])}",
    )


def _table(
    columns: Sequence[_Column],
    rows: Sequence[tuple[str, ...]],
    width: int,
    chosen: int | None = None,
    *,
    empty: str = "",
) -> list[Line]:
    titles = [column.title for column in columns]
    lines = [Line(" " * width), Line(_row(columns, titles, width), "quiet")]
    for index, row in enumerate(rows):
        style = "selected" if index == chosen else ""
        if columns is _WORKERS and row[-1].startswith(("blocked", "silent")):
            style = "bad"
        lines.append(Line(_row(columns, row, width), style))
    if not rows and empty:
        lines.append(Line(clipped(empty, width)))
    return lines


def _row(columns: Sequence[_Column], cells: Sequence[str], width: int) -> str:
    parts = []
    used = 0
    for column, cell in zip(columns, cells, strict=True):
        size = column.width or max(width - used, 0)
        text = printable(cell)
        if column.right:
            shown = clipped(text, size).rstrip() if len(text) <= size else text[:size]
            parts.append(shown.rjust(size))
        else:
            parts.append(clipped(text, size))
        used += size + 2
    return clipped("  ".join(parts), width)


def text(lines: Sequence[Line]) -> str:
    """Return lines for a file or a pipe."""
    return "\n".join(line.text.rstrip() for line in lines)
