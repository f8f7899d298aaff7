"""A Bottle application as people write them: `request` and `response`, and waits.

It knows Bottle; it must never know how it is served.
"""

from __future__ import annotations

import bottle

from txgreenwsgi import sleep

app = bottle.Bottle()


def view() -> dict[str, str]:
    """What `request` holds before and after a wait; `response` gets a field."""
    asked = bottle.request.query["name"]
    bottle.response.set_header("X-Name", asked)
    sleep(float(bottle.request.query["seconds"]))
    return {"asked": asked, "found": bottle.request.query["name"]}


app.route("/view", callback=view)
