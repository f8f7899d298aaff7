"""A Flask application that waits in every hook of Flask.

It records each teardown with its context, for tests to compare. It knows Flask; it
must never know how it is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, jsonify, request, session, stream_with_context

from txgreenwsgi import Task, current_task, sleep

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Teardown", "make_app"]


@dataclass(frozen=True)
class Teardown:
    """The state of a context when it was torn down.

    Attributes:
        kind: "request" or "app".
        name: the request's argument `name`, as kept in the context.
        error: the class name of the error that Flask passed.
        own_task: whether the teardown ran in the task of the view.
    """

    kind: str
    name: str | None
    error: str | None
    own_task: bool


def _nap() -> None:
    sleep(request.args.get("seconds", 0.0, float))


def make_app(teardowns: list[Teardown]) -> Flask:
    """Return an application that appends to `teardowns`."""
    app = Flask(__name__)
    app.secret_key = "for tests"

    def note(kind: str, error: BaseException | None) -> None:
        task: Task[Any] | None = g.get("task")
        teardowns.append(
            Teardown(
                kind,
                g.get("name"),
                None if error is None else type(error).__name__,
                task is not None and task is current_task(),
            )
        )

    @app.before_request
    def before() -> None:
        g.name = request.args.get("name")
        g.task = current_task()
        _nap()

    @app.after_request
    def after(response: Response) -> Response:
        _nap()
        response.headers["X-Name"] = g.name or ""
        return response

    @app.teardown_request
    def end_of_request(error: BaseException | None) -> None:
        note("request", error)

    @app.teardown_appcontext
    def end_of_app(error: BaseException | None) -> None:
        note("app", error)

    @app.route("/view", methods=["GET", "POST"])
    def view() -> Response:
        """Return all state of this request after a wait."""
        session["visits"] = [*session.get("visits", []), g.name]
        posted = request.form.get("name")
        _nap()
        return jsonify(
            g=g.name,
            argument=request.args["name"],
            path=request.full_path,
            posted=posted,
            session=session["visits"],
        )

    @app.get("/fail")
    def fail() -> Response:
        """Fail after a wait."""
        _nap()
        raise LookupError(g.name)

    @app.get("/events")
    def events() -> Response:
        """Stream events with the headers of the usual recipes."""

        def lines() -> Iterator[str]:
            for number in range(2):
                yield f"data: {number}\n\n"
                sleep(1)

        return Response(
            lines(),
            mimetype="text/event-stream",
            headers={
                "Cache-Control": "no-cache",
                "Connection": "keep-alive",
                "Transfer-Encoding": "chunked",
                "X-Accel-Buffering": "no",
            },
        )

    @app.route("/method", methods=["GET", "BREW"])
    def method() -> str:
        """Return the method, after early hints."""
        request.environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        return request.method

    @app.get("/stream")
    def stream() -> Response:
        """Stream three lines from the request's context, with waits between them."""

        def lines() -> Iterator[str]:
            for number in range(3):
                yield f"{number} {g.name} {request.args['name']}\n"
                sleep(1)

        return Response(stream_with_context(lines()), mimetype="text/plain")

    @app.get("/nested")
    def nested() -> Response:
        """Wait in an application context nested in the request's."""
        with app.app_context():
            g.name = "inner"
            _nap()
            inner = g.name
        return jsonify(inner=inner, outer=g.name)

    return app
