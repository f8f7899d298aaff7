"""A chat by long polling, in Flask: a view that waits until there is something to say.

`POST /say` tells everybody. `GET /listen?after=N` answers with what was said after
the N-th line: at once if there is anything, else as soon as there is, else after a
while with nothing, to be asked again. No thread and no process waits meanwhile.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a15_long_poll:app
    curl 'http://localhost:8080/listen?after=0' &
    curl -d 'text=hello' http://localhost:8080/say

The file knows Flask and the public names of txgreenwsgi.
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
    """Say something to all who listen, and to those who ask later."""
    _lines.append(request.form["text"])
    listeners, _listeners[:] = _listeners[:], []
    for handle in listeners:
        handle.resume()
    return "", 204


def wait_for_a_line(seconds: float) -> None:
    """Wait until something is said, for at most so long. Parks."""
    handle = txgreenwsgi.suspend(seconds)
    _listeners.append(handle)
    try:
        handle.wait()
    except TimeoutError:
        return  # nothing was said
    finally:
        if handle in _listeners:
            _listeners.remove(handle)


@app.get("/listen")
def listen() -> Response:
    """Answer with the lines after a number; wait for one if there is none. Parks."""
    after = request.args.get("after", 0, int)
    seconds = min(request.args.get("seconds", WAIT_SECONDS, float), WAIT_SECONDS)
    if len(_lines) <= after:
        wait_for_a_line(seconds)
    return jsonify(lines=_lines[after:], next=len(_lines))


@app.get("/listeners")
def listeners() -> Response:
    """Tell how many wait."""
    return jsonify(waiting=len(_listeners))
