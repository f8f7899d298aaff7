"""Demonstrations: many concurrent sleeps, and a streamed response.

It knows `sleep` and `spawn`. It must never read a request body.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from txgreenwsgi import sleep, spawn

from .answers import Refused, begin, json_line, query_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi import Task

MAX_SLEEP_SECONDS = 5.0
MAX_SLEEPERS_PER_REQUEST = 500
MAX_SLEEPERS = 20_000
MAX_BLOCKS = 40
MAX_PAUSE_SECONDS = 1.0

_asleep: set[Task[None]] = set()


def sleep_many(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Start `?tasks=` tasks that sleep `?seconds=`; send a line of JSON as each ends.

    Raises:
        Refused: 400 for a number out of range, 503 while too many tasks sleep.
    """
    seconds = query_number(environ, "seconds", 1.0, 0.0, MAX_SLEEP_SECONDS)
    tasks = int(query_number(environ, "tasks", 1, 1, MAX_SLEEPERS_PER_REQUEST))
    if len(_asleep) + tasks > MAX_SLEEPERS:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{len(_asleep)} tasks are asleep: try again later",
        )
    begin(start_response, "application/x-ndjson")
    return _sleep_in_tasks(seconds, tasks)


def _sleep_in_tasks(seconds: float, tasks: int) -> Iterator[bytes]:
    sleepers = [spawn(sleep, seconds) for _ in range(tasks)]
    _asleep.update(sleepers)
    try:
        for number, sleeper in enumerate(sleepers, 1):
            sleeper.wait()
            yield json_line({"finished": number, "of": tasks})
    finally:
        # Cancel the remaining sleeps, also if the client disconnects early.
        _asleep.difference_update(sleepers)
        for sleeper in sleepers:
            sleeper.cancel()


def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send `?blocks=` lines of JSON with a pause of `?pause=` seconds before each.

    Raises:
        Refused: 400 for a number out of range.
    """
    blocks = int(query_number(environ, "blocks", 10, 1, MAX_BLOCKS))
    pause = query_number(environ, "pause", 0.2, 0.0, MAX_PAUSE_SECONDS)
    begin(start_response, "application/x-ndjson")
    return _blocks(blocks, pause)


def _blocks(blocks: int, pause: float) -> Iterator[bytes]:
    for number in range(1, blocks + 1):
        sleep(pause)
        yield json_line({"block": number, "of": blocks})
