"""Flask-SQLAlchemy as its documentation shows it: a session for each request.

Not a test module: `test_sqlalchemy.py` serves it. `DATABASE_URL` names the database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, Integer, String, text

if TYPE_CHECKING:
    from collections.abc import Iterator

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 5, "max_overflow": 0}
db: Any = SQLAlchemy(app)
torn_down = [0]


class Note(db.Model):  # type: ignore[misc]
    """A row with a text."""

    id = Column(Integer, primary_key=True)
    name = Column(String(80))


with app.app_context():
    db.create_all()


@app.teardown_request
def _torn_down(error: BaseException | None) -> None:
    torn_down[0] += 1


@app.get("/add/<name>/<float:seconds>")
def add(name: str, seconds: float) -> str:
    """Insert a name, slowly; return what this session reads."""
    note = Note(name=name)
    db.session.add(note)
    db.session.flush()
    db.session.execute(text("select pg_sleep(:seconds)"), {"seconds": seconds})
    seen = [one.name for one in db.session]
    assert note in db.session, "another request's session"
    db.session.commit()
    return ",".join(seen)


@app.get("/stream")
def stream() -> Response:
    """Insert a row each second and never commit."""

    def lines() -> Iterator[str]:
        for number in range(100):
            db.session.add(Note(name=f"streamed {number}"))
            db.session.flush()
            yield f"{number}\n"
            db.session.execute(text("select pg_sleep(0.2)"))

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.get("/names")
def names() -> Any:
    """Return the committed names."""
    return jsonify([note.name for note in db.session.query(Note).order_by(Note.id)])


@app.get("/state")
def state() -> Any:
    """Return the number of connections in use and of requests torn down."""
    return jsonify(in_use=db.engine.pool.checkedout(), torn_down=torn_down[0])
