"""The application that the files in this directory deploy.

Its page tells which process has answered, and what the server knows of the client, so
that a proxy can be checked with curl. With a database it keeps orders, with Redis it
counts the visits to all processes.

| Variable | Meaning |
|---|---|
| `DATABASE_URL` | `postgresql://user:password@host/shop`; `shop.sql` has the table |
| `DATABASE_CONNECTIONS` | maximum number of connections of this process (5) |
| `REDIS_URL` | `redis://host:6379` |

It knows Flask and the connection pool of txgreenwsgi. It must never know the proxy or
the number of processes.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING

import psycopg
import redis
from flask import Flask, Response, jsonify, request

from txgreenwsgi.pools import ConnectionPool

if TYPE_CHECKING:
    from psycopg import Connection

MAX_ARTICLE = 100

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024


@cache
def database() -> ConnectionPool[Connection] | None:
    """Return the pool of PostgreSQL connections; None without a database."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        return None

    def check(connection: Connection) -> None:
        connection.execute("select 1")

    return ConnectionPool(
        lambda: psycopg.connect(url, connect_timeout=5),
        max_size=int(os.environ.get("DATABASE_CONNECTIONS", "5")),
        check=check,
        name="shop",
    )


@cache
def counters() -> redis.Redis | None:
    """Return the Redis client; None without a server."""
    url = os.environ.get("REDIS_URL")
    if not url:
        return None
    return redis.Redis(
        connection_pool=redis.BlockingConnectionPool.from_url(
            url, max_connections=20, timeout=5, socket_timeout=5
        )
    )


@app.get("/")
def index() -> Response:
    """Return the process, the client and, if there is Redis, the number of visits."""
    client = counters()
    return jsonify(
        host=socket.gethostname(),
        pid=os.getpid(),
        client=request.remote_addr,
        scheme=request.scheme,
        visits=None if client is None else client.incr("visits"),
    )


@app.get("/orders")
def orders() -> Response | tuple[str, int]:
    """Return the last orders. Parks for the database."""
    pool = database()
    if pool is None:
        return "Set DATABASE_URL to keep orders.\n", 503
    with pool.connection() as connection:
        rows = connection.execute(
            "select id, article from orders order by id desc limit 20"
        ).fetchall()
        connection.commit()
    return jsonify([{"id": number, "article": article} for number, article in rows])


@app.post("/orders")
def order() -> Response | tuple[Response | str, int]:
    """Keep the order of a form. Parks for the database."""
    article = request.form.get("article", "").strip()
    if not 1 <= len(article) <= MAX_ARTICLE:
        return f"Send the field article with 1 to {MAX_ARTICLE} characters.\n", 400
    pool = database()
    if pool is None:
        return "Set DATABASE_URL to keep orders.\n", 503
    with pool.connection() as connection:
        [(number,)] = connection.execute(
            "insert into orders (article) values (%s) returning id", (article,)
        ).fetchall()
        connection.commit()
    return jsonify(id=number, article=article), 201
