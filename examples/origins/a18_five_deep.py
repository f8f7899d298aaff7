"""Five functions that call each other, the innermost of which waits.

"It is the only way to implement truly reusable components": with generators every
function between the application and the one that waits has to yield, and each of
them is of no use anywhere else. Here none of them knows that anything waits, not
even the ones of the standard library in between: `sorted` calls a key function, a
property is read, a generator is summed up.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a18_five_deep:app
    curl 'http://localhost:8080/?cherry,apple,fig'

The file knows WSGI; only `price` knows that there is something to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECONDS_PER_PRICE = 0.05


def price(fruit: str) -> int:
    """Ask a slow authority for a price. Parks."""
    txgreenwsgi.sleep(SECONDS_PER_PRICE)
    if fruit == "stone":
        raise LookupError(f"{fruit} is no fruit")
    return len(fruit) * 10


class Item:
    """A fruit in a basket."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def price(self) -> int:
        """What it costs."""
        return price(self.name)


def prices(items: Iterable[Item]) -> Iterator[int]:
    """Give the price of each item."""
    for item in items:
        yield item.price


def bill(items: list[Item]) -> str:
    """Say what they cost, the cheapest first, and all together."""
    ordered = sorted(items, key=lambda item: item.price)
    names = " ".join(item.name for item in ordered)
    return f"{names}: {sum(prices(ordered))}"


def answer(query: str) -> str:
    """Say what the fruits of a query cost."""
    return bill([Item(name) for name in query.split(",") if name])


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a bill; 404 for what is no fruit."""
    try:
        text = answer(environ["QUERY_STRING"])
    except LookupError as error:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [f"{error}\n".encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{text}\n".encode()]
