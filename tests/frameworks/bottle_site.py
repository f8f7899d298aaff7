"""A typical Bottle application that uses `request` and `response` around a wait.

It knows Bottle; it must never know how it is served.
"""

from __future__ import annotations

import bottle

from txgreenwsgi import sleep

app = bottle.Bottle()


def view() -> dict[str, str]:
    """Return a value of `request` before and after a wait; set a response field."""
    asked = bottle.request.query["name"]
    bottle.response.set_header("X-Name", asked)
    sleep(float(bottle.request.query["seconds"]))
    return {"asked": asked, "found": bottle.request.query["name"]}


app.route("/view", callback=view)
