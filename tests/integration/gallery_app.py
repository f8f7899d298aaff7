"""A gallery as written for threaded servers: Flask, Pillow, pbkdf2 and SQLite.

Not a test module: `test_mixed.py` serves it. `GALLERY_DATABASE` names the database.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from flask import Flask, abort, request
from PIL import Image

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

ITERATIONS = 200_000
THUMBNAIL = (160, 120)

app = Flask(__name__)


def _digest(password: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", ITERATIONS)


_DIGEST = _digest("correct horse")


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["GALLERY_DATABASE"], timeout=60)
    connection.execute("CREATE TABLE IF NOT EXISTS photograph (thumbnail BLOB)")
    return connection


@app.get("/")
def index() -> str:
    """Return the trivial page."""
    return "Hello, world!\n"


@app.post("/login")
def log_in() -> str:
    """Check a password."""
    if not hmac.compare_digest(_digest(request.form["password"]), _DIGEST):
        abort(403)
    return "welcome"


@app.post("/photographs")
def upload() -> ResponseReturnValue:
    """Store the thumbnail of an image; return its number."""
    file = io.BytesIO()
    with Image.open(request.files["image"].stream) as image:
        image.resize(THUMBNAIL, Image.Resampling.LANCZOS).save(file, "JPEG")
    with closing(_connect()) as connection, connection:
        rows = connection.execute(
            "INSERT INTO photograph VALUES (?)", [file.getvalue()]
        )
        return str(rows.lastrowid), 201


@app.get("/photographs/<int:number>")
def show(number: int) -> ResponseReturnValue:
    """Return a thumbnail."""
    with closing(_connect()) as connection:
        query = "SELECT thumbnail FROM photograph WHERE rowid = ?"
        row = connection.execute(query, [number]).fetchone()
    if row is None:
        abort(404)
    return row[0], {"Content-Type": "image/jpeg"}
