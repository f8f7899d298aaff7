"""A Bottle application, and what to do about a framework's thread-local state.

Bottle keeps `bottle.request` and `bottle.response` in a `threading.local`. Here
all requests share one thread, so a view that slept would wake up holding the
request of somebody else. A `contextvars.ContextVar` follows the task instead of
the thread; `keep_in_context` below moves Bottle's state into such variables.
It is harmless on a server with threads. (Flask and Django need nothing of the
kind for their request: Flask uses contextvars, Django passes it as an argument.)

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.bottle_app:app
    curl http://localhost:8080/hello/world
    curl -T somefile http://localhost:8080/count

The file knows Bottle and txgreenwsgi; it must never wait before `keep_in_context`
was called.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import bottle

from txgreenwsgi import sleep

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_SLEEP_SECONDS = 10.0


def context_property(name: str) -> property:
    """Make a property that holds one value a task, as Bottle's own holds one a thread.

    Args:
        name: what the context variable is called in a debugger.

    Returns:
        A property whose getter raises RuntimeError outside a request, as
        Bottle's does.
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
    """Replace every property of the classes, Bottle's thread-local ones, by ours."""
    for cls in classes:
        for name, attribute in list(vars(cls).items()):
            if isinstance(attribute, property):
                setattr(cls, name, context_property(f"{cls.__name__}.{name}"))


keep_in_context(bottle.LocalRequest, bottle.LocalResponse)

app = bottle.Bottle()


@app.get("/")
def index() -> dict[str, str]:
    """Answer in JSON, which is what Bottle makes of a dict."""
    return {"greeting": "hello", "framework": f"Bottle {bottle.__version__}"}


@app.get("/hello/<name>")
def hello(name: str) -> str:
    """Greet, after sleeping for `?seconds=`; the request is still ours afterwards."""
    seconds = bottle.request.query.get("seconds", 0.0, type=float)
    seconds = min(max(0.0, seconds), LONGEST_SLEEP_SECONDS)
    bottle.response.set_header("X-Greeted", name)
    sleep(seconds)
    bottle.response.content_type = "text/plain; charset=utf-8"
    return f"Hello, {name}, at {bottle.request.path}!\n"


@app.put("/count")
def count() -> dict[str, int]:
    """Count the bytes of an upload as they arrive, keeping none of them. Parks."""
    stream = bottle.request.environ["wsgi.input"]
    size = blocks = 0
    while block := stream.read(65536):
        size += len(block)
        blocks += 1
    return {"bytes": size, "blocks": blocks}


@app.get("/countdown/<start:int>")
def countdown(start: int) -> Iterator[str]:
    """Count down from `start`, at most 10, sending each number as it is reached."""
    bottle.response.content_type = "text/plain; charset=utf-8"
    for number in range(min(start, 10), 0, -1):
        yield f"{number}\n"
        sleep(0.1)
    yield "lift-off\n"
