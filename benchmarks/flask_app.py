"""A Flask application that answers JSON, for the scenario of that name."""

from __future__ import annotations

from flask import Flask, Response, jsonify

app = Flask(__name__)


@app.get("/")
def index() -> Response:
    """A short object."""
    return jsonify(message="Hello, world!", numbers=list(range(10)))
