"""A Flask application that answers JSON, for the scenario `flask`."""

from __future__ import annotations

from flask import Flask, Response, jsonify

app = Flask(__name__)


@app.get("/")
def index() -> Response:
    """Answer with a short object."""
    return jsonify(message="Hello, world!", numbers=list(range(10)))
