"""A page whose top is sent while its bottom is still being found out.

The template flushes: what is above `{{ flush() }}` is on its way before the value
below is asked for, which takes half a second. It is done with `write`, from inside
the template engine, several calls deep; nothing that it is called through need
know about it.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a16_template_flush:app
    curl -N http://localhost:8080/

The file knows Jinja and WSGI, and one key of environ.
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
    """Send the page in as many pieces as it flushes. Parks."""
    write = start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    sleep = environ["txgreenwsgi.sleep"]
    rendered: list[str] = []

    def flush() -> str:
        """Send what is rendered so far. Parks while the client is behind."""
        write("".join(rendered).encode())
        rendered.clear()
        return ""

    def news() -> Iterable[str]:
        """Find out what is new. Parks."""
        for number in (1, 2):
            sleep(0.5)
            yield f"item {number} <of> 2"

    name = environ["QUERY_STRING"] or "you"
    for piece in template.generate(name=name, news=news, flush=flush):
        rendered.append(piece)  # noqa: PERF402 - flush() empties it meanwhile
    return ["".join(rendered).encode()]
