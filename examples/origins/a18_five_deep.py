"""A wait five calls deep.

"It is the only way to implement truly reusable components": with generators, every
function between the application and the wait must yield, and cannot be reused
elsewhere. Here none of them is aware of the wait, including those of the standard
library: `sorted` calls a key function, a property is read, a generator is summed.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a18_five_deep:app
    curl 'http://localhost:8080/?cherry,apple,fig'

It knows WSGI. Only `price` knows that it waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECONDS_PER_PRICE = 0.05


def price(fruit: str) -> int:
    """Look up a price, slowly. Parks."""
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
        """The price of the fruit. Parks."""
        return price(self.name)


def prices(items: Iterable[Item]) -> Iterator[int]:
    """Yield the price of each item."""
    for item in items:
        yield item.price


def bill(items: list[Item]) -> str:
    """Return the items, the cheapest first, and their total price."""
    ordered = sorted(items, key=lambda item: item.price)
    names = " ".join(item.name for item in ordered)
    return f"{names}: {sum(prices(ordered))}"


def answer(query: str) -> str:
    """Return the bill for the fruits of a query."""
    return bill([Item(name) for name in query.split(",") if name])


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return a bill; 404 for anything but a fruit."""
    try:
        text = answer(environ["QUERY_STRING"])
    except LookupError as error:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [f"{error}\n".encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{text}\n".encode()]
