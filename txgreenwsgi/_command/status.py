"""`txgreenwsgi status`: the workers and the requests in flight.

It knows the text. It must never know the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._status.states import activities, processes, worker_state
from txgreenwsgi._status.units import UNKNOWN, count_text, counted, duration, megabytes

from .asking import Parser, question, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from txgreenwsgi._control.interface import (
        RequestInformation,
        ServerInformation,
        WorkerInformation,
    )

__all__ = ["main", "status_text"]


def main(words: Sequence[str]) -> int:
    """Print the status and return the exit status."""

    def command(given: argparse.Namespace) -> tuple[object, str, int]:
        found: ServerInformation = question(given, "status")
        return found, status_text(found), 0

    return run(Parser("status"), words, command)


def status_text(found: ServerInformation) -> str:
    """Return the status as text for a terminal of 80 columns, if paths are short."""
    parts = [_summary(found)]
    workers = found["workers"]
    if workers:
        parts.append(_table(_WORKER_HEAD, map(_worker_row, workers)))
    requests = [
        _request_row(worker, request)
        for worker in workers
        for request in worker["in_flight"] or ()
    ]
    silent = [worker for worker in workers if worker["in_flight"] is None]
    if requests:
        parts.append(_table(_REQUEST_HEAD, requests))
    elif not silent:
        parts.append("no requests in flight")
    parts.extend(map(_silence, silent))
    return "\n\n".join(parts)


def _summary(found: ServerInformation) -> str:
    facts = [processes(found), f"up {duration(found['age'])}", *activities(found)]
    lines = [
        f"txgreenwsgi {found['version']} serves {found['app']} at "
        f"{' '.join(found['listening']) or 'no address'}",
        ", ".join(facts),
    ]
    if found["target"]:
        lines.append(
            f"{counted(found['reloads'], 'reload')}, "
            f"{counted(found['restarts'], 'unexpected restart')}"
        )
    last = found["last_reload"]
    if last is not None and not last["succeeded"]:
        reason = last["reason"].strip().rpartition("\n")[2]
        lines.append(
            f"the last reload failed after {counted(last['replaced'], 'worker')}: "
            f"{reason}"
        )
    return "\n".join(lines)


_WORKER_HEAD = (
    *("WORKER", "PID", "STATE", "AGE", "SERVED", "IN FLIGHT", "CONN", "LAG", "RSS"),
)
_REQUEST_HEAD = ("REQUEST", "WORKER", "AGE", "METHOD", "PATH", "WAITING FOR")


def _worker_row(worker: WorkerInformation) -> tuple[str, ...]:
    lag = worker["lag"]
    return (
        str(worker["worker"]),
        str(worker["pid"]),
        worker_state(worker),
        duration(worker["age"]),
        count_text(worker["served"]),
        count_text(worker["requests"]),
        count_text(worker["connections"]),
        UNKNOWN if lag is None else f"{lag * 1000:.0f} ms",
        megabytes(worker["rss"]),
    )


def _request_row(
    worker: WorkerInformation, request: RequestInformation
) -> tuple[str, ...]:
    return (
        request["request_id"],
        str(worker["worker"]),
        duration(request["age"]),
        request["method"],
        request["path"].replace("\n", "\\n"),
        request["waiting_on"] or f"({request['state']})",
    )


def _silence(worker: WorkerInformation) -> str:
    """Return the line about a worker that has not answered."""
    text = f"worker {worker['worker']} (pid {worker['pid']}) has not answered"
    if worker["beat_age"] is not None:
        text += f"; its reactor turned {duration(worker['beat_age'])} ago"
    if worker["current"]:
        text += f" and runs {worker['current']}"
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows in aligned columns."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    )
