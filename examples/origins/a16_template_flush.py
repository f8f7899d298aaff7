"""A template that sends the top of a page before the bottom is computed.

The template flushes: the part above `{{ flush() }}` is sent before the value below,
which takes half a second. `flush` calls `write` from inside the template engine,
several calls deep; the functions in between need no changes.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a16_template_flush:app
    curl -N http://localhost:8080/

It knows Jinja, WSGI and one key of environ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PAGE = """<!DOCTYPE html>
<title>Slow news</title>
<h1>Slow news for {{ name }}</h1>
{{ flush() }}
<ul>
{%- for line in news() %}
<li>{{ line }}</li>
{{ flush() }}
{%- endfor %}
</ul>
"""

template = Environment(autoescape=True).from_string(PAGE)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send the page in one piece per flush. Parks."""
    write = start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    sleep = environ["txgreenwsgi.sleep"]
    rendered: list[str] = []

    def flush() -> str:
        """Send the rendered part. Parks while the client is behind."""
        write("".join(rendered).encode())
        rendered.clear()
        return ""

    def news() -> Iterable[str]:
        """Yield the items, slowly. Parks."""
        for number in (1, 2):
            sleep(0.5)
            yield f"item {number} <of> 2"

    name = environ["QUERY_STRING"] or "you"
    for piece in template.generate(name=name, news=news, flush=flush):
        rendered.append(piece)  # noqa: PERF402 - flush() empties it meanwhile
    return ["".join(rendered).encode()]
