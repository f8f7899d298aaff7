"""A Bottle application, with the framework's thread-local state in contextvars.

Bottle keeps `bottle.request` and `bottle.response` in a `threading.local`. Here all
requests share one thread, so after a sleep a view would see the request of another
client. A `contextvars.ContextVar` belongs to the task instead of the thread:
`keep_in_context` below moves Bottle's state into such variables. It has no effect on
the behaviour under a threaded server. Flask and Django need no such step: Flask uses
contextvars, Django passes the request as an argument.

With `--patch all`, the default of the command, a `threading.local` belongs to the
task as well, and `keep_in_context` is not needed.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.bottle_app:app
    curl http://localhost:8080/hello/world
    curl -T somefile http://localhost:8080/count

It knows Bottle and txgreenwsgi. It must never park before the call of
`keep_in_context`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import bottle

from txgreenwsgi import sleep

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SLEEP_SECONDS = 10.0


def context_property(name: str) -> property:
    """Return a property with one value per task; Bottle's has one per thread.

    Args:
        name: the name of the context variable, for debuggers.

    Returns:
        A property whose getter raises RuntimeError outside a request, like that of
        Bottle.
    """
    variable: ContextVar[Any] = ContextVar(name)

    def get(_: object) -> Any:
        try:
            return variable.get()
        except LookupError:
            raise RuntimeError("Request context not initialized.") from None

    def put(_: object, value: object) -> None:
        variable.set(value)

    return property(get, put)


def keep_in_context(*classes: type) -> None:
    """Replace the thread-local properties of these classes of Bottle."""
    for cls in classes:
        for name, attribute in list(vars(cls).items()):
            if isinstance(attribute, property):
                setattr(cls, name, context_property(f"{cls.__name__}.{name}"))


keep_in_context(bottle.LocalRequest, bottle.LocalResponse)

app = bottle.Bottle()


@app.get("/")
def index() -> dict[str, str]:
    """Return a dict, which Bottle sends as JSON."""
    return {"greeting": "hello", "framework": f"Bottle {bottle.__version__}"}


@app.get("/hello/<name>")
def hello(name: str) -> str:
    """Sleep for `?seconds=`, then greet with data of the same request. Parks."""
    seconds = bottle.request.query.get("seconds", 0.0, type=float)
    seconds = min(max(0.0, seconds), MAX_SLEEP_SECONDS)
    bottle.response.set_header("X-Greeted", name)
    sleep(seconds)
    bottle.response.content_type = "text/plain; charset=utf-8"
    return f"Hello, {name}, at {bottle.request.path}!\n"


@app.put("/count")
def count() -> dict[str, int]:
    """Count the bytes of an upload as they arrive, without storing them. Parks."""
    stream = bottle.request.environ["wsgi.input"]
    size = blocks = 0
    while block := stream.read(65536):
        size += len(block)
        blocks += 1
    return {"bytes": size, "blocks": blocks}


@app.get("/countdown/<start:int>")
def countdown(start: int) -> Iterator[str]:
    """Count down from `start`, at most 10, and send each number immediately."""
    bottle.response.content_type = "text/plain; charset=utf-8"
    for number in range(min(start, 10), 0, -1):
        yield f"{number}\n"
        sleep(0.1)
    yield "lift-off\n"
