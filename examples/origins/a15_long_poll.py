"""A chat by long polling, in Flask.

`POST /say` adds a line. `GET /listen?after=N` returns the lines after the N-th one:
immediately if there are any, otherwise when the next one arrives, or none after a
timeout, and the client polls again. No thread or process blocks meanwhile.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a15_long_poll:app
    curl 'http://localhost:8080/listen?after=0' &
    curl -d 'text=hello' http://localhost:8080/say

It knows Flask and the public API of txgreenwsgi.
"""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

import txgreenwsgi

app = Flask(__name__)

WAIT_SECONDS = 20.0

_lines: list[str] = []
_listeners: list[txgreenwsgi.Suspension] = []


@app.post("/say")
def say() -> tuple[str, int]:
    """Add a line and wake all waiting requests."""
    _lines.append(request.form["text"])
    listeners, _listeners[:] = _listeners[:], []
    for handle in listeners:
        handle.resume()
    return "", 204


def wait_for_a_line(seconds: float) -> None:
    """Wait for the next line, for at most `seconds`. Parks."""
    handle = txgreenwsgi.suspend(seconds)
    _listeners.append(handle)
    try:
        handle.wait()
    except TimeoutError:
        return  # no new line
    finally:
        if handle in _listeners:
            _listeners.remove(handle)


@app.get("/listen")
def listen() -> Response:
    """Return the lines after a number; wait for one if there is none. Parks."""
    after = request.args.get("after", 0, int)
    seconds = min(request.args.get("seconds", WAIT_SECONDS, float), WAIT_SECONDS)
    if len(_lines) <= after:
        wait_for_a_line(seconds)
    return jsonify(lines=_lines[after:], next=len(_lines))


@app.get("/listeners")
def listeners() -> Response:
    """Return the number of waiting requests."""
    return jsonify(waiting=len(_listeners))
