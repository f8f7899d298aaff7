"""A Flask application whose ordinary views sleep, stream and wait for Deferreds.

No view is async or yields control explicitly, and there are no threads: while one
view waits, the same thread runs the others. Flask keeps its request in contextvars,
so `request` is the same after a wait.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.flask_app:app
    curl http://localhost:8080/sleep?seconds=1
    curl -F title=Holiday -F file=@photo.jpg http://localhost:8080/form

It knows Flask and two functions of txgreenwsgi. It must never start a reactor or a
thread.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from twisted.internet.defer import gatherResults
from twisted.web.client import Agent, readBody

from txgreenwsgi import sleep, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.defer import Deferred

MAX_SLEEP_SECONDS = 10.0
MAX_STREAM_LINES = 100

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024 * 1024

INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Flask on txgreenwsgi</title>
<h1>Flask on txgreenwsgi</h1>
<ul>
<li><a href="json">JSON</a>
<li><a href="sleep?seconds=1">a view that sleeps for one second</a>
<li><a href="stream?lines=5">a streamed response</a>
<li><a href="fetch">a view that waits for a Deferred</a>
</ul>
<form action="form" method="post" enctype="multipart/form-data">
<label>Title <input name="title" value="Holiday"></label>
<label>File <input name="file" type="file"></label>
<button>Send</button>
</form>
"""


@app.get("/")
def index() -> str:
    """Return a page of links to the other views."""
    return INDEX


@app.route("/json", methods=["GET", "POST"])
def as_json() -> Response:
    """Return JSON, with the JSON body of a POST as `received`."""
    received = request.get_json() if request.method == "POST" else None
    return jsonify(greeting="hello", path=request.path, received=received)


@app.post("/form")
def form() -> Response:
    """Return the fields of a form with a file. Parks while the body arrives.

    Werkzeug parses the body as it arrives: reading `wsgi.input` parks until the next
    piece is here, and other requests run meanwhile.
    """
    upload = request.files.get("file")
    if upload is None:
        return jsonify(title=request.form.get("title", ""), file=None)
    digest = hashlib.sha256()
    size = 0
    while block := upload.stream.read(65536):
        digest.update(block)
        size += len(block)
    return jsonify(
        title=request.form.get("title", ""),
        file={"name": upload.filename, "size": size, "sha256": digest.hexdigest()},
    )


@app.get("/sleep")
def sleeps() -> Response:
    """Sleep for `?seconds=`, at most ten, while other requests run. Parks."""
    seconds = request.args.get("seconds", default=1.0, type=float)
    seconds = min(max(0.0, seconds), MAX_SLEEP_SECONDS)
    sleep(seconds)
    # Read after the sleep on purpose: it is still the same request.
    return jsonify(slept=seconds, name=request.args.get("name", ""))


@app.get("/stream")
def stream() -> Response:
    """Stream `?lines=` lines at intervals of a tenth of a second. Parks."""
    lines = min(request.args.get("lines", default=5, type=int), MAX_STREAM_LINES)

    def produce() -> Iterator[str]:
        for number in range(1, lines + 1):
            if number > 1:
                sleep(0.1)
            yield f"line {number} of {lines}\n"

    return Response(produce(), mimetype="text/plain")


def fetch_text(url: str) -> Deferred[str]:
    """Fetch a page with Twisted's HTTP client.

    Returns:
        A Deferred that fires with the decoded body.
    """
    # Imported late, so that the importer of this module can choose the reactor.
    from twisted.internet import reactor

    fetched = Agent(reactor, connectTimeout=5).request(b"GET", url.encode("ascii"))
    return fetched.addCallback(readBody).addCallback(bytes.decode)


@app.get("/fetch")
def fetch() -> Response:
    """Wait for two pages of this same server concurrently. Parks.

    Both requests start before the wait, so the view takes as long as the slower one,
    not as long as both.
    """
    # The server's own port, not the Host field, by which a client could make the
    # server send requests to any reachable machine.
    here = f"http://127.0.0.1:{request.environ['SERVER_PORT']}"
    pages = [
        fetch_text(f"{here}/sleep?seconds=0.3&name=first"),
        fetch_text(f"{here}/sleep?seconds=0.3&name=second"),
    ]
    first, second = wait(gatherResults(pages, consumeErrors=True), timeout=10)
    return jsonify(pages=[app.json.loads(first), app.json.loads(second)])
